"""Any interleaving of a batch: credit means that every picked answer was opened as promised and accepted."""

from __future__ import annotations

import msgspec
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.verify.test_sampling import job, offer, promise, root_of, sealed
from tests.verify.world import person
from verify.jury import beacon_hash
from verify.receipt import OutcomeWord
from verify.sampling import (
    RATE_ONE,
    Audit,
    Batch,
    BatchAction,
    BatchOpening,
    BatchPhase,
    BatchSecret,
    BatchTiming,
    Refuse,
    Sampling,
    Settle,
    ShowSecret,
    open_picked,
)
from wire.hashing import digest
from wire.merkle import inclusion_proof, tree_head

JOBS = 6
WORKER = person("worker").peer
STRANGER = person("juror-0").peer
PHASES = list(BatchPhase)
VERDICTS: list[OutcomeWord] = ["accept", "accept", "accept", "reject", "reject", "unaudited"]
ANSWERS = [root_of(i) for i in range(JOBS)]
OTHERS = [root_of(100 + i) for i in range(JOBS)]
"""What a worker would rather have promised."""


class Batches(RuleBasedStateMachine):
    """A worker that opens, forges, repeats, withholds and is late; juries that say anything; a model beside it."""

    @initialize(
        sampling=st.sampled_from([Sampling("draw", 1), Sampling("draw", 3), Sampling("rate", RATE_ONE // 2)]),
        secret=st.binary(min_size=32, max_size=32),
        prompt=st.integers(0, 3),
    )
    def begin(self, sampling: Sampling, secret: bytes, prompt: int) -> None:
        envelope = sealed(offer(JOBS, sampling, beacon_hash=beacon_hash(secret)))
        self.secret, self.now = secret, 0.0
        self.batch = Batch(envelope, secret, now=0.0, timing=BatchTiming(commit_s=20, open_s=10, judge_s=10))
        self.phase = BatchPhase.COMMITTING
        self.settled: list[Settle] = []
        self.audits: dict[int, Audit] = {}
        self.said: dict[int, OutcomeWord] = {}
        self.promised: list[bytes] = []
        self.shown: list[BatchSecret] = []
        if prompt:
            self.commit_one(ANSWERS, WORKER)

    def take(self, actions: list[BatchAction]) -> None:
        for action in actions:
            if isinstance(action, ShowSecret):
                self.shown.append(action.shown)
            elif isinstance(action, Audit):
                assert action.index not in self.audits, "one jury for each job"
                self.audits[action.index] = action
            elif isinstance(action, Settle):
                self.settled.append(action)

    @rule(seconds=st.sampled_from([0.2, 0.2, 0.5, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.batch.on_tick(self.now))

    @rule(answers=st.sampled_from([ANSWERS, ANSWERS, OTHERS]), peer=st.sampled_from([WORKER, WORKER, STRANGER]))
    def commit(self, answers: list[bytes], peer: bytes) -> None:
        self.commit_one(answers, peer)

    def commit_one(self, answers: list[bytes], peer: bytes) -> None:
        open_before = self.batch.phase is BatchPhase.COMMITTING and self.now < 20
        actions = self.batch.on_commitment(self.now, type(WORKER)(peer), promise(self.batch.offer, answers))
        self.take(actions)
        if open_before and peer == WORKER:
            assert isinstance(actions[0], ShowSecret)
            self.promised = answers
        else:
            assert isinstance(actions[0], Refuse)

    @rule(
        which=st.lists(st.integers(0, JOBS - 1), min_size=1, max_size=6),
        peer=st.sampled_from([WORKER, WORKER, WORKER, STRANGER]),
    )
    def open(self, which: list[int], peer: bytes) -> None:
        picked = open_picked(self.batch.offer, self.promised, self.shown[0]) if self.promised else []
        for each in which if picked else []:
            self.give(picked[each % len(picked)], peer, honest=True)

    @rule(index=st.integers(0, JOBS - 1), how=st.sampled_from(["root", "job", "batch", "path", "moved", "unpicked"]))
    def forge(self, index: int, how: str) -> None:
        if not self.promised:
            return
        leaves = [digest("batch.leaf", job(i), root) for i, root in enumerate(self.promised)]
        path = inclusion_proof(leaves, index)
        assert len(tree_head(leaves)) == 32
        right = BatchOpening(self.batch.offer.id, index, job(index), self.promised[index], path)
        changes: dict[str, dict[str, object]] = {
            "root": {"root": OTHERS[index] if self.promised == ANSWERS else ANSWERS[index]},
            "job": {"job": job(50)},
            "batch": {"batch": bytes(32)},
            "path": {"path": [*path[::-1], bytes(32)]},
            "moved": {"index": (index + 1) % JOBS},
            "unpicked": {} if index not in self.batch.picked else {"index": JOBS},
        }
        self.give(msgspec.structs.replace(right, **changes[how]), WORKER, honest=False)

    def give(self, opening: BatchOpening, peer: bytes, *, honest: bool) -> None:
        fresh = opening.index not in self.audits and self.batch.phase is BatchPhase.OPENING
        in_time = self.now < (self.batch.next_deadline() or 0)
        actions = self.batch.on_opening(self.now, type(WORKER)(peer), opening)
        self.take(actions)
        if honest and peer == WORKER and fresh and in_time:
            assert isinstance(actions[0], Audit)
        else:
            assert isinstance(actions[0], Refuse)

    @rule(said=st.lists(st.tuples(st.integers(0, JOBS - 1), st.sampled_from(VERDICTS)), min_size=1, max_size=4))
    def judge(self, said: list[tuple[int, OutcomeWord]]) -> None:
        for which, verdict in said if self.audits else []:
            index = list(self.audits)[which % len(self.audits)]
            if self.batch.phase is not BatchPhase.DECIDED:
                self.said.setdefault(index, verdict)
            self.take(self.batch.on_verdict(self.now, index, verdict))

    @invariant()
    def phases_never_go_back(self) -> None:
        if hasattr(self, "batch"):
            assert PHASES.index(self.batch.phase) >= PHASES.index(self.phase)
            self.phase = self.batch.phase

    @invariant()
    def nothing_is_shown_before_the_promise(self) -> None:
        if hasattr(self, "batch"):
            assert len(self.shown) == bool(self.promised)

    @invariant()
    def only_what_was_promised_is_judged(self) -> None:
        for index, audit in getattr(self, "audits", {}).items():
            assert index in self.batch.picked
            assert (audit.job, audit.root) == (job(index), self.promised[index])

    @invariant()
    def credit_is_for_a_full_set_of_accepts(self) -> None:
        if not hasattr(self, "batch"):
            return
        outcome = self.batch.outcome
        assert (len(self.settled) == 1) == (outcome is not None) == (self.batch.phase is BatchPhase.DECIDED)
        if outcome is None:
            return
        said = [self.said.get(index) for index in self.batch.picked]
        full = bool(self.promised) and all(word == "accept" for word in said)
        assert outcome.credited == full
        assert outcome.observations.count(False) == said.count("accept")
        unopened = [index for index in self.batch.picked if index not in self.audits]
        withheld = len(unopened) if outcome.word == "withheld" else 0
        assert outcome.observations.count(True) == said.count("reject") + withheld
        assert (outcome.word == "rejected") == ("reject" in said)

    def teardown(self) -> None:
        if not hasattr(self, "batch"):
            return
        for _ in range(3):
            if (deadline := self.batch.next_deadline()) is not None:
                self.now = max(self.now, deadline)
                self.take(self.batch.on_tick(self.now))
        assert self.batch.outcome is not None, "a batch ends"
        event(self.batch.outcome.word)
        self.credit_is_for_a_full_set_of_accepts()


Batches.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestBatches = Batches.TestCase
