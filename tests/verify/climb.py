"""A cast for the tests of escalation: one committed answer with a ladder, jurors that vote as told, and a driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from tests.verify.world import ACCEPTED, DEADLINE_MS, REJECTED, SALT, answer, calibration, person, spec
from verify.bisection import (
    AskEntry,
    AskOpening,
    AskShown,
    Recompute,
    Shown,
    StateBook,
    Terms,
)
from verify.commitment import commit
from verify.escalation import Action as Step
from verify.escalation import AtLevel, DisputeTerms, Escalation, Final, InDispute, Outcome
from verify.juror import AskRefused, Juror
from verify.jury import pool_hash, pool_of
from verify.ladder import LEVELS, Level, build_ladder, level_secret
from verify.messages import JuryAsk
from verify.round import AskJuror, AskReveal, Timing
from verify.settlement import Stakes
from wire.envelope import seal
from wire.hashing import digest
from wire.job import JobSpec
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy

NONCE = bytes(range(16))
STAKES = Stakes(price=1000, fee=100, referee_fee=10, worker_bond=3000, juror_bond=150)
TIMING = Timing(answer_s=10, reveal_s=5, grace_s=1, round_s=40)
REQUESTER, WORKER = person("requester"), person("worker")
COUNT = 9
BAD_STEP = 5


def jurors_of(peers: int) -> list[PeerId]:
    return [person(f"peer-{index}").peer for index in range(peers)]


@lru_cache(maxsize=1)
def people() -> dict[PeerId, str]:
    return {person(f"peer-{index}").peer: f"peer-{index}" for index in range(64)}


def asks_for(levels: Sequence[Level] = LEVELS, *, peers: int = 40, seed: bytes = b"") -> list[JuryAsk]:
    """What the jurors of each level are shown; everybody weighs the same."""
    pool = pool_of(dict.fromkeys([*jurors_of(peers), REQUESTER.peer, WORKER.peer], 1))
    secrets = [level_secret(digest("test.seed", seed), index) for index in range(len(levels))]
    specs = build_ladder(spec(pool=pool_hash(pool), nonce=NONCE), levels, secrets)
    output, trace = answer()
    return [
        JuryAsk(
            spec=seal(REQUESTER, "job", job),
            commitment=seal(WORKER, "commitment", commit(job.id, output, trace, SALT)),
            secret=secret,
            salt=SALT,
            pool=pool,
            output=output,
            trace=trace,
        )
        for job, secret in zip(specs, secrets, strict=True)
    ]


def specs_of(asks: Sequence[JuryAsk]) -> list[JobSpec]:
    from wire import codec

    return [codec.decode(JobSpec, ask.spec.body) for ask in asks]


def following(state: Tensor, step: int) -> Tensor:
    """The one right next state of the toy computation that disputes are about."""
    return from_numpy(((state.numpy().astype(np.int64) * 5 + step + 1) % 2**31).astype(np.int32))


def states_of(*, honest: bool) -> list[Tensor]:
    """The worker's states: right throughout, or wrong from one step on."""
    states = [from_numpy(np.arange(3, dtype=np.int32))]
    for step in range(COUNT - 1):
        states.append(following(states[-1], step + (7 if not honest and step == BAD_STEP else 0)))
    return states


def terms_for(ask: JuryAsk, *, honest: bool) -> DisputeTerms:
    from verify.case import open_spec

    job = open_spec(ask.spec).id
    root = commit(job, ask.output, ask.trace, ask.salt).root
    pinned = StateBook.of(job, root, states_of(honest=honest)).head

    def terms(challenger: PeerId) -> Terms:
        first = states_of(honest=True)[0]
        return Terms(job, root, WORKER.peer, challenger, COUNT, first, 0.0, pinned=pinned)

    return terms


@dataclass
class Climb:
    """An escalation and everybody in it.

    Attributes:
        honest: whether the worker was. behaviour: by juror; "honest" where nothing is said: votes by the truth.
        defends: what the worker does in disputes: plays, or is silent.
    """

    escalation: Escalation
    honest: bool
    behaviour: Mapping[PeerId, str]
    defends: str = "plays"
    now: float = 0.0
    todo: list[Step] = field(default_factory=list)
    finals: list[Outcome] = field(default_factory=list)
    escalated: list[str] = field(default_factory=list)
    cast: dict[PeerId, Juror] = field(default_factory=dict)

    def take(self, actions: Sequence[Step]) -> None:
        for action in actions:
            if isinstance(action, Final):
                self.finals.append(action.outcome)
            elif not isinstance(action, AtLevel | InDispute):
                self.escalated.append(action.why)
        self.todo += [action for action in actions if isinstance(action, AtLevel | InDispute)]

    def run(self) -> Outcome:
        """To the end, in order of asking."""
        self.take(self.escalation.start(self.now))
        while not self.finals:
            self.advance()
        return self.finals[0]

    def advance(self, pick: int = 0) -> None:
        """Carry out one action, or let a deadline pass."""
        if self.todo:
            self.carry_out(self.todo.pop(pick % len(self.todo)))
        elif (deadline := self.escalation.next_deadline()) is not None:
            self.now = max(self.now, deadline)
            self.take(self.escalation.on_tick(self.now))

    def carry_out(self, step: Step) -> None:
        if isinstance(step, AtLevel) and isinstance(step.action, AskJuror):
            self.answer(step.level, step.action.peer)
        elif isinstance(step, AtLevel) and isinstance(step.action, AskReveal):
            self.open(step.level, step.action)
        elif isinstance(step, InDispute):
            self.argue(step)

    def how(self, peer: PeerId) -> str:
        return self.behaviour.get(peer, "honest")

    def vote(self, peer: PeerId) -> str:
        right, wrong = ("accept", "reject") if self.honest else ("reject", "accept")
        return {"colluding": wrong, "rejects": "reject", "lazy": "accept"}.get(self.how(peer), right)

    def answer(self, level: int, peer: PeerId) -> None:
        if self.how(peer) == "silent":
            return
        juror = self.cast.setdefault(peer, Juror(person(people()[peer]), {calibration().hash: calibration()}))
        ask = self.escalation.rounds[level].ask
        hearing = juror.consider(REQUESTER.peer, ask, now_ms=DEADLINE_MS - 1)
        found = juror.rule(hearing, ACCEPTED if self.vote(peer) == "accept" else REJECTED)
        self.take(self.escalation.on_answer(self.now, level, peer, found))

    def open(self, level: int, action: AskReveal) -> None:
        if self.how(action.peer) == "withholds":
            return
        try:
            envelope = self.cast[action.peer].reveal(REQUESTER.peer, action.ask)
        except AskRefused:
            self.take(self.escalation.on_silent(self.now, level, action.peer))
            return
        self.take(self.escalation.on_reveal(self.now, level, action.peer, envelope))

    def argue(self, step: InDispute) -> None:
        on, now, challenger = self.escalation, self.now, step.challenger
        match step.action:
            case AskEntry(peer) if self.plays(peer):
                signer = WORKER if peer == WORKER.peer else person(people()[peer])
                self.take(on.on_entry(now, challenger, peer, self.book(peer).enter(signer)))
            case AskOpening(peer, index) if self.plays(peer):
                self.take(on.on_opening(now, challenger, peer, self.book(peer).open(index)))
            case AskShown(peer, index) if self.plays(peer):
                shown: Shown = self.book(peer).show(index)
                self.take(on.on_shown(now, challenger, peer, shown))
            case Recompute(index, state):
                self.take(on.on_recomputed(now, challenger, following(state, index)))
            case _:
                pass

    def plays(self, peer: PeerId) -> bool:
        return self.defends == "plays" if peer == WORKER.peer else self.how(peer) != "deserts"

    def book(self, peer: PeerId) -> StateBook:
        """The worker's states, an honest juror's own, or those that a false accuser makes up."""
        made: Callable[[Sequence[Tensor]], StateBook] = lambda states: StateBook.of(  # noqa: E731 - bound to this job
            self.escalation.rounds[0].case.job, self.escalation.rounds[0].case.root, states
        )
        if peer == WORKER.peer:
            return made(states_of(honest=self.honest))
        if self.how(peer) == "honest":
            return made(states_of(honest=True))
        return made([*states_of(honest=self.honest)[:4], *states_of(honest=not self.honest)[4:]])


def climb(
    behaviour: Mapping[int, str],
    *,
    honest: bool = True,
    levels: Sequence[Level] = LEVELS,
    peers: int = 40,
    disputable: bool = True,
    defends: str = "plays",
    seed: bytes = b"",
) -> Climb:
    """An escalation in which the juror at each place of the first draw's order behaves as told."""
    asks = asks_for(levels, peers=peers, seed=seed)
    terms = terms_for(asks[0], honest=honest) if disputable else None
    machine = Escalation(asks, NONCE, levels=levels, terms=terms, stakes=STAKES, timing=TIMING, answer_s=3, referee_s=7)
    by_peer = {jurors_of(peers)[index]: how for index, how in behaviour.items()}
    return Climb(machine, honest, by_peer, defends)
