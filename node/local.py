"""A node on this machine as the command line sees it: the SDK's client, and the API's JSON as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire.errors import LocalError

if TYPE_CHECKING:
    from quorate import SyncClient
    from quorate.sync import SyncJob


class Local:
    """Made by `open_local`; every failure is a `LocalError` that says why."""

    def __init__(self, client: SyncClient) -> None:
        self.client = client

    def raw(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer of one call.

        Raises:
            LocalError: the node refused; its own words, with what it would have accepted.
        """
        reply = self.client.http.request(method, path, json=body)
        answer = reply.json()
        if reply.is_error:
            error = answer.get("error", {})
            known = f"; known: {', '.join(error['known'])}" if error.get("known") else ""
            raise LocalError(f"{error.get('code')}: {error.get('message')}{known}")
        return answer

    def download(self, path: str) -> bytes:
        """The bytes of a document.

        Raises:
            LocalError: there is none.
        """
        reply = self.client.http.get(path)
        if reply.is_error:
            raise LocalError(f"{path}: HTTP status {reply.status_code}")
        return reply.content

    def job(self, job_id: str) -> SyncJob[Any]:
        """A job of this node's user."""
        return self.client.job(job_id)


@contextmanager
def open_local(home: Path | None) -> Iterator[Local]:
    """The node that runs on `home`.

    Raises:
        LocalError: none does, or it does not answer.
    """
    import httpx

    from quorate import Client, QuorateError

    try:
        with Client.sync(home=home) as client:
            yield Local(client)
    except (QuorateError, httpx.HTTPError, json.JSONDecodeError) as exc:
        raise LocalError(str(exc) or type(exc).__name__) from exc
