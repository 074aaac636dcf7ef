"""The honest side of a dispute wins against any other, and within ceil(log2 n) rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.verify.world import person
from verify.bisection import (
    DOMAIN,
    Action,
    AskEntry,
    AskOpening,
    AskShown,
    Dispute,
    Entry,
    Opening,
    Phase,
    Recompute,
    Ruling,
    Shown,
    StateBook,
    StateList,
    Terms,
    accusing_leaves,
    exact_distance,
    latent_states,
    rounds_max,
    state_leaf,
    step_distance,
    token_states,
)
from verify.fingerprints.base import FAR
from wire.envelope import seal
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Trace
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy

JOB, ROOT = digest("test", b"job"), digest("test", b"root")
WORKER, RIVAL = person("worker"), person("rival")


def following(state: Tensor, step: int) -> Tensor:
    """The one right next state of a toy computation."""
    values = state.numpy().astype(np.int64)
    return from_numpy(((values * 5 + step + 1) % 2**31).astype(np.int32))


def truth(count: int) -> list[Tensor]:
    states = [from_numpy(np.arange(3, dtype=np.int32))]
    while len(states) < count:
        states.append(following(states[-1], len(states) - 1))
    return states


def terms(count: int, *, honest_defends: bool = True, **changes: Any) -> Terms:
    sides = (WORKER.peer, RIVAL.peer) if honest_defends else (RIVAL.peer, WORKER.peer)
    made = Terms(JOB, ROOT, sides[0], sides[1], count, truth(2)[0], 0.0)
    return replace(made, **changes)


def junk(seed: int) -> Tensor:
    return from_numpy(np.array([seed, seed + 1, -seed], dtype=np.int32))


class Honest:
    """A side that says what is right; `WORKER`'s key."""

    def __init__(self, count: int) -> None:
        self.who = WORKER
        self.book = StateBook.of(JOB, ROOT, truth(count))

    def entry(self) -> Entry | None:
        return self.book.enter(self.who)

    def opening(self, index: int) -> Opening | None:
        return self.book.open(index)

    def shown(self, step: int) -> Shown | None:
        return self.book.show(step)


class Liar(Honest):
    """Any list, and any answers: `turns` decides each answer as it comes, knowing the question."""

    def __init__(self, states: Sequence[Tensor], turns: Sequence[str]) -> None:
        self.who = RIVAL
        self.book = StateBook.of(JOB, ROOT, states)
        self.turns = list(turns)

    def turn(self) -> str:
        return self.turns.pop(0) if self.turns else "plays"

    def entry(self) -> Entry | None:
        good = self.book.enter(self.who)
        match self.turn():
            case "silent":
                return None
            case "forges":
                return Entry(Honest(len(self.book.leaves)).book.enter(WORKER).states, good.first, good.last)
            case "swaps":
                return Entry(good.states, good.last, good.first)
            case "replays":
                other = StateList(digest("test", b"other"), ROOT, self.book.head, len(self.book.leaves))
                return Entry(seal(self.who, DOMAIN, other), good.first, good.last)
            case _:
                return good

    def opening(self, index: int) -> Opening | None:
        good = self.book.open(index)
        match self.turn():
            case "silent":
                return None
            case "forges":
                return Opening(index, digest("test", b"any"), good.proof)
            case "swaps":
                return self.book.open((index + 1) % len(self.book.leaves))
            case "replays":
                return Opening(index, good.leaf, [*good.proof, *good.proof])
            case _:
                return good

    def shown(self, step: int) -> Shown | None:
        good = self.book.show(step)
        match self.turn():
            case "silent":
                return None
            case "plays":
                return good
            case _:
                return Shown(good.before, following(good.before, step))


def play(dispute: Dispute, sides: dict[PeerId, Honest], follow: Callable[[Tensor, int], Tensor | None]) -> Ruling:
    """Carry out every action; silence becomes a deadline that passes."""
    now, todo = 0.0, list(dispute.start(0.0))
    while dispute.ruling is None:
        if not todo:
            deadline = dispute.next_deadline()
            assert deadline is not None
            now = max(now, deadline)
            todo += dispute.on_tick(now)
            continue
        todo += carry_out(dispute, sides, todo.pop(0), now, follow)
    assert (dispute.phase, dispute.next_deadline()) == (Phase.JUDGED, None)
    return dispute.ruling


def carry_out(
    dispute: Dispute, sides: dict[PeerId, Honest], action: Action, now: float, follow: Callable[..., Tensor | None]
) -> list[Action]:
    match action:
        case AskEntry(peer):
            entry = sides[peer].entry()
            return dispute.on_entry(now, peer, entry) if entry else []
        case AskOpening(peer, index):
            opening = sides[peer].opening(index)
            return dispute.on_opening(now, peer, opening) if opening else dispute.on_silent(now, peer)
        case AskShown(peer, step):
            shown = sides[peer].shown(step)
            return dispute.on_shown(now, peer, shown) if shown else []
        case Recompute(step, state):
            return dispute.on_recomputed(now, follow(state, step))
        case _:
            return []


@st.composite
def lists(draw: st.DrawFn, count: int) -> list[Tensor]:
    """Right up to somewhere, then: follows from there, is junk, or is mixed; the last state is wrong."""
    right = truth(count)
    at = draw(st.integers(0, count - 1))
    how = draw(st.sampled_from(["follows", "junk", "mixed"]))
    states = right[:at]
    while len(states) < count:
        index = len(states)
        follows = how == "follows" or (how == "mixed" and draw(st.booleans()))
        states.append(following(states[-1], index - 1) if follows and index > at else junk(index))
    return [*states[:-1], junk(99)] if states[-1] == right[-1] else states


@settings(max_examples=150)
@given(data=st.data(), count=st.integers(2, 70), honest_defends=st.booleans())
def test_the_honest_side_wins_against_any_other(data: st.DataObject, count: int, honest_defends: bool) -> None:
    answers = st.sampled_from(["plays", "plays", "plays", "plays", "silent", "forges", "swaps", "replays"])
    liar = Liar(data.draw(lists(count)), data.draw(st.lists(answers, max_size=9)))
    dispute = Dispute(terms(count, honest_defends=honest_defends))
    ruling = play(dispute, {WORKER.peer: Honest(count), RIVAL.peer: liar}, following)
    event(ruling.fault)
    assert ruling.loser == RIVAL.peer
    assert ruling.rounds <= rounds_max(count)
    assert (ruling.proof is not None) == (ruling.fault == "dispute.step")


@pytest.mark.parametrize(("count", "rounds"), [(2, 0), (3, 1), (4, 2), (5, 2), (31, 5), (33, 5), (4096, 12)])
def test_a_search_takes_the_logarithm_of_the_chain(count: int, rounds: int) -> None:
    assert rounds_max(count) == rounds <= int(np.ceil(np.log2(count)))


@pytest.mark.parametrize("bad", range(1, 31))
def test_the_search_finds_the_first_step_that_does_not_follow(bad: int) -> None:
    states = truth(bad)
    while len(states) < 31:
        states.append(junk(7) if len(states) == bad else following(states[-1], len(states) - 1))
    dispute = Dispute(terms(31, honest_defends=False))
    ruling = play(dispute, {WORKER.peer: Honest(31), RIVAL.peer: Liar(states, [])}, following)
    assert (ruling.loser, ruling.fault, ruling.step) == (RIVAL.peer, "dispute.step", bad - 1)


def test_a_claim_that_only_rounds_otherwise_stands() -> None:
    """In the tolerant lane lists differ everywhere; the referee's threshold decides, not equality."""
    first = from_numpy(np.ones(4, dtype=np.float32))

    def chain(noise: float) -> list[Tensor]:
        states = [first]
        for _ in range(8):
            states.append(
                from_numpy((states[-1].numpy().astype(np.float32) * np.float32(0.5 + noise)).astype(np.float32))
            )
        return states

    def half(state: Tensor, step: int) -> Tensor:
        return from_numpy((state.numpy().astype(np.float32) * np.float32(0.5)).astype(np.float32))

    honest, rival = Honest(9), Liar(chain(0.0), [])
    honest.book = StateBook.of(JOB, ROOT, chain(1e-7))
    given_terms = terms(9, first=first, threshold=1e-5, distance=step_distance)
    ruling = play(Dispute(given_terms), {WORKER.peer: honest, RIVAL.peer: rival}, half)
    assert (ruling.loser, ruling.fault, ruling.step) == (RIVAL.peer, "dispute.unfounded", 0)


@pytest.mark.parametrize("step", range(9))
def test_a_challenger_that_has_the_claim_points_at_its_bad_step(step: int) -> None:
    """Its list follows the claim up to the step, so that no rounding before it is in dispute."""
    claimed = truth(step + 1) + [junk(1)] * (9 - step)
    honest = Honest(10)
    honest.book = StateBook(JOB, ROOT, accusing_leaves(claimed, step))
    rival = Liar(claimed, [])
    pinned = terms(10, honest_defends=False, pinned=rival.book.head)
    ruling = play(Dispute(pinned), {WORKER.peer: honest, RIVAL.peer: rival}, following)
    assert (ruling.loser, ruling.fault, ruling.step) == (RIVAL.peer, "dispute.step", step)


def entered(count: int = 9) -> tuple[Dispute, Liar]:
    """The honest defender has entered; what the other says now decides."""
    dispute = Dispute(terms(count))
    dispute.start(0.0)
    assert dispute.on_entry(0.0, WORKER.peer, Honest(count).book.enter(WORKER)) == []
    return dispute, Liar([*truth(count)[:-1], junk(3)], [])


def fault_of(actions: list[Action]) -> str:
    (ruling,) = actions
    assert isinstance(ruling, Ruling)
    assert ruling.loser == RIVAL.peer
    return ruling.fault


def test_each_bad_entry_has_its_name() -> None:
    def outcome(**changes: Any) -> str:
        dispute, liar = entered()
        good = liar.book.enter(RIVAL)
        body = StateList(JOB, ROOT, liar.book.head, 9)
        listed = {name: value for name, value in changes.items() if name in StateList.__struct_fields__}
        states = seal(RIVAL, changes.pop("domain", DOMAIN), msgspec.structs.replace(body, **listed))
        rest = {name: value for name, value in changes.items() if name not in listed}
        return fault_of(dispute.on_entry(0.0, RIVAL.peer, msgspec.structs.replace(good, states=states, **rest)))

    book = entered()[1].book
    assert outcome(domain="commitment") == "dispute.states"
    assert outcome(job=bytes(32)) == "dispute.job"
    assert outcome(root=bytes(32)) == "dispute.job"
    assert outcome(count=10) == "dispute.count"
    assert outcome(states=bytes(32)) == "dispute.opening"
    assert outcome(first=book.open(1)) == "dispute.opening"
    assert outcome(last=Opening(8, bytes(31), book.open(8).proof)) == "dispute.opening"
    assert outcome(last=Opening(8, book.leaves[8], [bytes(32)] * 13)) == "dispute.opening"


def test_a_list_from_another_seed_loses_at_once() -> None:
    dispute, _ = entered()
    assert fault_of(dispute.on_entry(0.0, RIVAL.peer, Liar([junk(1)] * 9, []).book.enter(RIVAL))) == "dispute.first"


def test_a_challenger_that_ends_where_the_defender_does_disputes_nothing() -> None:
    dispute, _ = entered()
    assert fault_of(dispute.on_entry(0.0, RIVAL.peer, Liar(truth(9), []).book.enter(RIVAL))) == "dispute.nothing"


def test_a_defender_may_not_defend_other_states_than_it_committed() -> None:
    dispute = Dispute(terms(9, honest_defends=False, pinned=bytes(32)))
    dispute.start(0.0)
    liar = Liar([*truth(9)[:-1], junk(3)], [])
    assert fault_of(dispute.on_entry(0.0, RIVAL.peer, liar.book.enter(RIVAL))) == "dispute.trace"


def test_states_other_than_those_committed_lose() -> None:
    claimed = [*truth(8), junk(3)]
    dispute = Dispute(terms(9, honest_defends=False))
    sides = {WORKER.peer: Honest(9), RIVAL.peer: Liar(claimed, ["plays"] * 4 + ["forges"])}
    assert play(dispute, sides, following).fault == "dispute.shown"


def test_if_both_are_silent_the_accuser_loses() -> None:
    dispute = Dispute(terms(9), answer_s=10)
    dispute.start(0.0)
    assert dispute.on_tick(9.9) == []
    assert fault_of(dispute.on_tick(10.0)) == "dispute.silent"


def test_a_referee_that_fails_convicts_nobody() -> None:
    for failing in (True, False):
        dispute, liar = entered()
        todo = dispute.on_entry(0.0, RIVAL.peer, liar.book.enter(RIVAL))
        sides: dict[PeerId, Honest] = {WORKER.peer: Honest(9), RIVAL.peer: liar}
        while dispute.phase is not Phase.REFEREEING:
            todo += carry_out(dispute, sides, todo.pop(0), 0.0, following)
        (ruling,) = dispute.on_recomputed(0.0, None) if failing else dispute.on_tick(1e9)
        assert isinstance(ruling, Ruling)
        assert (ruling.loser, ruling.fault) == (None, "dispute.referee")


def test_what_comes_late_twice_or_from_strangers_changes_nothing() -> None:
    dispute, liar = entered()
    stranger = person("stranger").peer
    entry = liar.book.enter(RIVAL)
    assert dispute.on_entry(0.0, stranger, entry) == []
    assert dispute.on_silent(0.0, stranger) == dispute.on_silent(0.0, WORKER.peer) == []
    dispute.on_entry(0.0, RIVAL.peer, entry)
    assert dispute.on_entry(0.0, RIVAL.peer, entry) == []
    honest = Honest(9)
    assert dispute.on_opening(0.0, stranger, honest.book.open(4)) == []
    assert dispute.on_opening(0.0, WORKER.peer, honest.book.open(4)) == []
    dispute.on_opening(0.0, RIVAL.peer, liar.book.open(4))
    assert dispute.on_opening(0.0, WORKER.peer, honest.book.open(4)) == []
    assert dispute.phase is Phase.SEARCHING
    assert dispute.on_shown(0.0, WORKER.peer, honest.book.show(3)) == dispute.on_recomputed(0.0, junk(1)) == []


def test_states_that_cannot_be_compared_are_far() -> None:
    one, two = from_numpy(np.ones(4, dtype=np.float32)), from_numpy(np.full(4, 2, dtype=np.float32))
    bad = from_numpy(np.array([1, 2, np.nan, 4], dtype=np.float32))
    assert step_distance(one, two, two) == 0.0
    short = Tensor("f4", [4], bytes(3))
    for claimed in (bad, short, from_numpy(np.ones(3, dtype=np.float32)), from_numpy(np.ones(4, dtype=np.float64))):
        assert step_distance(one, claimed, two) == FAR
    assert step_distance(bad, two, two) == FAR
    assert (exact_distance(one, two, two), exact_distance(one, one, two)) == (0.0, 1.0)


def test_traces_without_a_trajectory_are_refused() -> None:
    for tensors in ({}, {"latents": from_numpy(np.ones(4, dtype=np.float32))}):
        with pytest.raises(Malformed):
            latent_states(Trace(tensors))


def test_a_dispute_over_tokens_finds_the_first_token_that_differs() -> None:
    def next_token(state: Tensor, step: int) -> Tensor:
        tokens = [int(token) for token in state.numpy()]
        tokens.append((sum(tokens) * 7 + len(tokens)) % 11)
        return from_numpy(np.array(tokens, dtype=np.int32))

    state, right = from_numpy(np.array([], dtype=np.int32)), []
    for step in range(20):
        state = next_token(state, step)
        right.append(int(state.numpy()[-1]))
    wrong = [*right[:13], (right[13] + 1) % 11, *right[14:]]
    honest, rival = Honest(2), Liar(token_states(wrong, 21), [])
    honest.book = StateBook.of(JOB, ROOT, token_states(right, 21))
    given_terms = terms(21, honest_defends=False, first=token_states(right, 21)[0])
    ruling = play(Dispute(given_terms), {WORKER.peer: honest, RIVAL.peer: rival}, next_token)
    assert (ruling.loser, ruling.step) == (RIVAL.peer, 13)
    assert state_leaf(0, token_states(right, 21)[0]) != state_leaf(1, token_states(right, 21)[0])
