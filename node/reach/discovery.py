"""Relays that nobody named to us: looked up while strangers cannot reach us, held, and replaced when they fail.

Also the other side of it: publishing that we relay, while we do and strangers reach us.

What limits it is in `choice`. A relay counts only once a stranger, who is ourselves under another name, came through
it and met us; one that lets nobody in although it gave a reservation is left alone like one that refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random

import structlog
import trio

from node.reach.addresses import Circuit
from node.reach.choice import Candidate, Choice
from node.reach.circuit import Circuits
from node.reach.fresh import call_through
from node.reach.ports import Directory
from wire.errors import QuorateError
from wire.peer import PeerId, short

LOOK_S = 0.5
"""How often it is looked whether relays are missing."""

LOOK_UP_S, LOOK_UP_S_MAX = 2.0, 300.0
"""Seconds between look-ups while relays are missing; twice as long each time."""

LOOK_UP_TIMEOUT_S = 20.0

PUBLISH_S = 240.0
"""Seconds after which an offer is published again with what is taken by then."""

ALONE_S = 2.0
"""The same, while nobody but ourselves keeps it."""

_log = structlog.get_logger("reach")


class Discovery:
    """See the module.

    Args:
        named: relays that were named to us: others keep them.
        wanted: how many relays are to be found beside those.
    """

    def __init__(
        self,
        me: PeerId,
        circuits: Circuits,
        directory: Directory,
        named: Collection[PeerId],
        wanted: Callable[[], int],
        rng: Random,
    ) -> None:
        self._me = me
        self._named = named
        self._circuits = circuits
        self._directory = directory
        self._wanted = wanted
        self._choice = Choice(me, rng)
        self._holding: dict[PeerId, tuple[Candidate, trio.CancelScope]] = {}
        self.lied = 0

    @property
    def known(self) -> int:
        """Relays that offered themselves and may be tried."""
        return len(self._choice)

    async def run(self) -> None:
        """Hold as many as are wanted, for ever."""
        due, pause_s = 0.0, LOOK_UP_S
        async with trio.open_nursery() as nursery:
            while True:
                wanted = self._wanted()
                for _, scope in list(self._holding.values())[wanted:]:
                    scope.cancel()
                if wanted <= len(self._holding):
                    pause_s = LOOK_UP_S
                elif (candidate := self._next()) is not None:
                    scope = trio.CancelScope()
                    self._holding[candidate.relay] = candidate, scope
                    nursery.start_soon(self._hold, candidate, scope)
                    continue
                elif trio.current_time() >= due:
                    await self._look_up()
                    due = trio.current_time() + pause_s
                    pause_s = min(2 * pause_s, LOOK_UP_S_MAX)
                    continue
                await trio.sleep(LOOK_S)

    def _next(self) -> Candidate | None:
        near = {candidate.neighbourhood for candidate, _ in self._holding.values()}
        busy = {*self._named, *self._holding}
        return self._choice.next(busy, near, trio.current_time())

    async def _look_up(self) -> None:
        with trio.move_on_after(LOOK_UP_TIMEOUT_S):
            try:
                self._choice.learn(await self._directory.look_up(), trio.current_time())
            except QuorateError as exc:
                _log.debug("relays_not_looked_up", reason=str(exc))

    async def _hold(self, candidate: Candidate, scope: trio.CancelScope) -> None:
        began = trio.current_time()
        try:
            with scope:
                ended = await self._circuits.hold(candidate.relay, candidate.addresses, self._proof)
                self.lied += ended.reason == "lies"
                self._choice.ended(candidate, ended.served_s, trio.current_time())
                seconds = round(trio.current_time() - began, 1)
                _log.info("relay_left", relay=short(candidate.relay), reason=ended.reason, seconds=seconds)
        finally:
            del self._holding[candidate.relay]

    async def _proof(self, circuit: Circuit) -> bool:
        """Whether the relay brings somebody who calls us."""
        testers = self._circuits.testers
        mine: list[PeerId] = []

        def announce(stranger: PeerId) -> None:
            mine.append(stranger)
            testers.add(stranger)

        try:
            return await call_through(self._me, circuit, announce)
        finally:
            testers.difference_update(mine)


async def offer(directory: Directory, addresses: Callable[[], Sequence[str]], load: Callable[[], float]) -> None:
    """Publish that we relay, while there is an address to publish, for ever.

    Args:
        addresses: where strangers reach us; empty while we do not relay.
        load: share of our reservations that are taken.
    """
    published: Sequence[str] = ()
    due = 0.0
    while True:
        here = addresses()
        if not here and published:
            directory.withdraw()
            published = ()
        elif here and (here != published or trio.current_time() >= due):
            stored = 0
            try:
                stored = await directory.publish(here, load())
            except QuorateError as exc:
                _log.debug("relay_not_published", reason=str(exc))
            published, due = here, trio.current_time() + (PUBLISH_S if stored > 1 else ALONE_S)
        await trio.sleep(LOOK_S)
