"""What the commands share: how they find a node, how they fail, how they print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wire.errors import LocalError, Malformed

if TYPE_CHECKING:
    from node.local import Local

Home = Annotated[Path | None, typer.Option("--home", help="The node's folder; default $QUORATE_HOME or ~/.quorate.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Say why on stderr; raise what it returns."""
    typer.echo(f"quorate: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def said() -> Iterator[None]:
    """Failures of this machine, and files that are not what they should be, become one line and exit status 1."""
    try:
        yield
    except (LocalError, Malformed) as exc:
        raise fail(str(exc)) from exc


@contextmanager
def client(home: Path | None) -> Iterator[Local]:
    """The node that runs on `home`; what it refuses is said, and ends the command."""
    from node.local import open_local

    with said(), open_local(home) as local:
        yield local


def show_json(value: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, default=str))
