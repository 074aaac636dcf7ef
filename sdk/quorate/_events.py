"""Server-sent events, sans I/O: bytes in, events out (WHATWG HTML, 9.2.6).

Lines are split at CR, LF and CRLF only: a text that contains U+2028 stays one line.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quorate._ready import ready
from quorate.errors import NodeFault, NodeUnreachable
from quorate.views import Event

LINE_BYTES_MAX = 16 << 20


class EventParser:
    """Feed it chunks; it returns the events that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Raises: NodeFault on an event that cannot be read or a line without end."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r") if chunk else self._after_cr
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_BYTES_MAX:
            raise NodeFault(f"the node sends an event of more than {LINE_BYTES_MAX} bytes")
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> Event | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            return None
        data, self._data = b"\n".join(self._data), []
        return read_event(data) if data else None


def read_event(data: bytes) -> Event:
    """The event in one `data` field; `text` is also found under its name in other versions, `token`."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        named = {name: fields.get(name) for name in ("done", "total")}
        text = fields.get("text", fields.get("token"))
        plain = {"seq": fields["seq"], "type": fields["type"], "at_ms": fields.get("at_ms", 0), "data": fields}
        return msgspec.convert({**plain, **named, "text": text}, ready(Event))
    except (msgspec.MsgspecError, KeyError) as exc:
        raise NodeFault(f"the node sent an unreadable event: {exc}") from exc


class Resume:
    """Where a stream of events stands across connections, and when to give up.

    Args:
        reconnects: broken connections in a row, without one new event, before the node counts as gone.
    """

    def __init__(self, reconnects: int) -> None:
        self._reconnects = reconnects
        self._failures = 0
        self._last_seq = -1
        self.ended = False

    def headers(self) -> dict[str, str]:
        """Of the next connection."""
        accept = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        return accept | ({"Last-Event-ID": str(self._last_seq)} if self._last_seq >= 0 else {})

    def accept(self, event: Event) -> bool:
        """Whether the event is new; one that a resumed stream repeats is not."""
        if event.seq <= self._last_seq:
            return False
        self._last_seq, self._failures, self.ended = event.seq, 0, event.final
        return True

    def pause_s(self, reason: str) -> float:
        """Seconds to wait before the next connection.

        Raises:
            NodeUnreachable: it has been tried often enough.
        """
        self._failures += 1
        if self._failures > self._reconnects:
            raise NodeUnreachable(f"the event stream broke {self._failures} times in a row: {reason}")
        return float(min(2.0, 0.1 * 2 ** (self._failures - 1)))
