"""Both parts of `/quorate/reach/1`, over the Transport seam: telling peers what we see of them, and asking them.

The server dials back through `dial_back`, from a fresh host, and only what its `Gate` admits. The client asks peers
that it dialled from its listening port, anew whenever its connections or its own addresses have changed, and keeps
what they say in `Observed` and `Claims`. Where those are few it asks peers that have connected to it, too: of them
only good news count, and only of addresses of its own interfaces. Each question has a channel of its own (`wire.call`):
it is about the connection that is best now, and a channel that is kept for calls may still run over a relay.
Format: docs/spec/reach.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from node.reach.addresses import Endpoint, endpoint, scope
from node.reach.claims import Claims, candidates
from node.reach.gate import Gate
from node.reach.messages import REACH_PROTOCOL, ReachAsk, ReachReply, check_ask, check_reply
from node.reach.observed import Kind, Observed
from wire.call import answer_calls, call
from wire.codec import Wire
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.peer import PeerId
from wire.serving import Blame
from wire.transport import Channel, Transport

DialBack = Callable[[PeerId, Endpoint], Awaitable[bool]]

LOOK_S = 0.5
"""How often the client looks whether anything has changed."""

PERIOD_S = 600.0
"""Seconds after which everything is checked again although nothing has changed."""

RETRY_S = 4.0
"""Seconds after which what a server left open is asked again; twice as long each time that nothing comes of it."""

ASK_S = 6.0
"""Seconds for one answer: the server's own dials take up to half of that."""

SERVERS_MAX = 4
"""Peers asked at a time."""

ROUNDS_MAX = 3
"""Rounds in a row: the first shows where others see us, the next whether they reach us there."""


class Network(Protocol):
    """What is needed of the transport besides the seam."""

    def connected(self) -> list[PeerId]:
        """Peers with which a connection stands."""
        ...

    def listening(self) -> list[str]:
        """Where we listen, wildcards replaced by our interfaces' addresses."""
        ...

    def from_listening(self, peer: PeerId) -> bool:
        """Whether the connection with `peer` was dialled from our listening port."""
        ...


class ReachServer:
    """Answers what we see of a peer, and whether it can be dialled."""

    def __init__(self, seen: Callable[[PeerId], Endpoint | None], dial_back: DialBack, blame: Blame) -> None:
        self._seen = seen
        self._dial_back = dial_back
        self._gate = Gate()
        self._answer = answer_calls(ReachAsk, self._handle, blame)

    async def serve(self, channel: Channel) -> None:
        """A channel handler."""
        await self._answer(channel)

    async def _handle(self, peer: PeerId, ask: ReachAsk) -> Wire:
        check_ask(ask)
        seen = self._seen(peer)
        if seen is None:
            raise LocalError("asked over a relay: there is nothing to see")
        admitted = self._gate.admit(ask.addresses, seen, trio.current_time())
        dialled: list[bool | None] = [None] * len(ask.addresses)

        async def dial(place: int, at: Endpoint) -> None:
            try:
                dialled[place] = await self._dial_back(peer, at)
            finally:
                self._gate.done()

        async with trio.open_nursery() as nursery:
            for place, at in enumerate(admitted):
                if at is not None:
                    nursery.start_soon(dial, place, at)
        return ReachReply(seen.text(), dialled)


class Family:
    """What is known of our addresses in one version of IP; one says nothing of the other."""

    def __init__(self) -> None:
        self.observed = Observed()
        self.claims = Claims()


class Checker:
    """Keeps what is known about our own addresses.

    Args:
        where: the endpoint of a peer to which a direct connection stands.
        connections: what distinguishes the direct connections with a peer from those of another moment.
        changed: called when what is proven or disproved, or our kind of NAT, has changed.
    """

    def __init__(
        self,
        transport: Transport,
        network: Network,
        where: Callable[[PeerId], Endpoint | None],
        connections: Callable[[PeerId], object],
        changed: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._network = network
        self._where = where
        self._connections = connections
        self._changed = changed
        self._families = {4: Family(), 6: Family()}
        self._shown: object = None
        self.mapped_port: Callable[[], int | None] = lambda: None
        self._chosen: list[PeerId] = []
        self.checked = False
        """Whether others were asked at least once."""

    # ---- what is known

    @property
    def kind(self) -> Kind:
        """The NAT that we are behind."""
        own, now = [at.ip for at in self.listening()], trio.current_time()
        kinds = [family.observed.kind(own, now) for family in self._families.values()]
        return next((kind for kind in kinds if kind is not Kind.UNKNOWN), Kind.UNKNOWN)

    @property
    def seen(self) -> Endpoint | None:
        """Where most servers see our listening port."""
        now = trio.current_time()
        found = (family.observed.endpoint(now) for family in self._families.values())
        return next((at for at in found if at is not None), None)

    def proven(self) -> list[Endpoint]:
        """Addresses at which strangers reach us."""
        return [at for family in self._families.values() for at in family.claims.proven(trio.current_time())]

    def disproved(self) -> list[Endpoint]:
        """Addresses at which they do not."""
        return [at for family in self._families.values() for at in family.claims.disproved(trio.current_time())]

    def claims(self) -> list[tuple[Endpoint, int, int]]:
        """Each address that we may be reached at: how many servers reached it, how many did not."""
        now = trio.current_time()
        families = self._families.values()
        return [(at, *family.claims.voices(at, now)) for family in families for at in family.claims.candidates()]

    @property
    def hopeful(self) -> bool:
        """Whether there is an address at which strangers may reach us, and nobody has failed to."""
        return any(not failed for _, _, failed in self.claims())

    async def guesses(self) -> Sequence[Endpoint]:
        """Where somebody might reach us, the likeliest first; asks if nobody has said anything yet."""
        if not self._guessed():
            await self._round()
        return list(dict.fromkeys([*self.proven(), *self._guessed(), *self._candidates()]))

    def _guessed(self) -> list[Endpoint]:
        now = trio.current_time()
        return [at for family in self._families.values() for at in family.observed.guesses(now)]

    def _candidates(self) -> list[Endpoint]:
        return [at for family in self._families.values() for at in family.claims.candidates()]

    # ---- asking

    async def run(self) -> None:
        """Check whenever something has changed, for ever."""
        known: object = None
        own: list[Endpoint] = []
        due, pause_s = 0.0, RETRY_S
        while True:
            servers = [(server, self._connections(server)) for server in self._servers()]
            asked_of = servers, self.mapped_port()
            if self.listening() != own:
                own = self.listening()
                for family in self._families.values():
                    family.observed.forget()
                known = None
            if asked_of != known:
                known, due, pause_s = asked_of, 0.0, RETRY_S
            if servers and trio.current_time() >= due:
                whole = await self._rounds()
                due = trio.current_time() + (PERIOD_S if whole else pause_s)
                pause_s = min(2 * pause_s, PERIOD_S)
            await trio.sleep(LOOK_S)

    async def _rounds(self) -> bool:
        """Ask until the answers ask for nothing new; whether every server had something to say to everything."""
        whole = False
        for _ in range(ROUNDS_MAX):
            asked = self._candidates()
            whole = await self._round()
            if self._candidates() == asked:
                break
        self.checked = True
        if (shown := (self.kind, self.proven(), self.disproved())) != self._shown:
            self._shown = shown
            self._changed()
        return whole

    async def _round(self) -> bool:
        asked = self._candidates()
        open_questions: list[PeerId] = []
        async with trio.open_nursery() as nursery:
            for server in self._servers():
                nursery.start_soon(self._ask, server, asked, open_questions)
        for version, family in self._families.items():
            here = [at for at in self.listening() if at.version == version]
            mapped = self.mapped_port() if version == 4 else None
            family.claims.set_candidates(candidates(here, family.observed, trio.current_time(), mapped))
        return not open_questions

    def _servers(self) -> list[PeerId]:
        """Whom to ask: peers to which our listening port has a direct connection, then others, and the same as before.

        The others have connected to us. They cannot say where the network sees our port, but whether a stranger
        reaches it, which is all that a node learns whom everybody dials first.
        """
        direct = [peer for peer in self._network.connected() if self._where(peer) is not None]
        ours, before = self._network.from_listening, self._chosen
        direct.sort(key=lambda peer: (not ours(peer), peer not in before, peer))
        self._chosen = sorted(direct[:SERVERS_MAX])
        return self._chosen

    def listening(self) -> list[Endpoint]:
        """What we listen on over TCP, wildcards replaced by the addresses of our interfaces."""
        found = [at for text in self._network.listening() if (at := endpoint(text)) is not None]
        return [at for at in found if scope(at.ip) != "none"]

    async def _ask(self, server: PeerId, all_claimed: Sequence[Endpoint], open_questions: list[PeerId]) -> None:
        where = self._where(server)
        if where is None:
            return
        family = self._families[where.version]  # it dials only the address that it sees us at
        claimed = [at for at in all_claimed if at.version == where.version]
        ask = ReachAsk([at.text() for at in claimed])
        open_questions.append(server)
        try:
            with trio.fail_after(ASK_S):
                reply = await call(self._transport, server, REACH_PROTOCOL, ask, ReachReply)
            check_reply(reply, ask)
        except (TransportError, RemoteError, Busy, Malformed, trio.TooSlowError):
            return
        now = trio.current_time()
        seen = endpoint(reply.seen)
        ours = self._network.from_listening(server)
        if seen is not None and ours:
            family.observed.hear(server, where.ip, seen, now)
        here = self.listening()
        for at, reached in zip(claimed, reply.dialled, strict=True):
            if reached is not None and (ours or (reached and at in here)):
                family.claims.hear(where.ip, at, reached, now)
        if None not in reply.dialled:
            open_questions.remove(server)
