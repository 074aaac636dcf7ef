"""`quorate evidence`: what convicts a cheat, recomputed here, without a node or a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli_base import AsJson, said, show_json
from wire.errors import StorageError

evidence_app = typer.Typer(help="Evidence against cheats, recomputed without any node.", no_args_is_help=True)


@evidence_app.command("verify")
def evidence_verify(
    file: Annotated[Path, typer.Argument(help="A bundle, as `quorate job evidence` writes it.")],
    calibration: Annotated[
        list[Path] | None, typer.Option(help="Signed record to accept besides those that ship; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle and recompute what it shows; only the distance that is found here convicts."""
    with said():
        shown = verify(file, calibration or [])
    if as_json:
        return show_json(shown)
    for line in lines(shown):
        typer.echo(line)
    return None


def verify(file: Path, accepted: list[Path]) -> dict[str, Any]:
    """What a bundle proves, as JSON values.

    Args:
        file: the bundle. accepted: files of calibrations that count besides those that ship.

    Raises:
        StorageError: a file cannot be read.
        Malformed: the bundle does not hold; the message begins with the name of the check that failed.
        LocalError: the step or the run cannot be recomputed here.
    """
    from node.calibrations import read_signed
    from verify.calibrated import calibrations
    from verify.evidence import check, decode
    from wire.peer import to_text
    from workloads.variants import make_executor

    try:
        raw = file.read_bytes()
    except OSError as exc:
        raise StorageError(f"{file}: {exc.strerror}") from exc
    records = {record.hash: record for record in (read_signed(path).record for path in accepted)}
    found = check(decode(raw), make_executor(), {**calibrations(), **records})
    return {
        "id": found.id.hex(),
        "peer": to_text(found.peer),
        "job": found.job.hex(),
        "root": found.root.hex(),
        "fault": found.fault,
        "measure": found.measure,
        "distance": found.distance,
        "threshold": found.threshold,
        "step": found.step,
        "juror": to_text(found.juror),
        "claimed": found.claimed,
    }


def lines(shown: dict[str, Any]) -> list[str]:
    """A conviction for people."""
    where = "the whole answer" if shown["step"] is None else f"step {shown['step']}"
    return [
        f"convicted   {shown['peer']}",
        f"  job       {shown['job']}",
        f"  answer    {shown['root']}",
        f"  fault     {shown['fault']}: {where}, recomputed here",
        f"  measured  {shown['measure']} {shown['distance']:.3g}, {shown['threshold']:.3g} is allowed",
        f"  juror     {shown['juror']} reported {shown['claimed']:.3g}",
    ]
