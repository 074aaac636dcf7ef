"""Targets of `verify`: what requester, worker and jurors say to one another, and what is opened of an answer."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from tests.fuzz.samples import vectors
from tests.fuzz.targets import decoded, target
from tests.verify import climb, evidence_vectors
from tests.verify.world import (
    ACCEPTED,
    DEADLINE_MS,
    HONEST,
    SECRET,
    ask_for,
    calibration,
    jurors,
    names,
    person,
    ruled,
    spec,
)
from verify.bisection import Dispute, Entry, Opening, Shown, StateBook, Terms
from verify.case import (
    Case,
    check_seal,
    check_vote,
    open_commit,
    open_commitment,
    open_draw,
    open_key,
    open_reveal,
    open_spec,
)
from verify.eprocess import decode as decode_evidence
from verify.eprocess import encode as encode_evidence
from verify.eprocess import fresh, observe
from verify.evidence import check as check_bundle
from verify.evidence import decode as decode_bundle
from verify.faults import ExpectedUnusable
from verify.fingerprints import opening, text_sketch
from verify.fingerprints.registry import FINGERPRINTS
from verify.juror import AskRefused, Juror
from verify.jury import beacon_hash
from verify.ladder import LEVELS, open_ladder
from verify.messages import JuryAnswer, JuryAsk, RevealAsk
from verify.sampling import (
    BatchCommitment,
    BatchOffer,
    BatchOpening,
    BatchSecret,
    Sampling,
    check_opening,
    commit_batch,
    open_batch_commitment,
    open_offer,
    open_picked,
    picks,
)
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope, seal
from wire.errors import LocalError
from wire.job import Expected, JurorCommit, Output, Trace
from wire.tensor import Tensor, from_numpy

REQUESTER = person("requester").peer


@cache
def the_case() -> Case:
    """The case that all jurors of these targets judge."""
    ask = ask_for(spec())
    return open_draw(open_spec(ask.spec), ask.commitment, SECRET, ask.pool)


@target("commitment", lambda: [codec.encode(ask_for(spec()).commitment)])
def _commitment(raw: bytes) -> None:
    open_commitment(decoded(Envelope, raw), the_case().spec)


@target("jury ask", lambda: [codec.encode(ask_for(spec()))], AskRefused)
def _ask(raw: bytes) -> None:
    juror = Juror(person("juror-0"), {calibration().hash: calibration()})
    hearing = juror.consider(REQUESTER, decoded(JuryAsk, raw), now_ms=DEADLINE_MS - 1000)
    answered = juror.rule(hearing, HONEST if hearing.needs_run else None)
    assert answered.said.author == person("juror-0").peer


def _answers() -> list[bytes]:
    from verify.verdict import abstain

    three = [juror for _, juror in zip(range(3), jurors().values(), strict=False)]
    findings: list[Any] = [HONEST, ACCEPTED, abstain("model", "none")]
    return [codec.encode(ruled(juror, ask_for(spec()), found)) for juror, found in zip(three, findings, strict=True)]


@target("juror's answer", _answers)
def _answer(raw: bytes) -> None:
    said = decoded(JuryAnswer, raw)
    author = said.said.author
    if said.said.domain == "juror.reveal":
        open_reveal(the_case(), said.said, author=author)
    else:
        open_commit(the_case(), said.said, author=author)
    open_key(said.key, author)


@cache
def full_jury() -> tuple[list[Juror], RevealAsk]:
    """The first three of the draw have sealed, and are asked to open."""
    case, by_peer, ask = the_case(), jurors(), ask_for(spec())
    three = [by_peer[peer] for peer in case.order[:3]]
    commits = [ruled(juror, ask, HONEST).said for juror in three]
    return three, RevealAsk(case.job, case.root, commits)


@target("ask to reveal", lambda: [codec.encode(full_jury()[1])], AskRefused)
def _reveal_ask(raw: bytes) -> None:
    three, _ = full_jury()
    assert three[0].reveal(REQUESTER, decoded(RevealAsk, raw)).domain == "juror.reveal"


@cache
def _reveals() -> list[bytes]:
    three, ask = full_jury()
    return [codec.encode(juror.reveal(REQUESTER, ask)) for juror in three]


@target("reveal", _reveals)
def _reveal(raw: bytes) -> None:
    case, (_, ask) = the_case(), full_jury()
    envelope = decoded(Envelope, raw)
    reveal = open_reveal(case, envelope)
    sealed = {each.author: codec.decode(JurorCommit, each.body) for each in ask.commits}
    if envelope.author in sealed:
        check_seal(envelope.author, sealed[envelope.author], reveal)
    who = {each.peer: each for each in map(person, names(7).values())}.get(envelope.author, person("juror-0"))
    check_vote(case, case.order[:3], reveal, who.bls_public)


# ---- batches

JOBS = [bytes([index]) * 32 for index in range(6)]
OFFER = BatchOffer(1, REQUESTER, person("worker").peer, JOBS, Sampling("draw", 3), beacon_hash(SECRET), bytes(16))
COMMITMENT = commit_batch(OFFER, JOBS)


@target("batch offer", lambda: [codec.encode(seal(person("requester"), "batch.offer", OFFER))])
def _offer(raw: bytes) -> None:
    open_offer(decoded(Envelope, raw))


@target("batch commitment", lambda: [codec.encode(seal(person("worker"), "batch.commitment", COMMITMENT))])
def _batch_commitment(raw: bytes) -> None:
    open_batch_commitment(decoded(Envelope, raw), OFFER)


@target("batch secret", lambda: [codec.encode(BatchSecret(OFFER.id, SECRET))])
def _secret(raw: bytes) -> None:
    open_picked(OFFER, JOBS, decoded(BatchSecret, raw))


@target(
    "batch opening", lambda: [codec.encode(each) for each in open_picked(OFFER, JOBS, BatchSecret(OFFER.id, SECRET))]
)
def _opening(raw: bytes) -> None:
    check_opening(OFFER, COMMITMENT, picks(OFFER, COMMITMENT.root, SECRET), decoded(BatchOpening, raw))


@target(
    "batch commitment and opening",
    lambda: [codec.encode([COMMITMENT, each]) for each in open_picked(OFFER, JOBS, BatchSecret(OFFER.id, SECRET))],
)
def _any_commitment(raw: bytes) -> None:
    """The commitment is hostile as well."""
    commitment, shown = decoded(tuple[BatchCommitment, BatchOpening], raw)
    check_opening(OFFER, commitment, range(len(JOBS)), shown)


def _evidence() -> list[bytes]:
    records = [fresh()]
    for passed in (True, True, False, True, True, False):
        records.append(observe(records[-1], failed=not passed))
    return [encode_evidence(each) for each in records]


@target("record of audits", _evidence)
def _record(raw: bytes) -> None:
    assert encode_evidence(decode_evidence(raw)) == raw


# ---- ladders, disputes, evidence


@target("ladder", lambda: [codec.encode(climb.asks_for(peers=3))])
def _ladder(raw: bytes) -> None:
    open_ladder(decoded(list[JuryAsk], raw), LEVELS, climb.NONCE)


STATES = climb.states_of(honest=True)
WRONG = climb.states_of(honest=False)
DEFENDER, CHALLENGER = person("worker"), person("juror-0")


def _dispute() -> tuple[Dispute, StateBook, StateBook]:
    job, root = bytes(32), bytes(32)
    dispute = Dispute(Terms(job, root, DEFENDER.peer, CHALLENGER.peer, len(STATES), STATES[0], 0.0))
    dispute.start(0.0)
    return dispute, StateBook.of(job, root, WRONG), StateBook.of(job, root, STATES)


@target(
    "dispute: entry", lambda: [codec.encode(_dispute()[1].enter(DEFENDER)), codec.encode(_dispute()[2].enter(DEFENDER))]
)
def _entry(raw: bytes) -> None:
    dispute, _, honest = _dispute()
    dispute.on_entry(0.0, DEFENDER.peer, decoded(Entry, raw))
    dispute.on_entry(0.0, CHALLENGER.peer, honest.enter(CHALLENGER))


@target("dispute: opening", lambda: [codec.encode(_dispute()[1].open(index)) for index in range(len(STATES))])
def _dispute_opening(raw: bytes) -> None:
    shown = decoded(Opening, raw)
    dispute, wrong, honest = _dispute()
    dispute.on_entry(0.0, DEFENDER.peer, wrong.enter(DEFENDER))
    dispute.on_entry(0.0, CHALLENGER.peer, honest.enter(CHALLENGER))
    dispute.on_opening(0.0, DEFENDER.peer, shown)


@target("dispute: states shown", lambda: [codec.encode(_dispute()[1].show(step)) for step in range(len(STATES) - 1)])
def _shown(raw: bytes) -> None:
    shown = decoded(Shown, raw)
    from verify.bisection import exact_distance, state_leaf, step_distance

    for distance in (exact_distance, step_distance):
        assert math.isfinite(distance(shown.before, shown.after, STATES[1]))
    assert len(state_leaf(0, shown.before)) == 32


@target("evidence bundle", lambda: vectors("evidence-v1.json"), LocalError)
def _bundle(raw: bytes) -> None:
    bundle = decode_bundle(raw)
    assert codec.encode(bundle) == raw
    record = evidence_vectors.record()
    check_bundle(bundle, evidence_vectors.Toy(), {record.hash: record})


# ---- fingerprints and openings

ROWS = [from_numpy(np.full((2, 3), index, np.float32)) for index in range(9)]
ROWS_SECRET = bytes(range(32))
ROWS_HEAD = opening.sketch("latents", ROWS, ROWS_SECRET)
DRAWN = opening.states_of(8, (2, 5))


def _opened() -> list[bytes]:
    return [codec.encode([ROWS_HEAD, opening.open_rows("latents", ROWS, ROWS_SECRET, DRAWN)])]


@target("opened states", _opened)
def _rows(raw: bytes) -> None:
    head, openings = decoded(tuple[opening.Rows, list[opening.Opening]], raw)
    spot = opening.Spot(head, openings, 8, (2, 5), (2, 3))
    assert np.isfinite(spot.claims).all()


@target(
    "sketch of a text",
    lambda: [codec.encode(from_numpy(np.ones((4 * text_sketch.rows_per_token(4), text_sketch.ROW_BYTES), np.uint8)))],
)
def _sketch(raw: bytes) -> None:
    text_sketch.admit(decoded(Tensor, raw), 4)


class Claimed(Wire, frozen=True):
    """What a worker claims of one kind of job, by number of `CLAIMS`."""

    which: int
    output: Output
    trace: Trace


@cache
def claims() -> list[tuple[Any, Any, Expected]]:
    """Per kind and lane: fingerprint, input and the juror's own result, from real runs of the small models."""
    return [(each[0], each[1], each[4]) for each in _runs()]


@cache
def _runs() -> list[tuple[Any, Any, Output, Trace, Expected]]:
    from tests.workloads.specs import spec as job_of
    from tests.workloads.specs import text
    from wire.job import EmbedInput, ImageInput
    from workloads.variants import make_executor

    executor = make_executor("numpy")
    found = []
    for (kind, lane), fingerprint in sorted(FINGERPRINTS.items()):
        given: Any = {
            "text.generate": text("a", 4),
            "image.generate": ImageInput(3, 2),
            "embed.text": EmbedInput(["a"]),
        }[kind]
        job = job_of(kind, given, lane=lane)
        output, trace = executor.run(job, emit=lambda _: None, cancelled=lambda: False)
        found.append((fingerprint, given, output, trace, executor.recheck(job, output, trace)))
    return found


def _claims() -> list[bytes]:
    return [codec.encode(Claimed(at, run[2], run[3])) for at, run in enumerate(_runs())]


@target("claim of an answer, judged", _claims, ExpectedUnusable)
def _claim(raw: bytes) -> None:
    claim = decoded(Claimed, raw)
    fingerprint, given, expected = claims()[claim.which % len(claims())]
    fingerprint.admit(given, claim.output, claim.trace)
    distances = fingerprint.compare(claim.output, claim.trace, expected)
    assert all(math.isfinite(value) and value >= 0 for value in distances.values())
