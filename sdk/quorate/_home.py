"""Where the node is: given by the caller, or left by the node in its home folder.

The home is `$QUORATE_HOME` or `~/.quorate`. A running node keeps `api.json` there, `{"url", "token_file"}`. A
token found in a home is sent only to the address in that home's `api.json`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quorate._ready import ready
from quorate.errors import NodeUnreachable, Unauthorized


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A node's address and the bearer token, empty if there is none."""

    url: str
    token: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


class _Api(msgspec.Struct):
    url: str
    token_file: str = "api.token"


def discover(url: str | None, token: str | None, home: str | os.PathLike[str] | None) -> Endpoint:
    """The endpoint to use.

    Raises:
        NodeUnreachable: no address is given, and no node has left one in the home folder.
        Unauthorized: its token file cannot be read.
    """
    folder = Path(home or os.environ.get("QUORATE_HOME") or Path.home() / ".quorate")
    if url is not None and token is not None:
        return Endpoint(_clean(url), token)
    found = _read_api(folder, required=url is None)
    address = _clean(url or found.url)
    if token is None and address == _clean(found.url):
        token = _read_token(folder / found.token_file)
    return Endpoint(address, token or "")


def _clean(url: str) -> str:
    return url.rstrip("/")


def _read_api(folder: Path, *, required: bool) -> _Api:
    path = folder / "api.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=ready(_Api))
    except OSError as exc:
        if not required:
            return _Api("")
        raise NodeUnreachable(f"no node has left its address in {path}; is one running? (`quorate up`)") from exc
    except msgspec.MsgspecError as exc:
        raise NodeUnreachable(f"{path} is not the file of a node: {exc}") from exc


def _read_token(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as exc:
        raise Unauthorized(f"cannot read the node's token: {exc}") from exc
