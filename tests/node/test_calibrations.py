"""Which calibration records count on a node, in which order, and what becomes of files that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from node.calibrations import FOLDER, usable
from node.config import Settings, load
from node.intake import Refused, parse
from verify.calibrated import calibration_for, calibrations
from verify.calibration import Calibration
from verify.signed_calibration import sign
from wire.errors import LocalError
from wire.hashing import digest
from wire.identity import Identity
from wire.peer import to_text
from workloads.catalog import built_in
from workloads.executor import NUMERICS

ME, FRIEND, STRANGER = (Identity.from_seed(digest("test.author", name)) for name in (b"me", b"friend", b"stranger"))
MODELS = built_in().capabilities().models
SHIPPED = calibration_for("embed.text", next(m.cid for m in MODELS if m.kind == "embed.text"), "tolerant", "f32")
BODY = {"kind": "embed.text", "model": "ngram-embed", "input": {"texts": ["x"]}}


def variant(margin: float, **changes: Any) -> Calibration:
    """A record of the same subject that is another measurement."""
    return msgspec.structs.replace(SHIPPED, margin=margin, **changes)


def put(home: Path, name: str, author: Identity, record: Calibration) -> Calibration:
    """Write a signed record to a node's folder."""
    folder = home / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.calibration").write_bytes(sign(author, record).raw)
    return record


def read(home: Path, *authors: Identity) -> tuple[Mapping[bytes, Calibration], list[Any]]:
    """What counts, and what the log says."""
    settings = Settings(home=home, calibration_authors=[to_text(each.peer) for each in authors])
    with capture_logs() as lines:
        return usable(settings, ME.peer, structlog.get_logger()), lines


def test_shipped_records_come_first_then_our_own_then_those_of_named_authors(tmp_path: Path) -> None:
    theirs = put(tmp_path, "a", FRIEND, variant(4.0))
    ours = [put(tmp_path, name, ME, variant(margin)) for name, margin in (("b", 5.0), ("c", 6.0))]
    known, lines = read(tmp_path, FRIEND)
    assert list(known)[len(calibrations()) :] == [*(each.hash for each in ours), theirs.hash]
    assert list(known)[: len(calibrations())] == list(calibrations())
    assert lines == []


def test_a_record_of_an_author_that_is_not_named_does_not_count(tmp_path: Path) -> None:
    put(tmp_path, "x", STRANGER, variant(4.0))
    known, (line,) = read(tmp_path, FRIEND)
    assert set(known) == set(calibrations())
    assert (line["event"], line["file"]) == ("calibration_skipped", "x.calibration")
    assert to_text(STRANGER.peer) in line["reason"]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "huge"])
def test_a_damaged_file_is_one_line_and_the_others_count(tmp_path: Path, damage: str) -> None:
    good, bad = put(tmp_path, "good", ME, variant(4.0)), put(tmp_path, "bad", ME, variant(5.0))
    path = tmp_path / FOLDER / "bad.calibration"
    raw = path.read_bytes()
    path.write_bytes(
        {"flipped": raw[:-1] + bytes([raw[-1] ^ 1]), "truncated": raw[:-1], "empty": b"", "huge": bytes(1 << 21)}[
            damage
        ]
    )
    known, (line,) = read(tmp_path)
    assert good.hash in known
    assert bad.hash not in known
    assert (line["event"], line["file"]) == ("calibration_skipped", "bad.calibration")


def test_a_name_among_the_authors_that_is_no_peer_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="calibration_authors"):
        load({"home": tmp_path, "calibration_authors": ["bob"]})


def test_the_first_certified_record_of_the_subject_is_taken() -> None:
    loose = variant(4.0, certified=False, inseparable=["int8-weights"])
    for records, expected in (([SHIPPED, variant(5.0)], SHIPPED), ([loose, variant(5.0), SHIPPED], variant(5.0))):
        known = {each.hash: each for each in records}
        assert calibration_for("embed.text", SHIPPED.model, "tolerant", "f32", records=known) == expected
    with pytest.raises(LocalError, match="int8-weights"):
        calibration_for("embed.text", SHIPPED.model, "tolerant", "f32", records={loose.hash: loose})
    with pytest.raises(LocalError, match="no calibration"):
        calibration_for("embed.text", SHIPPED.model, "tolerant", NUMERICS["exact"], records={loose.hash: loose})


def named(calibration: Any, *records: Calibration) -> bytes | None:
    known = {each.hash: each for each in records}
    return parse({**BODY, "calibration": calibration}, MODELS, random_seed=1, calibrations=known).calibration


def test_a_job_names_its_record_by_the_beginning_of_its_hash() -> None:
    own = variant(4.0)
    assert named(None, own) is None
    assert named(own.hash.hex(), SHIPPED, own) == own.hash
    assert named(own.hash.hex()[:10], SHIPPED, own) == own.hash


@pytest.mark.parametrize(
    ("wanted", "record"),
    [
        ("", variant(4.0)),
        (7, variant(4.0)),
        ("zz", variant(4.0)),
        (variant(4.0, certified=False).hash.hex(), variant(4.0, certified=False)),
        (variant(4.0, lane="exact").hash.hex(), variant(4.0, lane="exact")),
        (variant(4.0, numeric="f32 or bf16").hash.hex(), variant(4.0, numeric="f32 or bf16")),
    ],
    ids=["empty", "a number", "unknown", "not certified", "another lane", "another numeric class"],
)
def test_a_record_that_cannot_judge_the_job_is_refused_with_those_that_can(wanted: Any, record: Calibration) -> None:
    with pytest.raises(Refused, match="calibration") as caught:
        named(wanted, SHIPPED, record)
    assert SHIPPED.hash.hex() in caught.value.known
