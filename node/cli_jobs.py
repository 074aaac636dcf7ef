"""`quorate job`: submit jobs and follow them, with results for people or, with `--json`, for programs."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import report
from node.cli_base import AsJson, Home, client, fail, show_json
from wire.errors import LocalError, StorageError

if TYPE_CHECKING:
    from node.local import Local

job_app = typer.Typer(help="Submit jobs and follow them.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's id, or enough of its beginning.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the receipt, the answer and its picture.")]
ID_CHARS = 32
ENLARGED = 16
"""A picture of 16 pixels is lost on a screen; a copy this many times larger is not."""


@job_app.command("submit")
def job_submit(
    kind: Annotated[str, typer.Argument(help="text.generate, image.generate or embed.text")],
    model: Annotated[str, typer.Argument(help="Name or CID of the model; `quorate models` lists them.")],
    inputs: Annotated[str, typer.Argument(help='The input as JSON, e.g. \'{"prompt": "Once"}\'.')],
    home: Home = None,
    lane: Annotated[str, typer.Option(help="exact or tolerant")] = "tolerant",
    policy: Annotated[str, typer.Option(help="quorum:3, quorum:5, ..., escalate or none")] = "quorum:3",
    seed: Annotated[int | None, typer.Option(help="Seed of the generator.")] = None,
    budget_micro: Annotated[int | None, typer.Option(help="Most to pay, fees included.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds for the whole job.")] = 120.0,
    calibration: Annotated[
        str | None, typer.Option(help="Hash (its beginning is enough) of the record to judge by.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job to its end.")] = True,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job; by default follow it and print the result."""
    if not math.isfinite(timeout_s):
        raise fail(f"--timeout-s must be a number of seconds, not {timeout_s}", 2)
    body = {"kind": kind, "model": model, "input": _input(inputs), "lane": lane, "policy": policy}
    body["timeout_s"] = timeout_s
    if seed is not None:
        body["seed"] = seed
    if budget_micro is not None:
        body["budget_micro"] = budget_micro
    if calibration is not None:
        body["calibration"] = calibration
    with client(home) as local:
        view = local.raw("POST", "/api/v1/jobs", body)
        if wait:
            view = _follow(local, view["id"])
        _show(local, view, out, as_json=as_json)
    if wait and view["verdict"] != "accept" and policy != "none":
        raise typer.Exit(1)


def _input(text: str) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not a number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError as exc:
        raise fail(f"the input is not JSON: {exc}", 2) from exc


def _follow(local: Local, job_id: str) -> Any:
    last = ""
    for event in local.job(job_id).events():
        if event.type not in ("running", last):
            typer.echo(event.type, err=True)
            last = event.type
    return local.raw("GET", f"/api/v1/jobs/{job_id}")


def _show(local: Local, view: Any, out: Path | None, *, as_json: bool) -> None:
    saved = _save(local, view, out) if out is not None else []
    if as_json:
        return show_json(view)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in report.job(view, lambda peer: peer[-8:]):
        typer.echo(report.wrapped(line.text, width) if width else line.text)
    for path in saved:
        typer.echo(f"  wrote     {path}")
    return None


def _save(local: Local, view: Any, out: Path) -> list[Path]:
    """Write what there is of receipt, answer and picture."""
    job = local.job(view["id"])
    receipt, answer = job.receipt(), job.output()
    files = {"receipt": receipt.raw} if receipt else {}
    if answer:
        files["output"] = answer
        if view["kind"] == "image.generate":
            from node.views import png

            files |= {"png": png(answer), "large.png": png(answer, scale=ENLARGED)}
    paths = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, raw in files.items():
            paths.append(out / f"{view['id'][:12]}.{suffix}")
            paths[-1].write_bytes(raw)
    except OSError as exc:
        raise StorageError(f"{out}: {exc.strerror}") from exc
    return paths


def _whole(local: Local, given: str) -> str:
    """The id that begins so."""
    if len(given) == ID_CHARS:
        return given
    fitting = [j["id"] for j in local.raw("GET", "/api/v1/jobs")["jobs"] if j["id"].startswith(given)]
    if len(fitting) != 1:
        many = f"{len(fitting)} jobs begin with" if fitting else "no job begins with"
        raise LocalError(f"{many} {given!r}; `quorate job ls` lists them")
    return str(fitting[0])


@job_app.command("get")
def job_get(job_id: JobId, home: Home = None, out: Out = None, as_json: AsJson = False) -> None:
    """Print a job; with --out also write its receipt and its answer to files."""
    with client(home) as local:
        _show(local, local.raw("GET", f"/api/v1/jobs/{_whole(local, job_id)}"), out, as_json=as_json)


@job_app.command("ls")
def job_ls(home: Home = None, as_json: AsJson = False) -> None:
    """List this node's own jobs."""
    with client(home) as local:
        jobs = local.raw("GET", "/api/v1/jobs")["jobs"]
    if as_json:
        return show_json(jobs)
    for job in jobs:
        state = f"{job['state']:<9} {job['verdict'] or '-':<9}"
        typer.echo(f"{job['id']}  {job['kind']:<15} {state} {job['seconds']:>8.2f} s")
    if not jobs:
        typer.echo("no jobs yet", err=True)
    return None


@job_app.command("wait")
def job_wait(job_id: JobId, home: Home = None, out: Out = None, as_json: AsJson = False) -> None:
    """Follow a job to its end and print it."""
    with client(home) as local:
        _show(local, _follow(local, _whole(local, job_id)), out, as_json=as_json)


@job_app.command("evidence")
def job_evidence(
    job_id: JobId,
    out: Annotated[Path, typer.Option("--out", help="File for the bundle.")],
    home: Home = None,
) -> None:
    """Write what convicts the worker whose answer was rejected; `quorate evidence verify` recomputes it."""
    with client(home) as local:
        raw = local.job(_whole(local, job_id)).evidence()
        if raw is None:
            raise LocalError("no answer to this job was rejected")
        try:
            out.write_bytes(raw)
        except OSError as exc:
            raise StorageError(f"{out}: {exc.strerror}") from exc
    typer.echo(f"wrote {out}")


@job_app.command("cancel")
def job_cancel(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Cancel a job and wait until it has ended; one that ended before stays as it is."""
    with client(home) as local:
        whole = _whole(local, job_id)
        local.raw("POST", f"/api/v1/jobs/{whole}/cancel")
        for _ in local.job(whole).events():
            pass
        _show(local, local.raw("GET", f"/api/v1/jobs/{whole}"), None, as_json=as_json)
