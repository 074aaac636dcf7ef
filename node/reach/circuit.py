"""The guest's and the caller's part of circuit relay v2: reservations kept alive on several relays, circuits both ways.

A reservation is renewed at half its time and at least every `RENEW_S_MAX`, which also keeps the routers on the way
awake and finds out when a connection has died in silence. It is lost with the connection to its relay; then the relay
is tried again with growing pauses while the others stay. A relay that holds
no reservation of ours cannot bring anybody in.
Source: github.com/libp2p/specs, relay/circuit-v2.md.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio
from libp2p.peer.id import ID

from node.libp2p_host import libp2p_id, peer_id
from node.reach.addresses import Circuit, endpoint
from node.reach.circuit_messages import HOP, STOP, Hop, Kind, Status, Stop
from node.reach.ways import FAILED, ByteStream, Ways
from wire.errors import Malformed, RemoteError, TransportError, Unreachable
from wire.peer import PeerId, short

RENEW_S_MIN, RENEW_S_MAX = 5.0, 30.0
RETRY_S, RETRY_S_MAX = 1.0, 60.0


PROOF_S = 600.0
"""Seconds after which a relay that nobody named to us must show anew that it brings callers."""

Proof = Callable[[Circuit], Awaitable[bool]]


@dataclass(frozen=True)
class Ended:
    """How a reservation ended: after how many seconds (0.0 if there was none), and why."""

    served_s: float
    reason: str


class Refused(Unreachable):
    """A relay answers, and wants no more guests."""


class Unanswered(Unreachable):
    """A relay to which a connection seems to stand says nothing."""


class Circuits:
    """Our reservations, and connections through relays.

    Args:
        connect: makes sure of a direct connection with a relay; raises `TransportError`.
        changed: called whenever the set of relays with a reservation has changed.
        arrived: told of each peer that came through a relay.
    """

    def __init__(
        self,
        ways: Ways,
        connect: Callable[[PeerId, str], Awaitable[None]],
        changed: Callable[[], None],
        arrived: Callable[[PeerId], None],
    ) -> None:
        self._ways = ways
        self._connect = connect
        self._changed = changed
        self._arrived = arrived
        self.held: dict[PeerId, Circuit] = {}
        self.carried = Counter[PeerId]()
        """Bytes that came and went through each relay that holds a reservation for us."""
        self._proving: dict[PeerId, Circuit] = {}
        self.testers: set[PeerId] = set()
        """Strangers that we are ourselves, to see whether a relay lets them in."""

    def serve(self) -> None:
        """Let in those whom our relays bring."""
        self._ways.serve(STOP, self._stop)

    # ---- guest

    async def keep(self, relay: PeerId, address: str) -> None:
        """Hold a reservation on one relay for as long as the caller's scope lasts."""
        pause = RETRY_S
        while True:
            ended = await self.hold(relay, (address,))
            pause = RETRY_S if ended.served_s else min(2 * pause, RETRY_S_MAX)
            await trio.sleep(pause)

    async def hold(self, relay: PeerId, addresses: Sequence[str], proof: Proof | None = None) -> Ended:
        """Hold a reservation on one relay until it is lost; says for how long it was held, and why not longer.

        Args:
            addresses: direct, tried in this order.
            proof: whether the relay brings callers, asked before others are told of it and every `PROOF_S`.
        """
        began = proven = -math.inf
        reason = "lost"
        try:
            while True:
                circuit = await self._reach(relay, addresses)
                renew_s = await self._reserve(relay)
                if proof is not None and trio.current_time() - proven >= PROOF_S:
                    self._proving[relay] = circuit
                    if not await proof(circuit):
                        reason = "lies"
                        break
                    proven = trio.current_time()
                if relay not in self.held:
                    began = trio.current_time()
                    self.held[relay] = circuit
                    self._changed()
                with trio.move_on_after(renew_s):
                    await self._ways.lost(relay)
                if not self._ways.direct(relay):
                    break
        except Refused as exc:  # the connection is good, and may serve others
            reason = str(exc)
        except (*FAILED, TransportError, RemoteError, Malformed) as exc:
            reason = str(exc)
            await self._ways.drop(relay)
        finally:
            self._proving.pop(relay, None)
            self.carried.pop(relay, None)
            if self.held.pop(relay, None) is not None:
                self._changed()
        return Ended(max(trio.current_time() - began, 0.001) if math.isfinite(began) else 0.0, reason)

    async def _reach(self, relay: PeerId, addresses: Sequence[str]) -> Circuit:
        """Make sure of a direct connection with a relay; where it was dialled the first time."""
        if (held := self.held.get(relay)) is not None:
            await self._connect(relay, held.address)
            return held
        for place, address in enumerate(addresses, 1):
            try:
                await self._connect(relay, address)
            except TransportError:
                if place == len(addresses):
                    raise
                continue
            return Circuit(relay, address)
        raise Unreachable(f"relay {short(relay)} has no address")

    async def _reserve(self, relay: PeerId) -> float:
        """Ask for a reservation; the seconds after which it should be renewed."""
        answer = await self._ask(relay, Hop(Kind.RESERVE))
        if answer.status != Status.OK or answer.reservation is None:
            raise Refused(f"relay {short(relay)} gives no reservation: {_reason(answer.status)}")
        left_s = answer.reservation.expire_s - time.time()
        return min(max(left_s / 2, RENEW_S_MIN), RENEW_S_MAX)

    async def _ask(self, relay: PeerId, asked: Hop) -> Hop:
        stream = await self._ways.open(relay, HOP)
        try:
            await stream.write(asked.encode())
            answer = Hop.decode(await stream.message())
        finally:
            await stream.close()
        if answer.kind is not Kind.STATUS:
            raise Malformed("a relay answers with a status")
        return answer

    async def _stop(self, stream: ByteStream) -> None:
        """A relay brings somebody."""
        asked = Stop.decode(await stream.message())
        through = self.held.get(stream.peer) or self._proving.get(stream.peer)
        if through is None or not asked.connect or stream.relayed:
            await stream.write(Stop(False, status=Status.PERMISSION_DENIED).encode())
            await stream.close()
            return
        caller = peer_id(ID(asked.peer))
        await stream.write(Stop(False, status=Status.OK).encode())
        stream.tally = partial(self._tally, through.relay)
        await self._ways.adopt(stream, caller, through, dialled=False)
        if caller not in self.testers:
            self._arrived(caller)
        await stream.closed.wait()

    def _tally(self, relay: PeerId, size: int) -> None:
        self.carried[relay] += size

    # ---- caller

    async def dial(self, peer: PeerId, through: Circuit) -> None:
        """Connect with `peer` through a relay.

        Raises:
            TransportError: the relay or the peer could not be had.
        """
        if endpoint(through.address) is None:
            raise Unreachable("a relay is reached directly")
        try:
            await self._dial(peer, through)
        except Unanswered:
            # the connection with the relay may have died in silence, as when our own address has changed
            await self._ways.drop(through.relay)
            await self._dial(peer, through)

    async def _dial(self, peer: PeerId, through: Circuit) -> None:
        await self._connect(through.relay, through.address)
        try:
            stream = await self._ways.open(through.relay, HOP)
        except TransportError as exc:
            raise Unanswered(str(exc)) from exc
        try:
            await stream.write(Hop(Kind.CONNECT, libp2p_id(peer).to_bytes()).encode())
            answer = Hop.decode(await stream.message())
        except Malformed as exc:
            await stream.reset()
            raise Unreachable(f"relay {short(through.relay)}: {exc}") from exc
        except (*FAILED, TransportError) as exc:
            await stream.reset()
            raise Unanswered(f"relay {short(through.relay)} does not answer: {exc}") from exc
        if answer.kind is not Kind.STATUS or answer.status != Status.OK:
            await stream.close()
            raise Unreachable(f"relay {short(through.relay)} refuses: {_reason(answer.status)}")
        await self._ways.adopt(stream, peer, through, dialled=True)


def _reason(status: int | None) -> str:
    try:
        return Status(status or 0).name.lower().replace("_", " ")
    except ValueError:
        return f"status {status}"
