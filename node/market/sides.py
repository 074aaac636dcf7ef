"""The two sides of a dispute: a worker that stands by its states, and a juror that accuses one step.

Both keep a list of states from the moment at which they may have to defend it to the job's deadline, so many at once,
and answer what the requester asks (`dispute.*`). A worker takes no ladder for which it has no room: a side
that cannot answer loses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.market.messages import DisputeAsk
from verify.bisection import Entry, Opening, Shown, StateBook
from verify.juror import CLOCK_SKEW_MS, AskRefused
from wire.envelope import Signer
from wire.errors import Busy
from wire.peer import PeerId
from wire.tensor import Tensor

DEFENDED_MAX = 32
DEFENDED_PER_REQUESTER_MAX = 8
"""Answers that a worker stands by at once; each takes at most half a mebibyte."""

ACCUSED_MAX = 256
ACCUSED_PER_REQUESTER_MAX = 32
"""Accusations that a juror keeps, as many as it hears cases; each takes 32 bytes per state."""


@dataclass
class Room:
    """Room for one list of states, which may be asked for under any of `jobs`; empty until there is an answer."""

    jobs: Sequence[bytes]
    requester: PeerId
    until_ms: int
    root: bytes = b""
    leaves: Sequence[bytes] = ()
    states: Sequence[Tensor] = ()

    def fill(self, root: bytes, leaves: Sequence[bytes], states: Sequence[Tensor] = ()) -> None:
        """Keep a list: of leaf data, and, for whoever must show them, of the states themselves."""
        self.root, self.leaves, self.states = root, leaves, states


class Keeper:
    """Lists of states until their deadlines.

    Args:
        now_ms: Unix time.
        rooms_max, per_requester_max: lists at once.
    """

    def __init__(self, now_ms: Callable[[], int], rooms_max: int, per_requester_max: int) -> None:
        self._now_ms = now_ms
        self._rooms_max, self._per_requester_max = rooms_max, per_requester_max
        self._rooms: list[Room] = []

    def room(self, jobs: Sequence[bytes], requester: PeerId, until_ms: int) -> Room:
        """Hold room for the list of these jobs.

        Raises:
            Busy: there is none.
        """
        now_ms = self._now_ms()
        self._rooms = [room for room in self._rooms if now_ms <= room.until_ms + CLOCK_SKEW_MS]
        of_one = sum(room.requester == requester for room in self._rooms)
        if len(self._rooms) >= self._rooms_max or of_one >= self._per_requester_max:
            raise Busy(5.0, "too many answers are open to dispute")
        self._rooms.append(Room(tuple(jobs), requester, until_ms))
        return self._rooms[-1]

    def give_back(self, room: Room) -> None:
        """There will be nothing to dispute."""
        self._rooms = [each for each in self._rooms if each is not room]

    def find(self, job: bytes, root: bytes) -> Room | None:
        """The list that was kept for a job."""
        return next((room for room in self._rooms if room.leaves and room.root == root and job in room.jobs), None)


class Sides:
    """Answers the calls of disputes.

    Args:
        signer: this node's identity.
        defended, accused: lists of this node as worker, and as juror.
    """

    def __init__(self, signer: Signer, defended: Keeper, accused: Keeper) -> None:
        self._signer = signer
        self._defended, self._accused = defended, accused

    async def entry(self, peer: PeerId, ask: DisputeAsk) -> Entry:
        """Our signed list of states, both ends opened.

        Raises:
            AskRefused: nothing is kept for this answer, or another requester asks.
        """
        return self._book(peer, ask)[1].enter(self._signer)

    async def opening(self, peer: PeerId, ask: DisputeAsk) -> Opening:
        """A leaf of the list.

        Raises:
            AskRefused: as `entry`, or there is no such leaf.
        """
        room, book = self._book(peer, ask)
        if not 0 <= ask.index < len(room.leaves):
            raise AskRefused(peer, "dispute.index", f"no opening {ask.index}")
        return book.open(ask.index)

    async def shown(self, peer: PeerId, ask: DisputeAsk) -> Shown:
        """Both states of a step.

        Raises:
            AskRefused: as `entry`, there is no such step, or we are the juror.
        """
        room, book = self._book(peer, ask)
        if not room.states or not 0 <= ask.index < len(room.leaves) - 1:
            raise AskRefused(peer, "dispute.index", f"no step {ask.index}")
        return book.show(ask.index)

    def _book(self, peer: PeerId, ask: DisputeAsk) -> tuple[Room, StateBook]:
        room = self._defended.find(ask.job, ask.root) or self._accused.find(ask.job, ask.root)
        if room is None:
            raise AskRefused(peer, "dispute.unknown", "we keep no states for this", penalty=0.0)
        if room.requester != peer:
            raise AskRefused(peer, "sender", "not the requester of this job")
        return room, StateBook(ask.job, ask.root, room.leaves, room.states)
