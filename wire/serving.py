"""Running a channel handler: the one place where its errors are sorted by whose fault they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from wire.errors import Busy, Malformed, QuorateError, RemoteError, TransportError
from wire.transport import Channel, Handler

Blame = Callable[[RemoteError], None]
Bug = Callable[[Exception], None]


async def run_handler(handler: Handler, channel: Channel, *, blame: Blame, on_bug: Bug | None) -> None:
    """Run `handler` on a channel that a peer opened; the caller closes the channel afterwards.

    Args:
        handler: may raise; errors inside exception groups are looked at one by one.
        channel: whose peer is blamed for `Malformed` frames.
        blame: told of each `RemoteError`.
        on_bug: told of each error that is nobody else's fault; without it they are raised.
    """
    try:
        await handler(channel)
    except* (RemoteError, Malformed) as group:
        for exc in _leaves(group):
            blame(exc if isinstance(exc, RemoteError) else RemoteError(channel.peer, f"malformed frame: {exc}"))
    except* (TransportError, Busy):
        pass  # the channel ended under the handler, or it refused: closing is the answer
    except* Exception as group:  # a bug of ours: a peer must not end the node with it, nor may it go unseen
        if on_bug is None:
            raise
        for exc in _leaves(group):
            on_bug(exc)


async def failure_of(run: Callable[[], Awaitable[None]], on_bug: Bug | None) -> Exception | None:
    """Run a handler of one request among many; the first error that ended it, if any.

    Args:
        run: may raise; errors inside exception groups are looked at one by one.
        on_bug: told of each error that is no `QuorateError`; without it they are raised.
    """
    found: list[Exception] = []
    try:
        await run()
    except* QuorateError as group:
        found.extend(_leaves(group))
    except* Exception as group:  # as above: one request ends with it, not the node
        if on_bug is None:
            raise
        for exc in _leaves(group):
            on_bug(exc)
            found.append(exc)
    return found[0] if found else None


def _leaves(group: BaseExceptionGroup[Any]) -> list[Exception]:
    flat: list[Exception] = []
    for exc in group.exceptions:
        flat.extend(_leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc])
    return flat
