"""What a package needs of calls: methods with types, and the `Rpc` port that `node.rpc` fills on any transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from wire.codec import Wire
from wire.peer import PeerId
from wire.rpc.packet import Packet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)
S_contra = TypeVar("S_contra", bound=Wire, contravariant=True)
R2 = TypeVar("R2", bound=Wire)

PROTOCOL = "/quorate/rpc/1"


@dataclass(frozen=True)
class Method(Generic[Q, R]):
    """A named call; what is not of its types is refused, and blamed on who sent it.

    Attributes:
        name: at most 64 bytes, such as "dht.ask".
        request: type of what the caller sends.
        answer: type of what the server sends.
        compress: whether messages of it are compressed where that makes them shorter (texts, not tensors).
    """

    name: str
    request: type[Q]
    answer: type[R]
    compress: bool = False


class Stream(Protocol[S_contra, R2]):
    """One end of a stream of messages either way, within one request."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        ...

    async def send(self, body: S_contra, tensors: Sequence[NDArray[np.generic]] = (), *, last: bool = False) -> None:
        """Send a message; waits while the other side does not take them. Tensors must not change until sent.

        Raises:
            QuorateError: how the request ended, if it has.
        """
        ...

    def finish(self) -> None:
        """Send nothing more; `send` with `last` says the same with its message."""
        ...

    async def receive(self) -> Packet[R2] | None:
        """The next message; None behind the last.

        Raises:
            QuorateError: how the request ended, if not well.
        """
        ...

    def __aiter__(self) -> AsyncIterator[Packet[R2]]: ...


class Rpc(Protocol):
    """Calls to peers, and from them."""

    async def call(self, peer: PeerId, method: Method[Q, R], request: Q, *, timeout_s: float) -> R:
        """One struct there, one back; the time travels with the request and ends it on both sides.

        Raises:
            Unreachable, ChannelClosed, Expired: the connection, or the time.
            Busy: too much is under way, here or there.
            Refused: the peer said no.
            RemoteError: the peer broke the protocol.
        """
        ...

    async def exchange(self, peer: PeerId, method: Method[Q, R], packet: Packet[Q], *, timeout_s: float) -> Packet[R]:
        """As `call`, with tensors beside the structs."""
        ...

    def stream(
        self, peer: PeerId, method: Method[Q, R], *, timeout_s: float
    ) -> AbstractAsyncContextManager[Stream[Q, R]]:
        """A request of several messages either way; leaving the scope before its end cancels it on both sides."""
        ...

    def serve(self, method: Method[Q, R], handle: Callable[[PeerId, Q], Awaitable[R]]) -> None:
        """Answer calls of a method; `handle` may raise any `QuorateError`; it is cancelled when nobody waits."""
        ...

    def serve_packets(self, method: Method[Q, R], handle: Callable[[PeerId, Packet[Q]], Awaitable[Packet[R]]]) -> None:
        """As `serve`, with tensors beside the structs."""
        ...

    def serve_stream(self, method: Method[Q, R], handle: Callable[[Stream[R, Q]], Awaitable[None]]) -> None:
        """Answer streams of a method: the request is over when `handle` returns."""
        ...
