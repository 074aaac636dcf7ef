"""Policy `sample:q`: many jobs under one promise, of which a beacon picks a few for a jury.

The requester's signed `BatchOffer` fixes the jobs in order, the rule that picks, and the hash of a secret. The worker
answers with one Merkle root over (job, root of its answer): now every answer is fixed. Only then is the secret shown,
and beacon = digest(offer, root, secret) decides. The worker could not know what would be picked, because it did not
know the secret; the requester could not aim, because secret and rule were fixed before it knew the root.

What is guaranteed: a batch is credited only if every picked answer was opened, under the committed root, and accepted.
What is not: answers that nobody picked are unchecked, and are not called anything else. Leaves and audit paths are RFC
6962's (`wire.merkle`); arithmetic is on integers and probabilities are fractions. Format: docs/spec/sampling.md.
`Batch` is the requester's side: messages and `now` in seconds come in, actions go out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, comb
from typing import Literal

from verify.faults import Fault, demand, unseal_as
from verify.jury import SECRET_BYTES, beacon_hash
from verify.receipt import OutcomeWord
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope
from wire.errors import LocalError
from wire.hashing import digest
from wire.merkle import inclusion_proof, tree_head, verify_inclusion
from wire.peer import PeerId

VERSION = 1
JOBS_MAX = 4096
RATE_ONE = 1 << 32
"""The rate at which every job is picked."""

PATH_MAX = 12
"""Hashes in an audit path of a tree of `JOBS_MAX` leaves."""


class Sampling(Wire, frozen=True):
    """How jobs are picked.

    `rate`: each by itself with probability `size` / 2**32. `draw`: exactly `size` of them, every set of that many being
    equally likely.
    """

    rule: Literal["rate", "draw"]
    size: int


class BatchOffer(Wire, frozen=True):
    """Requester to worker, domain "batch.offer": do these jobs; some will be audited.

    Attributes:
        requester, worker: who asks, and whom.
        jobs: 32-byte job ids, all different, in the order of the leaves.
        sampling: the rule.
        beacon_hash: `verify.jury.beacon_hash` of the requester's 32-byte secret, which is used for this offer only.
        nonce: 16 bytes.
    """

    version: int
    requester: PeerId
    worker: PeerId
    jobs: list[bytes]
    sampling: Sampling
    beacon_hash: bytes
    nonce: bytes

    @property
    def id(self) -> bytes:
        """The 32-byte name of the batch."""
        return digest("batch", codec.encode(self))


class BatchCommitment(Wire, frozen=True):
    """Worker to requester, domain "batch.commitment": the root over all answers of batch `batch`."""

    batch: bytes
    root: bytes


class BatchSecret(Wire, frozen=True):
    """Requester to worker: what decides which answers are opened."""

    batch: bytes
    secret: bytes


class BatchOpening(Wire, frozen=True):
    """Worker to requester: the answer to job number `index` was `root` (that of its `Commitment`)."""

    batch: bytes
    index: int
    job: bytes
    root: bytes
    path: list[bytes]


def sampling_of(policy: str) -> Sampling:
    """The rule named `sample:q` (0 < q <= 1, decimal or fraction; taken up to a 2**-32th) or `draw:m`.

    Raises:
        LocalError: anything else.
    """
    name, _, value = policy.partition(":")
    try:
        size = ceil(Fraction(value) * RATE_ONE) if name == "sample" else int(value)
    except (ValueError, ZeroDivisionError) as exc:
        raise LocalError(f"policy {policy!r}: a number expected after the colon") from exc
    if name not in ("sample", "draw") or not 1 <= size <= (RATE_ONE if name == "sample" else JOBS_MAX):
        raise LocalError(f"policy {policy!r}: sample:q with 0 < q <= 1, or draw:m with 1 <= m <= {JOBS_MAX}")
    return Sampling("rate" if name == "sample" else "draw", size)


def open_offer(envelope: Envelope) -> BatchOffer:
    """Raises: Fault offer, offer.requester, offer.version, offer.jobs, offer.sampling, offer.beacon."""
    offer = unseal_as("offer", envelope, "batch.offer", BatchOffer)
    demand(envelope.author == offer.requester != offer.worker, "offer.requester", "signed by another than who asks")
    demand(offer.version == VERSION, "offer.version", f"version {offer.version}")
    demand(1 <= len(offer.jobs) <= JOBS_MAX, "offer.jobs", f"{len(offer.jobs)} jobs")
    demand(all(len(job) == 32 for job in offer.jobs), "offer.jobs", "a job id has 32 bytes")
    demand(len(set(offer.jobs)) == len(offer.jobs), "offer.jobs", "a job twice")
    most = RATE_ONE if offer.sampling.rule == "rate" else len(offer.jobs)
    demand(1 <= offer.sampling.size <= most, "offer.sampling", f"{offer.sampling.rule} {offer.sampling.size}")
    demand(len(offer.beacon_hash) == 32 and len(offer.nonce) == 16, "offer.beacon", "hash or nonce of another length")
    return offer


def open_batch_commitment(envelope: Envelope, offer: BatchOffer) -> BatchCommitment:
    """Raises: Fault commitment, commitment.batch."""
    commitment = unseal_as("commitment", envelope, "batch.commitment", BatchCommitment, author=offer.worker)
    demand(commitment.batch == offer.id, "commitment.batch", "for another batch")
    demand(len(commitment.root) == 32, "commitment", "a root has 32 bytes")
    return commitment


def leaf(job: bytes, root: bytes) -> bytes:
    """Leaf data, from two 32-byte hashes."""
    return digest("batch.leaf", job, root)


def _leaves(offer: BatchOffer, roots: Sequence[bytes]) -> list[bytes]:
    if len(roots) != len(offer.jobs) or any(len(root) != 32 for root in roots):
        raise LocalError(f"{len(roots)} roots of answers; 32 bytes for each of {len(offer.jobs)} jobs expected")
    return [leaf(job, root) for job, root in zip(offer.jobs, roots, strict=True)]


def commit_batch(offer: BatchOffer, roots: Sequence[bytes]) -> BatchCommitment:
    """What the worker signs once all is done; `roots` are those of its answers' commitments, in the order of the jobs.

    Raises:
        LocalError: not one root of 32 bytes for each job.
    """
    return BatchCommitment(offer.id, tree_head(_leaves(offer, roots)))


def open_picked(offer: BatchOffer, roots: Sequence[bytes], shown: BatchSecret) -> list[BatchOpening]:
    """What the worker must open, having seen the secret.

    Raises:
        Fault: secret: another batch, or not the secret that the offer fixed.
        LocalError: as `commit_batch`.
    """
    leaves = _leaves(offer, roots)
    demand(shown.batch == offer.id, "secret", "of another batch")
    chosen = picks(offer, tree_head(leaves), shown.secret)
    return [BatchOpening(offer.id, i, offer.jobs[i], roots[i], inclusion_proof(leaves, i)) for i in chosen]


def picks(offer: BatchOffer, root: bytes, secret: bytes) -> tuple[int, ...]:
    """Numbers of the jobs to audit, ascending; with the rule `rate` there may be none.

    Raises:
        Fault: secret: not the one that the offer fixed.
    """
    fixed = len(secret) == SECRET_BYTES and beacon_hash(secret) == offer.beacon_hash
    demand(fixed, "secret", "not the secret that the offer fixed")
    beacon = digest("batch.beacon", offer.id, root, secret)
    tickets = [digest("batch.ticket", beacon, index.to_bytes(8, "big")) for index in range(len(offer.jobs))]
    if offer.sampling.rule == "rate":
        return tuple(i for i, each in enumerate(tickets) if int.from_bytes(each[:4], "big") < offer.sampling.size)
    lowest = sorted(range(len(tickets)), key=lambda i: (tickets[i], i))[: offer.sampling.size]
    return tuple(sorted(lowest))


def check_opening(offer: BatchOffer, commitment: BatchCommitment, chosen: Sequence[int], opening: BatchOpening) -> None:
    """Check one opened answer; anyone who has offer, commitment and secret can (`chosen` is from `picks`).

    Raises:
        Fault: opening.batch, opening.index, opening.job, opening.root.
    """
    demand(opening.batch == offer.id, "opening.batch", "of another batch")
    demand(opening.index in chosen, "opening.index", f"job {opening.index} was not picked")
    demand(opening.job == offer.jobs[opening.index], "opening.job", "another job stands at this place")
    lengths = len(opening.path) <= PATH_MAX and all(len(each) == 32 for each in (opening.root, *opening.path))
    demand(lengths, "opening.root", "a root or path of another length")
    data = leaf(opening.job, opening.root)
    included = verify_inclusion(data, opening.index, len(offer.jobs), opening.path, commitment.root)
    demand(included, "opening.root", "not under the committed root")


def detection(jobs: int, bad: int, sampling: Sampling, *, seen: Fraction = Fraction(1)) -> Fraction:
    """The exact probability that at least one wrong answer is picked and seen.

    Args:
        jobs, bad: answers in the batch, and how many of them are wrong.
        sampling: the rule.
        seen: probability that the jury rejects a wrong answer that it gets.

    Raises:
        LocalError: not 0 <= bad <= jobs, or more drawn than there are.
    """
    if not 0 <= bad <= jobs or (sampling.rule == "draw" and sampling.size > jobs):
        raise LocalError(f"{bad} wrong of {jobs}, {sampling.rule} {sampling.size}")
    if sampling.rule == "rate":
        return 1 - (1 - Fraction(sampling.size, RATE_ONE) * seen) ** bad
    ways = comb(jobs, sampling.size)
    missed = (
        Fraction(comb(bad, hit) * comb(jobs - bad, sampling.size - hit), ways) * (1 - seen) ** hit
        for hit in range(min(bad, sampling.size) + 1)
    )
    return 1 - sum(missed, Fraction(0))


BatchWord = Literal["credited", "rejected", "withheld", "unaudited", "silent"]


@dataclass(frozen=True)
class BatchTiming:
    """Seconds: for the worker to commit, to open what was picked, and for the juries after that."""

    commit_s: float = 600.0
    open_s: float = 10.0
    judge_s: float = 120.0


@dataclass(frozen=True)
class ShowSecret:
    """Send this to the worker; feed its `BatchOpening`s to `on_opening`."""

    peer: PeerId
    shown: BatchSecret


@dataclass(frozen=True)
class Audit:
    """Have a jury judge this job's answer, whose `Commitment` must have this root; feed the verdict to `on_verdict`."""

    index: int
    job: bytes
    root: bytes


@dataclass(frozen=True)
class Refuse:
    """This peer's message broke the rule `fault.code`; `penalty` as in `wire.errors.RemoteError`."""

    peer: PeerId
    fault: Fault
    penalty: float


@dataclass(frozen=True)
class BatchOutcome:
    """How a batch ended.

    Attributes:
        word: "credited": every picked answer was opened and accepted; "rejected": one was rejected; "withheld": one
            was not opened in time; "unaudited": a jury came to no verdict; "silent": nothing was ever committed.
        picked: numbers of the jobs that were picked.
        observations: whether the worker failed, for each audit that says something about it: what the e-process
            (`verify.eprocess`) is told. A picked answer that is withheld is a failure: otherwise a cheater would
            open only what is right.
    """

    word: BatchWord
    picked: tuple[int, ...]
    observations: tuple[bool, ...]

    @property
    def credited(self) -> bool:
        """Whether the worker earns all jobs of the batch; otherwise none."""
        return self.word == "credited"


@dataclass(frozen=True)
class Settle:
    """The batch is over."""

    outcome: BatchOutcome


BatchAction = ShowSecret | Audit | Refuse | Settle


class BatchPhase(enum.Enum):
    """COMMITTING until the worker's root is there, OPENING until every picked answer is opened, JUDGING, DECIDED."""

    COMMITTING = "committing"
    OPENING = "opening"
    JUDGING = "judging"
    DECIDED = "decided"


@dataclass
class _Pick:
    """A picked job: what was opened, and what its jury said."""

    opening: BatchOpening | None = None
    verdict: OutcomeWord | None = None


class Batch:
    """The requester's side of one batch; never goes back a phase and is settled once.

    Args:
        offer: the signed offer, as sent to the worker.
        secret: the 32 bytes whose hash the offer has.
        now: seconds; the worker's time to commit begins.
        timing: deadlines.

    Raises:
        Fault: the offer is not in order, or fixes another secret.
    """

    def __init__(self, offer: Envelope, secret: bytes, *, now: float, timing: BatchTiming | None = None) -> None:
        self.offer = open_offer(offer)
        demand(beacon_hash(secret) == self.offer.beacon_hash, "secret", "not the secret that the offer fixed")
        self.timing = timing or BatchTiming()
        self._secret = secret
        self.phase = BatchPhase.COMMITTING
        self.outcome: BatchOutcome | None = None
        self.commitment: BatchCommitment | None = None
        self._picks: dict[int, _Pick] = {}
        self._ends = now + self.timing.commit_s

    @property
    def picked(self) -> tuple[int, ...]:
        """Numbers of the picked jobs; empty before the worker committed."""
        return tuple(self._picks)

    def next_deadline(self) -> float | None:
        """When `on_tick` has something to do; None once decided."""
        return None if self.phase is BatchPhase.DECIDED else self._ends

    def on_commitment(self, now: float, peer: PeerId, envelope: Envelope) -> list[BatchAction]:
        """The worker's root: now, and not before, the secret is shown."""
        try:
            demand(peer == self.offer.worker, "sender", "not the worker of this batch")
            commitment = open_batch_commitment(envelope, self.offer)
        except Fault as fault:
            return [Refuse(peer, fault, 0.3)]
        if self.commitment is not None:
            same = commitment == self.commitment
            code, detail = ("duplicate", "the same root again") if same else ("second", "another root after the first")
            return [Refuse(peer, Fault(f"commitment.{code}", detail), 0.0 if same else 0.5)]
        if self.phase is BatchPhase.DECIDED or now >= self._ends:
            return [Refuse(peer, Fault("stale", "committed after the deadline"), 0.0), *self.on_tick(now)]
        self.commitment = commitment
        self._picks = {index: _Pick() for index in picks(self.offer, commitment.root, self._secret)}
        self.phase, self._ends = BatchPhase.OPENING, now + self.timing.open_s
        return [ShowSecret(peer, BatchSecret(self.offer.id, self._secret)), *self._credit_if_done(now)]

    def on_opening(self, now: float, peer: PeerId, opening: BatchOpening) -> list[BatchAction]:
        """A picked answer; the jury may begin with it."""
        try:
            demand(peer == self.offer.worker, "sender", "not the worker of this batch")
            if self.commitment is None:
                raise Fault("opening.early", "nothing is committed and nothing was picked")
            check_opening(self.offer, self.commitment, self.picked, opening)
        except Fault as fault:
            return [Refuse(peer, fault, 0.3)]
        pick = self._picks[opening.index]
        if pick.opening is not None:  # the same one: no other leaf and path fit the root
            return [Refuse(peer, Fault("opening.duplicate", f"job {opening.index} is open"), 0.0)]
        if self.phase is BatchPhase.DECIDED or now >= self._ends:
            return [Refuse(peer, Fault("stale", "opened after the deadline"), 0.0), *self.on_tick(now)]
        pick.opening = opening
        return [Audit(opening.index, opening.job, opening.root), *self._credit_if_done(now)]

    def on_verdict(self, now: float, index: int, verdict: OutcomeWord) -> list[BatchAction]:
        """What the jury of an `Audit` decided; the first verdict stands.

        Raises:
            LocalError: no jury was asked about this job.
        """
        pick = self._picks.get(index)
        if pick is None or pick.opening is None:
            raise LocalError(f"job {index} of this batch is not before a jury")
        if self.phase is BatchPhase.DECIDED or pick.verdict is not None:
            return []
        pick.verdict = verdict
        return self._settle("rejected") if verdict == "reject" else self._credit_if_done(now)

    def on_tick(self, now: float) -> list[BatchAction]:
        """Let deadlines pass; call at or after `next_deadline`."""
        if self.phase is BatchPhase.DECIDED or now < self._ends:
            return []
        words: Mapping[BatchPhase, BatchWord] = {
            BatchPhase.COMMITTING: "silent",
            BatchPhase.OPENING: "withheld",
            BatchPhase.JUDGING: "unaudited",
        }
        return self._settle(words[self.phase])

    def _credit_if_done(self, now: float) -> list[BatchAction]:
        if any(pick.opening is None for pick in self._picks.values()):
            return []
        if self.phase is BatchPhase.OPENING:
            self.phase, self._ends = BatchPhase.JUDGING, now + self.timing.judge_s
        said = [pick.verdict for pick in self._picks.values()]
        if None in said:
            return []
        return self._settle("credited" if all(word == "accept" for word in said) else "unaudited")

    def _settle(self, word: BatchWord) -> list[BatchAction]:
        self.phase = BatchPhase.DECIDED
        seen = [pick.verdict == "reject" for pick in self._picks.values() if pick.verdict in ("accept", "reject")]
        if word == "withheld":
            seen += [True for pick in self._picks.values() if pick.opening is None]
        self.outcome = BatchOutcome(word, self.picked, tuple(seen))
        assert word != "credited" or seen == [False] * len(self._picks), "credit without a full set of accepts"
        return [Settle(self.outcome)]
