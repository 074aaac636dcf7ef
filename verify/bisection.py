"""A dispute over one chain of states, searched by halves down to one step that a referee recomputes.

Theory of operation. Defender and challenger each sign one Merkle root over a list of `count` states. Both lists begin
with the state that the seed gives; their last states differ.

    ENTERING    Both send their signed root and open its first and last leaf.
    SEARCHING   Both open the leaf in the middle of [agreed, differing]; equal leaves move the lower end up, different
                ones the upper end down, until the ends are neighbours: ceil(log2(count - 1)) rounds.
    SHOWING     The defender shows both states of that one step.
    REFEREEING  The referee recomputes the step from the agreed state. Within the threshold the challenger loses, else
                the defender.
    JUDGED      One side lost; or nobody, if the referee failed.

The side that is silent past its deadline, or opens what it did not commit, loses at once. If both are silent the
challenger does: whoever accuses must prosecute. A side whose states all follow always wins, since the search ends at a
state on which both agree and a successor on which they do not (Canetti, Riva, Rothblum, "Practical delegation of
computation using multiple servers", CCS 2011, section 4). Format: docs/spec/escalation.md.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from verify.faults import Fault, demand, unseal_as
from verify.fingerprints.base import FAR, relative_l2
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope, Signer, seal
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Trace
from wire.merkle import inclusion_proof, tree_head, verify_inclusion
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy

DOMAIN = "dispute.states"
STATES_MAX = 4096
PROOF_MAX = 12
"""Longest audit path: log2 of `STATES_MAX`."""


class StateList(Wire, frozen=True):
    """What a side commits to, in an envelope of domain "dispute.states": `states` is the tree head over `count` leaves
    (`state_leaf`), `job` and `root` name the answer in dispute."""

    job: bytes
    root: bytes
    states: bytes
    count: int


class Opening(Wire, frozen=True):
    """A leaf of a signed list with its audit path."""

    index: int
    leaf: bytes
    proof: list[bytes]


class Entry(Wire, frozen=True):
    """A side's first message: its signed `StateList`, and both ends of it opened."""

    states: Envelope
    first: Opening
    last: Opening


class Shown(Wire, frozen=True):
    """The states before and after the one step in dispute; sent by the defender."""

    before: Tensor
    after: Tensor


class StepOpening(Wire, frozen=True):
    """One step of a signed list, self-contained: states `step` and `step + 1` with their audit paths."""

    states: Envelope
    step: int
    before: Tensor
    before_proof: list[bytes]
    after: Tensor
    after_proof: list[bytes]


Distance = Callable[[Tensor, Tensor, Tensor], float]
"""How far a claimed state is from an own one: (agreed state before, claimed after, own after); finite, 0 if equal."""


def exact_distance(before: Tensor, claimed: Tensor, own: Tensor) -> float:
    """0 for equal bytes, dtype and shape, else 1: lane "exact", and token sequences."""
    return 0.0 if claimed == own else 1.0


def step_distance(before: Tensor, claimed: Tensor, own: Tensor) -> float:
    """Error of a step over the step's length, as in the fingerprint image.trajectory; what is ill-formed is far."""
    try:
        start, theirs, ours = (tensor.numpy().astype(np.float64) for tensor in (before, claimed, own))
    except Malformed:
        return FAR
    if claimed.dtype != own.dtype or theirs.shape != ours.shape or start.shape != ours.shape:
        return FAR
    if not (np.isfinite(theirs).all() and np.isfinite(start).all()):
        return FAR
    return relative_l2((theirs - ours).reshape(1, -1), (ours - start).reshape(1, -1))


def state_leaf(index: int, state: Tensor) -> bytes:
    """Leaf data of the state at `index`: its place is part of it, so that no state can be passed off as another."""
    return digest("dispute.state", index.to_bytes(4, "big"), codec.encode(state))


def latent_states(trace: Trace) -> list[Tensor]:
    """The states of an image trajectory: f4[h, w] each, initial noise first.

    Raises:
        Malformed: no `latents`, or ill-formed.
    """
    if "latents" not in trace.tensors:
        raise Malformed("no tensor latents")
    values = trace.tensors["latents"].numpy()
    if values.ndim != 3:
        raise Malformed(f"latents with {values.ndim} axes")
    return [from_numpy(row) for row in values]


def token_states(tokens: Sequence[int], count: int) -> list[Tensor]:
    """The states of a token sequence: its prefixes, i4[0] first; after the end the whole sequence repeats."""
    assert len(tokens) < count, "a sequence of n tokens has n + 1 prefixes"
    return [from_numpy(np.array(tokens[:index], dtype=np.int32)) for index in range(count)]


def accusing_leaves(claimed: Sequence[Tensor], step: int) -> list[bytes]:
    """The list of a challenger that has the claim and knows its bad step: equal up to it, different from then on.

    Where honest runs differ in their last bits (lane "tolerant") a run of one's own would part from the claim at the
    first step, where the claim may well be right; so the challenger starts from the claim.
    """
    same = [state_leaf(index, state) for index, state in enumerate(claimed[: step + 1])]
    other = (digest("dispute.accused", state_leaf(index, state)) for index, state in enumerate(claimed))
    return same + list(other)[step + 1 :]


class StateBook:
    """A side's list: what it needs to answer.

    Args:
        job, root: the answer in dispute.
        leaves: leaf data (`state_leaf`). states: the states themselves; a challenger never shows any.
    """

    def __init__(self, job: bytes, root: bytes, leaves: Sequence[bytes], states: Sequence[Tensor] = ()) -> None:
        self.job, self.root, self.leaves, self.states = job, root, list(leaves), list(states)

    @classmethod
    def of(cls, job: bytes, root: bytes, states: Sequence[Tensor]) -> StateBook:
        """The list of these states."""
        return cls(job, root, [state_leaf(index, state) for index, state in enumerate(states)], states)

    @property
    def head(self) -> bytes:
        """The tree head that `StateList.states` states."""
        return tree_head(self.leaves)

    def enter(self, signer: Signer) -> Entry:
        """The first message."""
        body = StateList(self.job, self.root, self.head, len(self.leaves))
        return Entry(seal(signer, DOMAIN, body), self.open(0), self.open(len(self.leaves) - 1))

    def open(self, index: int) -> Opening:
        """The leaf at `index`."""
        return Opening(index, self.leaves[index], inclusion_proof(self.leaves, index))

    def show(self, step: int) -> Shown:
        """Both states of a step."""
        return Shown(self.states[step], self.states[step + 1])


@dataclass(frozen=True)
class Terms:
    """What is in dispute.

    Attributes:
        job, root: 32-byte names of the job and the committed answer.
        defender, challenger: who says that the answer is right, and who says that it is not.
        count: number of states, 2..4096, from the spec. first: the state that the seed gives.
        threshold: largest honest `distance`. pinned: if given, the only tree head that the defender may sign: where
            its states are known already from the trace that it committed.
        flaw: if given, the fault for which the defender loses unheard: what it committed shows by itself that it is
            wrong, so that no step needs to be searched (`dispute.first`, `dispute.answer`).
    """

    job: bytes
    root: bytes
    defender: PeerId
    challenger: PeerId
    count: int
    first: Tensor
    threshold: float
    distance: Distance = exact_distance
    pinned: bytes | None = None
    flaw: str = ""


@dataclass(frozen=True)
class AskEntry:
    """Ask this side for its `Entry`."""

    peer: PeerId


@dataclass(frozen=True)
class AskOpening:
    """Ask this side for the `Opening` at `index`."""

    peer: PeerId
    index: int


@dataclass(frozen=True)
class AskShown:
    """Ask the defender for both states of this step."""

    peer: PeerId
    step: int


@dataclass(frozen=True)
class Recompute:
    """Have the referee compute the state after step `step` from `state`; feed it to `on_recomputed`."""

    step: int
    state: Tensor


@dataclass(frozen=True)
class Ruling:
    """How a dispute ended.

    Attributes:
        loser: who; None if the referee failed. fault: the stable name of why.
        step: the step that the search found; None if a side lost before. distance: of the defender's step to the
            referee's. rounds: openings asked of each side between the ends.
        proof: where the defender lost by its step, what convinces a third party.
    """

    loser: PeerId | None
    challenger: PeerId
    fault: str
    step: int | None = None
    distance: float | None = None
    rounds: int = 0
    proof: StepOpening | None = None


Action = AskEntry | AskOpening | AskShown | Recompute | Ruling


class Phase(enum.Enum):
    """See the module."""

    ENTERING = "entering"
    SEARCHING = "searching"
    SHOWING = "showing"
    REFEREEING = "refereeing"
    JUDGED = "judged"


def rounds_max(count: int) -> int:
    """Most rounds of a search over `count` states: ceil(log2(count - 1))."""
    return math.ceil(math.log2(count - 1)) if count > 2 else 0


class Dispute:
    """One dispute, as its referee sees it.

    Args:
        terms: what is in dispute.
        answer_s: how long a side may take for an answer. referee_s: how long the recomputation may take.
    """

    def __init__(self, terms: Terms, *, answer_s: float = 10.0, referee_s: float = 60.0) -> None:
        assert 2 <= terms.count <= STATES_MAX, "a chain has at least one step"
        assert terms.defender != terms.challenger, "nobody disputes with itself"
        self.terms, self.phase = terms, Phase.ENTERING
        self.ruling: Ruling | None = None
        self.rounds = 0
        self._answer_s, self._referee_s = answer_s, referee_s
        self._ends = math.inf
        self._entries: dict[PeerId, tuple[Entry, StateList]] = {}
        self._opened: dict[PeerId, dict[int, Opening]] = {terms.defender: {}, terms.challenger: {}}
        self._agreed, self._differs = 0, terms.count - 1
        self._shown: Shown | None = None

    def next_deadline(self) -> float | None:
        """When `on_tick` has something to do; None once judged, or before the start."""
        return None if self.phase is Phase.JUDGED or self._ends == math.inf else self._ends

    def start(self, now: float) -> list[Action]:
        """Ask both sides to enter; or judge at once, where there is a flaw for all to see."""
        assert self._ends == math.inf, "a dispute starts once"
        self._ends = now + self._answer_s
        if self.terms.flaw:
            return self._judge(self.terms.defender, self.terms.flaw)
        return [AskEntry(self.terms.defender), AskEntry(self.terms.challenger)]

    def on_entry(self, now: float, peer: PeerId, entry: Entry) -> list[Action]:
        """A side's signed list and its ends."""
        if self.phase is not Phase.ENTERING or peer not in self._opened or peer in self._entries:
            return []
        try:
            self._entries[peer] = entry, self._open_entry(peer, entry)
        except Fault as fault:
            return self._judge(peer, fault.code)
        if len(self._entries) < 2:
            return []
        mine, theirs = (self._opened[side][self.terms.count - 1].leaf for side in self._opened)
        if mine == theirs:
            return self._judge(self.terms.challenger, "dispute.nothing")
        return self._search(now)

    def _open_entry(self, peer: PeerId, entry: Entry) -> StateList:
        terms = self.terms
        listed = unseal_as("dispute.states", entry.states, DOMAIN, StateList, author=peer)
        demand((listed.job, listed.root) == (terms.job, terms.root), "dispute.job", "for another job or root")
        demand(listed.count == terms.count, "dispute.count", f"{listed.count} states, {terms.count} expected")
        if peer == terms.defender and terms.pinned is not None:
            demand(listed.states == terms.pinned, "dispute.trace", "not the states of the committed trace")
        self._check_opening(listed, entry.first, 0)
        demand(entry.first.leaf == state_leaf(0, terms.first), "dispute.first", "not the state that the seed gives")
        self._check_opening(listed, entry.last, terms.count - 1)
        self._opened[peer] = {0: entry.first, terms.count - 1: entry.last}
        return listed

    def _check_opening(self, listed: StateList, opening: Opening, index: int) -> None:
        demand(opening.index == index, "dispute.opening", f"index {opening.index}, {index} was asked")
        demand(len(opening.leaf) == 32 and len(opening.proof) <= PROOF_MAX, "dispute.opening", "sizes")
        holds = verify_inclusion(opening.leaf, index, listed.count, opening.proof, listed.states)
        demand(holds, "dispute.opening", f"leaf {index} was not committed")

    def on_opening(self, now: float, peer: PeerId, opening: Opening) -> list[Action]:
        """A side's answer to `AskOpening`."""
        if self.phase is not Phase.SEARCHING or peer not in self._opened or self._middle in self._opened[peer]:
            return []
        try:
            self._check_opening(self._entries[peer][1], opening, self._middle)
        except Fault as fault:
            known = self._opened[peer].get(opening.index)
            return [] if known == opening else self._judge(peer, fault.code)  # a late copy of an earlier answer
        middle = self._middle
        self._opened[peer][middle] = opening
        leaves = [opened[middle].leaf for opened in self._opened.values() if middle in opened]
        if len(leaves) < 2:
            return []
        if leaves[0] == leaves[1]:
            self._agreed = middle
        else:
            self._differs = middle
        return self._search(now)

    @property
    def _middle(self) -> int:
        return (self._agreed + self._differs) // 2

    def _search(self, now: float) -> list[Action]:
        self._ends = now + self._answer_s
        if self._differs - self._agreed == 1:
            self.phase = Phase.SHOWING
            return [AskShown(self.terms.defender, self._agreed)]
        self.phase = Phase.SEARCHING
        self.rounds += 1
        return [AskOpening(side, self._middle) for side in self._opened]

    def on_shown(self, now: float, peer: PeerId, shown: Shown) -> list[Action]:
        """The defender's two states."""
        if self.phase is not Phase.SHOWING or peer != self.terms.defender:
            return []
        step, opened = self._agreed, self._opened[peer]
        before, after = state_leaf(step, shown.before), state_leaf(step + 1, shown.after)
        if (before, after) != (opened[step].leaf, opened[step + 1].leaf):
            return self._judge(peer, "dispute.shown")
        self._shown, self.phase = shown, Phase.REFEREEING
        self._ends = now + self._referee_s
        return [Recompute(step, shown.before)]

    def on_recomputed(self, now: float, own: Tensor | None) -> list[Action]:
        """The referee's state after the step; None if it could not compute it, which convicts nobody."""
        if self.phase is not Phase.REFEREEING:
            return []
        if own is None:
            return self._judge(None, "dispute.referee")
        assert self._shown is not None, "shown before it is recomputed"
        distance = self.terms.distance(self._shown.before, self._shown.after, own)
        if distance <= self.terms.threshold:
            return self._judge(self.terms.challenger, "dispute.unfounded", distance)
        return self._judge(self.terms.defender, "dispute.step", distance)

    def on_silent(self, now: float, peer: PeerId) -> list[Action]:
        """This side cannot be reached, or refuses: it loses if it owes an answer."""
        return self._judge(peer, "dispute.silent") if peer in self._owing() else []

    def on_tick(self, now: float) -> list[Action]:
        """Let the deadline pass."""
        if self.phase is Phase.JUDGED or now < self._ends:
            return []
        if self.phase is Phase.REFEREEING:
            return self._judge(None, "dispute.referee")
        owing = self._owing()
        return self._judge(self.terms.challenger if len(owing) == 2 else owing[0], "dispute.silent")

    def _owing(self) -> list[PeerId]:
        if self.phase is Phase.ENTERING:
            return [side for side in self._opened if side not in self._entries]
        if self.phase is Phase.SEARCHING:
            return [side for side, opened in self._opened.items() if self._middle not in opened]
        return [self.terms.defender] if self.phase is Phase.SHOWING else []

    def _judge(self, loser: PeerId | None, fault: str, distance: float | None = None) -> list[Action]:
        found = self.phase in (Phase.SHOWING, Phase.REFEREEING)
        proof = self._proof() if fault == "dispute.step" else None
        self.phase = Phase.JUDGED
        step = self._agreed if found else None
        self.ruling = Ruling(loser, self.terms.challenger, fault, step, distance, self.rounds, proof)
        return [self.ruling]

    def _proof(self) -> StepOpening:
        assert self._shown is not None, "judged by its step"
        opened, step = self._opened[self.terms.defender], self._agreed
        signed = self._entries[self.terms.defender][0].states
        shown = self._shown
        return StepOpening(signed, step, shown.before, opened[step].proof, shown.after, opened[step + 1].proof)
