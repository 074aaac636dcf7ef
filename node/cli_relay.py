"""`quorate relay`: a node that only relays, and what it has carried."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.cli_base import AsJson, Home, client, fail, said, show_json


def relay(
    home: Home = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; default <home>/config.toml.")] = None,
    listen: Annotated[list[str] | None, typer.Option(help="Multiaddr to listen on; may be repeated.")] = None,
    bootstrap: Annotated[list[str] | None, typer.Option(help="Multiaddr of a peer to join; may be repeated.")] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="File that holds the passphrase.")
    ] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json/--log-text", help="Log JSON lines.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Start nothing; print what the relay on HOME carries.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a node that relays for peers whom nobody can dial, and runs no models, until SIGINT or SIGTERM."""
    if show:
        return _show(home, as_json)
    from node import config as settings_module
    from node.run import run

    flags = {
        "home": home,
        "listen": listen or None,
        "bootstrap": bootstrap or None,
        "passphrase_file": passphrase_file,
        "log_json": log_json,
        "serve": False,
        "relay": "on",
    }
    with said():
        code = run(settings_module.load(flags, file=config))
    raise typer.Exit(code)


def _show(home: Path | None, as_json: bool) -> None:
    from node.doctor_network import relaying_line

    with client(home) as local:
        about = local.raw("GET", "/api/v1/node")
    told = (about["reach"] or {}).get("relaying")
    if told is None:
        raise fail("the node on this home does not relay; start it with `quorate relay`")
    if as_json:
        return show_json(told)
    typer.echo(relaying_line(told))
    return None
