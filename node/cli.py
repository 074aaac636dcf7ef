"""The command line: `quorate`. Commands talk to a running node through the SDK, except `up`, `demo` and `id`.

Heavy modules are imported inside the commands, so that `quorate --help` answers at once.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from node.cli_base import AsJson, Home, client, fail, said, show_json
from node.cli_batches import job_batch
from node.cli_evidence import evidence_app
from node.cli_jobs import job_app
from node.cli_light import light_app
from node.cli_network import peers
from node.cli_relay import relay
from node.cli_stop import stop
from node.cli_verify import calibrate, calibration_app, study_app
from wire.errors import Malformed

app = typer.Typer(
    name="quorate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
ledger_app = typer.Typer(help="What this node earned and spent, entry by entry.", no_args_is_help=True)
receipt_app = typer.Typer(help="Receipts, checked without any node.", no_args_is_help=True)
id_app = typer.Typer(help="This node's identity.", no_args_is_help=True)
job_app.command("batch")(job_batch)
app.add_typer(job_app, name="job")
app.add_typer(ledger_app, name="ledger")
app.add_typer(receipt_app, name="receipt")
app.add_typer(id_app, name="id")
app.command()(calibrate)
app.command()(relay)
app.command()(peers)
app.command()(stop)
app.add_typer(calibration_app, name="calibration")
app.add_typer(evidence_app, name="evidence")
app.add_typer(study_app, name="study")
app.add_typer(light_app, name="light")

PassFile = Annotated[Path | None, typer.Option("--passphrase-file", help="File that holds the passphrase.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"quorate {version('quorate-node')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run AI jobs with peers; an answer counts only when independent peers have checked it."""


@app.command()
def up(
    home: Home = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; default <home>/config.toml.")] = None,
    listen: Annotated[list[str] | None, typer.Option(help="Multiaddr to listen on; may be repeated.")] = None,
    bootstrap: Annotated[list[str] | None, typer.Option(help="Multiaddr of a peer to join; may be repeated.")] = None,
    api_port: Annotated[int | None, typer.Option(help="Port of the local API; 0 takes any free one.")] = None,
    serve: Annotated[bool | None, typer.Option("--serve/--no-serve", help="Work for others and sit on juries.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Serve only this model; may be repeated.")] = None,
    price_percent: Annotated[int | None, typer.Option(help="Our price, percent of the reference price.")] = None,
    cheat: Annotated[str | None, typer.Option(help="Misbehave on purpose, to test the network's defences.")] = None,
    passphrase_file: PassFile = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json/--log-text", help="Log JSON lines.")] = None,
) -> None:
    """Run a node until SIGINT (Ctrl-C) or SIGTERM."""
    from node import config as settings_module
    from node.run import run

    flags = {
        "home": home,
        "listen": listen or None,
        "bootstrap": bootstrap or None,
        "api_port": api_port,
        "serve": serve,
        "models": model or None,
        "price_percent": price_percent,
        "cheat": cheat,
        "passphrase_file": passphrase_file,
        "log_level": log_level,
        "log_json": log_json,
    }
    with said():
        code = run(settings_module.load(flags, file=config))
    raise typer.Exit(code)


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")] = False,
    keep: Annotated[bool, typer.Option(help="Leave the six nodes running.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the image, the outputs and the receipts.")] = Path("out/demo"),
) -> None:
    """Start six nodes on this machine, submit three jobs to them, and catch the one that cheats."""
    from node.demo import main as run_demo

    raise typer.Exit(run_demo(as_json=as_json, keep=keep, out=out))


@app.command()
def models(home: Home = None, as_json: AsJson = False) -> None:
    """Models that a job can name, and how many other peers offer each."""
    with client(home) as local:
        known = local.raw("GET", "/api/v1/models")["models"]
    if as_json:
        return show_json(known)
    for model in known:
        lanes = ", ".join(model["lanes"])
        typer.echo(f"{model['name']:<12} {model['kind']:<15} {model['providers']:>3} peers  lanes {lanes}")
    return None


@app.command()
def ping(
    peer: Annotated[str, typer.Argument(help="A peer id, or the end of one that `quorate peers` prints.")],
    count: Annotated[int, typer.Option(help="Round trips, 1 to 16.")] = 4,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Round trips to a peer: whether this node reaches it, and how long an answer takes."""
    with client(home) as local:
        known = [each["peer"] for each in local.raw("GET", "/api/v1/peers")["peers"] if each["peer"].endswith(peer)]
        if len(known) > 1:
            raise fail(f"{len(known)} peers end in {peer}: give more of the id", 2)
        pinged = local.raw("POST", f"/api/v1/peers/{known[0] if known else peer}/ping?count={count}", {})
    if as_json:
        return show_json(pinged)
    typer.echo(f"{pinged['peer']}")
    typer.echo(f"  first answer {pinged['first_ms']:.1f} ms, finding and dialling included")
    if pinged["rest_ms"]:
        times = sorted(pinged["rest_ms"])
        typer.echo(
            f"  then {len(times)} round trips: {times[0]:.2f} to {times[-1]:.2f} ms, median {median(times):.2f} ms"
        )
    return None


@ledger_app.command("show")
def ledger_show(home: Home = None, as_json: AsJson = False) -> None:
    """Balance, reservations and the newest entries."""
    with client(home) as local:
        view = local.raw("GET", "/api/v1/ledger")
    if as_json:
        return show_json(view)
    amounts = f"balance {view['balance_micro']:,} micro-credits, reserved {view['reserved_micro']:,}"
    typer.echo(f"{amounts}, height {view['height']}")
    for entry in view["entries"]:
        typer.echo(f"{entry['height']:>6}  {entry['type']:<8} {entry['summary']}")
    return None


@ledger_app.command("audit")
def ledger_audit(home: Home = None) -> None:
    """Check this node's chain from its first entry."""
    with client(home) as local:
        view = local.raw("POST", "/api/v1/ledger/audit")
    show_json(view)
    if not view["ok"]:
        raise typer.Exit(1)


@receipt_app.command("verify")
def receipt_verify(
    receipt: Path,
    output: Annotated[Path | None, typer.Option(help="The output that the receipt should be for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a receipt from the file alone: no node, no network."""
    from quorate._receipt_cli import main as verify

    args = [str(receipt), *(["--output", str(output)] if output else []), *(["--json"] if as_json else [])]
    raise typer.Exit(verify(args))


@id_app.command("show")
def id_show(home: Home = None, passphrase_file: PassFile = None) -> None:
    """Print this node's peer id; makes the key on first use."""
    from node import config as settings_module
    from node.identity import load_or_create
    from wire.peer import to_text

    with said():
        settings = settings_module.load({"home": home, "passphrase_file": passphrase_file})
        typer.echo(to_text(load_or_create(settings).peer))


@id_app.command("backup")
def id_backup(dest: Path, passphrase_file: PassFile = None, home: Home = None) -> None:
    """Write an encrypted copy of the key to DEST."""
    from node.identity import backup, read_passphrase

    with said():
        backup(home, dest, read_passphrase(passphrase_file))
    typer.echo(f"wrote {dest}")


@id_app.command("restore")
def id_restore(source: Path, passphrase_file: PassFile = None, home: Home = None) -> None:
    """Install the key from a backup; never overwrites a key that is there."""
    from node.identity import read_passphrase, restore

    with said():
        peer = restore(home, source, read_passphrase(passphrase_file))
    typer.echo(f"restored {peer}")


@app.command()
def doctor(
    area: Annotated[str | None, typer.Argument(help="`network` for how this node is reached, in detail.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say what works, what does not, and what to do about it. Safe to paste in public."""
    from node.doctor import examine, render

    if area == "network":
        from node.doctor_network import network_checks

        with client(home) as local:
            checks = network_checks(local.raw("GET", "/api/v1/node"))
    elif area is None:
        checks = examine(home)
    else:
        raise fail(f"no such area: {area}; there is `network`", 2)
    typer.echo(json.dumps([c.__dict__ for c in checks]) if as_json else render(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the `quorate` script."""
    if sys.argv[1:2] in (["up"], ["relay"]):
        # Until the node watches for signals itself, Ctrl-C ends it as SIGTERM does: KeyboardInterrupt, raised in the
        # middle of an import, is sometimes swallowed there.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Malformed as exc:
        typer.echo(f"quorate: {exc}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
