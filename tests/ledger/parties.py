"""Keys, certificates and a transport for ledger tests.

The certificate here is a hash that only the test can make: what the ledger needs of the real one is the port's answer.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trio
from nacl.signing import SigningKey

from ledger.entry import Entry, Offer, majority
from ledger.ports import Finding
from ledger.service import Ledger, open_ledger
from ledger.state import ALLOWANCE_MICRO
from node.rpc.node import RpcNode, open_rpc
from wire import codec
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.hashing import digest
from wire.job import Certificate, Statement, VerdictWord
from wire.peer import PeerId
from wire.serving import run_handler
from wire.transport import Handler

NOW_MS = 1_800_000_000_000
LATER_MS = NOW_MS + 3_600_000


@dataclass(frozen=True)
class Key:
    """A signer from a small number."""

    number: int

    @property
    def _key(self) -> SigningKey:
        return _signing_key(self.number)

    @property
    def peer(self) -> PeerId:
        return PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


@cache
def _signing_key(number: int) -> SigningKey:
    return SigningKey(number.to_bytes(32, "big"))


def job_id(number: int) -> bytes:
    return digest("test.job", number.to_bytes(8, "big"))


def plain_offer(job: bytes, payee: PeerId, price: int, fee: int, jurors: int, expires_ms: int) -> Offer:
    """An offer that one jury judges by majority."""
    return Offer(job, payee, price, fee, "one", majority(job, jurors), 0, expires_ms)


def certificate(job: bytes, verdict: VerdictWord, signers: Sequence[PeerId]) -> Certificate:
    statement = Statement(job, bytes(32), verdict, "tolerant", bytes(32))
    ordered = sorted(signers)
    return Certificate(statement, ordered, _seal(statement, ordered))


def _seal(statement: Statement, signers: Sequence[PeerId]) -> bytes:
    return digest("test.certificate", codec.encode(statement), *signers)


def check(certificate: Certificate, *, quorum: int) -> Finding:
    """Fills `CertificateCheck`."""
    good = certificate.signature == _seal(certificate.statement, certificate.signers)
    return "valid" if good and len(certificate.signers) >= quorum else "invalid"


def check_without_keys(certificate: Certificate, *, quorum: int) -> Finding:
    """Fills `CertificateCheck` on a node that knows nobody's key."""
    return "unknown"


def now() -> int:
    return NOW_MS


class _Pipe:
    """One side of an in-memory channel."""

    def __init__(
        self, peer: PeerId, send: trio.MemorySendChannel[bytes], receive: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        self._peer, self._send, self._receive = peer, send, receive

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, frame: bytes) -> None:
        try:
            await self._send.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ChannelClosed("closed") from exc

    async def receive(self) -> bytes:
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as exc:
            raise ChannelClosed("closed") from exc

    async def aclose(self) -> None:
        self._send.close()


class Net:
    """Connects the transports of one test."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.handlers: dict[tuple[PeerId, str], Handler] = {}
        self.blamed: list[RemoteError] = []

    def transport(self, peer: PeerId) -> NetTransport:
        return NetTransport(self, peer)


class NetTransport:
    """One party's end of a `Net`."""

    def __init__(self, net: Net, peer: PeerId) -> None:
        self._net, self.peer = net, peer

    async def open(self, peer: PeerId, protocol: str) -> _Pipe:
        handler = self._net.handlers.get((peer, protocol))
        if handler is None:
            raise Unreachable(protocol)
        there, here = trio.open_memory_channel[bytes](math.inf), trio.open_memory_channel[bytes](math.inf)
        theirs = _Pipe(self.peer, here[0], there[1])

        async def serve() -> None:
            try:
                await run_handler(handler, theirs, blame=self._net.blamed.append, on_bug=None)
            finally:
                await theirs.aclose()

        self._net.nursery.start_soon(serve)
        return _Pipe(peer, there[0], here[1])

    def serve(self, protocol: str, handler: Handler) -> None:
        self._net.handlers[self.peer, protocol] = handler

    def addresses(self) -> list[str]:
        return []

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Nothing to learn."""


@asynccontextmanager
async def net() -> AsyncIterator[Net]:
    async with trio.open_nursery() as nursery:
        yield Net(nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def ledger_of(
    folder: Path, number: int, on: Net | None = None, allowance_micro: int = ALLOWANCE_MICRO
) -> AsyncIterator[Ledger]:
    """An open ledger of party `number`, kept in `folder` between calls."""
    key = Key(number)
    async with AsyncExitStack() as stack:
        rpc = None if on is None else await stack.enter_async_context(calls_of(key, on))
        opened = open_ledger(folder / f"{number}.db", key, rpc, now, check, allowance_micro=allowance_micro)
        yield await stack.enter_async_context(opened)


def calls_of(key: Key, on: Net) -> AbstractAsyncContextManager[RpcNode]:
    """What a party calls and answers with, whether it keeps a ledger or not."""
    return open_rpc(on.transport(key.peer), blame=on.blamed.append)


async def verdict_job(
    payer: Ledger, worker: Ledger, jury: Sequence[Ledger], number: int, verdict: VerdictWord, price: int = 1000
) -> tuple[Entry, list[Entry]]:
    """One job from offer to settlement: the receipt, and all settles."""
    job = job_id(number)
    offer = await payer.offer(job, worker.peer, price, 10, majority(job, len(jury)), LATER_MS)
    accept = await worker.accept(offer)
    made = certificate(job, verdict, [juror.peer for juror in jury])
    assert verdict in ("accept", "reject")
    receipt = await payer.receipt(offer.id, verdict, [made], accept)
    paid = [*([worker] if verdict == "accept" else []), *jury]
    return receipt, [await party.settle(receipt) for party in paid]
