"""`quorate calibrate` and `quorate calibration show`: make calibration records, sign them, and print every cell.

Records that a user made lie in `<home>/calibrations/*.calibration`, each the canonical bytes of a signed envelope.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from node import config
from node.calibrating import PHASH_ALONE, QUICK, Effort, Say, measure_cell, records
from node.calibrations import FOLDER, SUFFIX, files, read_signed
from node.identity import load_or_create
from verify.calibrated import calibrations, refused_calibrations
from verify.calibration import Calibration, CheatCell, to_json
from verify.signed_calibration import SignedCalibration, sign
from wire.errors import StorageError
from wire.job import Kind, Lane
from wire.peer import to_text
from workloads.catalog import built_in

LANES: tuple[Lane, ...] = ("tolerant", "exact")


@dataclass(frozen=True)
class Shown:
    """A record and where it is from: the peer id of its author, or empty if it ships with this package."""

    record: Calibration
    author: str


def cell_name(record: Calibration) -> str:
    """What a file of this record is called, without its ending."""
    weaker = {PHASH_ALONE: "-picture-alone"}.get(record.fingerprint, "-bf16-class" if "bf16" in record.numeric else "")
    return f"{record.kind}-{record.lane}{weaker}"


def make(model: str, *, home: Path | None, out: Path | None, quick: bool, say: Say) -> Iterator[tuple[Path, Shown]]:
    """Calibrate one model in both lanes, sign with this node's identity, write; one record at a time.

    Args:
        model: name or CID. home: the node's folder. out: where to write; default `<home>/calibrations`.
        quick: fewer runs and backends. say: told of progress.

    Raises:
        LocalError: unknown model, or a run failed. StorageError: the files cannot be written.
    """
    settings = config.load({"home": home})
    kind: Kind = built_in().find(model).manifest.kind
    identity = load_or_create(settings)
    folder = out or settings.home / FOLDER
    effort = QUICK if quick else Effort()
    for lane in LANES:
        say(f"{kind}, lane {lane}")
        measured = measure_cell(kind, lane, effort, say=say)
        record, weaker = records(measured, effort.alpha)
        for each in (record, *weaker):
            yield _write(folder, sign(identity, each)), Shown(each, to_text(identity.peer))


def _write(folder: Path, signed: SignedCalibration) -> Path:
    path = folder / (cell_name(signed.record) + SUFFIX)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(signed.raw)
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc.strerror}") from exc
    return path


def known(home: Path | None) -> list[Shown]:
    """The records that ship, those that say what does not separate, and the user's own.

    Raises:
        StorageError: a file cannot be read. Malformed: a file is damaged, badly signed or contradicts itself.
    """
    shipped = sorted([*calibrations().values(), *refused_calibrations()], key=cell_name)
    own = files(config.load({"home": home}).home)
    return [*(Shown(record, "") for record in shipped), *map(read, own)]


def read(path: Path) -> Shown:
    """One signed file; raises as `known`."""
    signed = read_signed(path)
    return Shown(signed.record, to_text(signed.author))


def as_json(shown: Shown) -> dict[str, object]:
    """For `--json`: the record by field name, its hash and its author."""
    record = json.loads(to_json(shown.record))
    return {"hash": shown.record.hash.hex(), "author": shown.author or None, "record": record}


def render(record: Calibration, author: str = "") -> str:
    """A record for people; cells that do not separate are listed by name."""
    runs = sum(group.runs for group in record.groups)
    state = "certified" if record.certified else "NOT CERTIFIED: no job may rely on it"
    source = f"signed by {author}" if author else "ships with quorate"
    honest = f"n = {runs} over {len(record.groups)} backend pairs, {record.honest_rejects} beyond the thresholds"
    rule = f"quantile {1 - record.alpha:g}, margin x{record.margin:g}, gap asked for x{record.gap:g}"
    lines = [
        f"{record.kind}, {record.lane}, numeric class {record.numeric}: {state}",
        f"  {record.fingerprint}; hash {record.hash.hex()[:16]}; {source}",
        f"  honest: {honest}; {rule}",
        f"  backends: {', '.join(_backends(record))}",
    ]
    for name, limit in sorted(record.thresholds.items()):
        worst = max(group.quantiles[name] for group in record.groups)
        lines.append(f"  {name:10} threshold {limit:.3g}, honest quantile {worst:.3g}")
    lines += [_cell(cell, record.lane) for cell in record.cheats]
    if record.inseparable:
        lines.append(f"  does not tell from honest work: {', '.join(record.inseparable)}")
    return "\n".join(lines)


def _backends(record: Calibration) -> list[str]:
    return sorted({name for group in record.groups for name in group.backend.split("/")})


def _cell(cell: CheatCell, lane: Lane) -> str:
    if cell.refused == cell.runs:
        gap = "cannot be compared"
    elif lane == "exact":
        gap = "differs" if cell.separates else "equal bytes in some run"
    else:
        gap = f"mildest x{cell.score_min:.2g}"
    end = "" if cell.separates else "   DOES NOT SEPARATE"
    return f"    {cell.name:24} {cell.detected} of {cell.runs} rejected, {gap}{end}"
