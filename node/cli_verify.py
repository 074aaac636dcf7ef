"""Commands about checking itself: `quorate calibrate`, `quorate calibration` and `quorate study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.cli_base import AsJson, Home, said, show_json

calibration_app = typer.Typer(
    help="Thresholds that were measured, and what they cannot tell apart.", no_args_is_help=True
)
study_app = typer.Typer(help="Studies that can be made again from this package alone.", no_args_is_help=True)


def calibrate(
    model: Annotated[str, typer.Argument(help="Name or CID of the model.")],
    home: Home = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the records; default <home>/calibrations.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs and backends: a first look.")] = False,
) -> None:
    """Measure a model's thresholds from real runs, and sign the records with this node's identity."""
    from node.calibration_cli import make, render

    with said():
        for path, shown in make(model, home=home, out=out, quick=quick, say=lambda line: typer.echo(line, err=True)):
            typer.echo(render(shown.record, shown.author))
            typer.echo(f"  wrote {path}")


@calibration_app.command("show")
def calibration_show(
    files: Annotated[list[Path] | None, typer.Argument(help="Signed records; default all that are known.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print calibration records cell by cell, with those that do not separate."""
    from node import calibration_cli as records

    with said():
        shown = [records.read(file) for file in files] if files else records.known(home)
    if as_json:
        return show_json([records.as_json(each) for each in shown])
    typer.echo("\n\n".join(records.render(each.record, each.author) for each in shown))
    return None


@study_app.command("consensus")
def study_consensus(
    out: Annotated[Path, typer.Option(help="Folder of the data set; a run that was stopped goes on there.")],
    images: Annotated[int, typer.Option(help="Images of the reference backend.")] = 100_000,
    texts: Annotated[int, typer.Option(help="Texts of the reference backend.")] = 20_000,
    image_probes: Annotated[int, typer.Option(help="Images per other backend and per cheat.")] = 500,
    text_probes: Annotated[int, typer.Option(help="Texts per other backend and per cheat.")] = 500,
    steps: Annotated[int, typer.Option(help="Diffusion steps of the honest images.")] = 8,
    probe_steps: Annotated[int, typer.Option(help="Diffusion steps of the images that cheats are tried on.")] = 30,
    tokens: Annotated[int, typer.Option(help="Most tokens per text.")] = 32,
    comparisons: Annotated[int, typer.Option(help="Pairs of different jobs to compare.")] = 1_000_000_000,
    fingerprint_runs: Annotated[int, typer.Option(help="Runs per cheat for the fingerprint plots; 0: none.")] = 40,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw; needs the extra `study`.")] = True,
) -> None:
    """Generate a data set, compare a billion pairs of codes, and write tables, plots and a README."""
    from node.study.dataset import Settings
    from node.study.run import Extent, run

    settings = Settings(images, texts, min(image_probes, images), min(text_probes, texts), steps, probe_steps, tokens)
    extent = Extent(comparisons, fingerprint_runs, plots)
    with said():
        typer.echo(run(out, settings, extent, lambda line: typer.echo(line, err=True)))
