"""`quorate light`: let browsers in, and give them their page."""

from __future__ import annotations

from typing import Annotated

import typer

from node.cli_base import AsJson, Home, client, said, show_json

PORT = 8460
"""A fixed port by default: a browser keeps the page's key by origin, and the port is part of it."""

light_app = typer.Typer(help="Light peers: browsers that have jobs run by this node.", no_args_is_help=True)


@light_app.command("invite")
def invite(
    home: Home = None,
    hours: Annotated[int, typer.Option(help="For how long it lets its peer in.")] = 30 * 24,
    as_json: AsJson = False,
) -> None:
    """Print an invitation: the first browser that shows it may have jobs run by this node."""
    with client(home) as local:
        made = local.raw("POST", f"/api/v1/light/invitations?hours={hours}")
    if as_json:
        return show_json(made)
    if not made["join"]:
        typer.echo("quorate: no browser can reach this node: add a WebSocket address to `listen`", err=True)
    for line in made["join"] or [made["invitation"]]:
        typer.echo(line)
    return None


@light_app.command("ls")
def ls(home: Home = None, as_json: AsJson = False) -> None:
    """List the light peers that are let in, and what each may still spend today."""
    with client(home) as local:
        shown = local.raw("GET", "/api/v1/light")
    if as_json:
        return show_json(shown)
    for peer in shown["peers"]:
        typer.echo(f"{peer['peer']}  {peer['left_micro']:,} of {shown['credit_micro']:,} micro-credits left today")
    return None


@light_app.command("page")
def page(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")] = PORT,
) -> None:
    """Serve the page for browsers on this machine until SIGINT (Ctrl-C)."""
    import trio

    from node.light.page import serve_page

    def listening(url: str) -> None:
        typer.echo(url)

    with said():
        trio.run(serve_page, port, listening)
