"""`quorate job batch`: many jobs from a file, of which a few are audited."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import report
from node.cli_base import AsJson, Home, client, fail, show_json
from node.cli_jobs import Out
from wire.errors import StorageError

if TYPE_CHECKING:
    from node.local import Local

JOB_FIELDS = ("kind", "model", "input", "seed")


def job_batch(
    file: Annotated[Path, typer.Argument(help='JSON lines: {"kind", "model", "input", "seed"}, one model for all.')],
    home: Home = None,
    policy: Annotated[str, typer.Option(help="sample:0.1 (a tenth is audited), ... or sample:auto")] = "sample:auto",
    lane: Annotated[str, typer.Option(help="exact or tolerant")] = "tolerant",
    budget_micro: Annotated[int | None, typer.Option(help="Most to pay, fees included.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds for the whole batch.")] = 600.0,
    calibration: Annotated[
        str | None, typer.Option(help="Hash (its beginning is enough) of the record to judge by.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the batch to its end.")] = True,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Have a file of jobs done as one batch, of which a few, picked by chance, go before a jury."""
    if not math.isfinite(timeout_s):
        raise fail(f"--timeout-s must be a number of seconds, not {timeout_s}", 2)
    body: dict[str, Any] = {**_read(file), "policy": policy, "lane": lane, "timeout_s": timeout_s}
    body |= {} if budget_micro is None else {"budget_micro": budget_micro}
    body |= {} if calibration is None else {"calibration": calibration}
    with client(home) as local:
        view = local.raw("POST", "/api/v1/batches", body)
        if wait:
            last = ""
            for event in local.client.batch(view["id"]).events():
                if event.type not in ("running", last):
                    typer.echo(event.type, err=True)
                    last = event.type
            view = local.raw("GET", f"/api/v1/batches/{view['id']}")
        saved = _save(local, view, out) if out is not None else []
    if as_json:
        show_json(view)
    else:
        for line in report.batch(view, lambda peer: peer[-8:]):
            typer.echo(line.text)
        for path in saved:
            typer.echo(f"  wrote     {path}")
    if wait and view["verdict"] != "accept":
        raise typer.Exit(1)


def _read(file: Path) -> dict[str, Any]:
    """Kind, model and jobs of a file; what is in a job is the node's to check."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise fail(f"{file}: {exc}", 2) from exc
    jobs: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            job = json.loads(line)
        except ValueError as exc:
            raise fail(f"{file}:{number}: not JSON: {exc}", 2) from exc
        if not isinstance(job, dict) or not set(job) <= set(JOB_FIELDS):
            raise fail(f"{file}:{number}: an object with {', '.join(JOB_FIELDS)} expected", 2)
        jobs.append(job)
    common = {(job.get("kind"), job.get("model")) for job in jobs}
    if len(common) != 1:
        raise fail(f"{file}: {len(common)} pairs of kind and model; a batch has one", 2)
    kind, model = common.pop()
    rest = [{name: job[name] for name in ("input", "seed") if name in job} for job in jobs]
    return {"kind": kind, "model": model, "jobs": rest}


def _save(local: Local, view: Any, out: Path) -> list[Path]:
    """Write every answer, the receipt of every audited one, and what convicts the worker if one was rejected."""
    paths = []
    evidence = local.client.batch(view["id"]).evidence()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if evidence is not None:
            paths.append(out / f"{view['id'][:12]}.evidence")
            paths[-1].write_bytes(evidence)
        for item in view["items"]:
            kinds = [*(["output"] if item["output"] else []), *(["receipt"] if item["audited"] else [])]
            for kind in kinds:
                paths.append(out / f"{view['id'][:12]}.{item['index']}.{kind}")
                paths[-1].write_bytes(local.download(f"/api/v1/batches/{view['id']}/items/{item['index']}/{kind}"))
    except OSError as exc:
        raise StorageError(f"{out}: {exc.strerror}") from exc
    return paths
