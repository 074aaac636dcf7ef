"""Batches: what is picked nobody could choose, what is opened is what was promised, and the odds are exact."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verify.world import person
from verify.faults import Fault
from verify.jury import beacon_hash
from verify.sampling import (
    JOBS_MAX,
    RATE_ONE,
    Audit,
    Batch,
    BatchAction,
    BatchCommitment,
    BatchOffer,
    BatchOpening,
    BatchSecret,
    BatchTiming,
    Refuse,
    Sampling,
    Settle,
    ShowSecret,
    check_opening,
    commit_batch,
    detection,
    open_batch_commitment,
    open_offer,
    open_picked,
    picks,
    sampling_of,
)
from wire import codec
from wire.envelope import Envelope, seal
from wire.errors import LocalError, Malformed
from wire.hashing import digest
from wire.limits import ENVELOPE_BYTES_MAX

SECRET = digest("test", b"batch secret")
TIMING = BatchTiming(commit_s=100, open_s=10, judge_s=50)
WORKER = person("worker").peer
ALL = Sampling("rate", RATE_ONE)


def job(index: int) -> bytes:
    return digest("test.job", bytes([index // 256, index % 256]))


def root_of(index: int) -> bytes:
    return digest("test.root", bytes([index // 256, index % 256]))


def offer(count: int = 10, sampling: Sampling = ALL, **changes: Any) -> BatchOffer:
    fields: dict[str, Any] = {
        "version": 1,
        "requester": person("requester").peer,
        "worker": WORKER,
        "jobs": [job(i) for i in range(count)],
        "sampling": sampling,
        "beacon_hash": beacon_hash(SECRET),
        "nonce": bytes(16),
    }
    return BatchOffer(**(fields | changes))


def roots(jobs: int = 10) -> list[bytes]:
    return [root_of(i) for i in range(jobs)]


def sealed(batch: BatchOffer) -> Envelope:
    return seal(person("requester"), "batch.offer", batch)


def promise(batch: BatchOffer, answers: list[bytes]) -> Envelope:
    return seal(person("worker"), "batch.commitment", commit_batch(batch, answers))


def committed(sampling: Sampling = ALL, jobs: int = 10) -> tuple[Batch, list[BatchOpening]]:
    """A batch whose worker has committed at time 1, and what it will open."""
    batch = Batch(sealed(offer(jobs, sampling)), SECRET, now=0, timing=TIMING)
    shown, *_ = batch.on_commitment(1, WORKER, promise(batch.offer, roots(jobs)))
    assert isinstance(shown, ShowSecret)
    return batch, open_picked(batch.offer, roots(jobs), shown.shown)


def code(actions: list[BatchAction]) -> str:
    (action, *_) = actions
    assert isinstance(action, Refuse)
    return action.fault.code


def test_a_batch_whose_every_sample_passes_is_credited() -> None:
    batch, openings = committed(Sampling("draw", 3))
    assert [opening.index for opening in openings] == list(batch.picked)
    audits = [action for opening in openings for action in batch.on_opening(2, WORKER, opening)]
    assert audits == [Audit(i, job(i), root_of(i)) for i in batch.picked]
    ends = [batch.on_verdict(3, i, "accept") for i in batch.picked]
    assert ends[:-1] == [[], []]
    assert batch.outcome is not None
    assert ends[-1] == [Settle(batch.outcome)]
    assert (batch.outcome.word, batch.outcome.credited, batch.outcome.observations) == ("credited", True, (False,) * 3)


def test_one_rejected_sample_costs_the_batch() -> None:
    batch, openings = committed(Sampling("draw", 3))
    for opening in openings:
        batch.on_opening(2, WORKER, opening)
    batch.on_verdict(3, batch.picked[0], "accept")
    batch.on_verdict(3, batch.picked[1], "reject")
    assert batch.outcome is not None
    assert (batch.outcome.word, batch.outcome.credited, batch.outcome.observations) == (
        "rejected",
        False,
        (False, True),
    )
    assert batch.on_verdict(4, batch.picked[2], "accept") == []


def test_a_withheld_sample_is_a_failure() -> None:
    batch, openings = committed(Sampling("draw", 3))
    batch.on_opening(2, WORKER, openings[0])
    batch.on_verdict(3, openings[0].index, "accept")
    assert (batch.on_tick(10.9), batch.next_deadline()) == ([], 11)
    assert len(batch.on_tick(11)) == 1
    assert batch.outcome is not None
    assert (batch.outcome.word, batch.outcome.observations) == ("withheld", (False, True, True))
    assert code(batch.on_opening(12, WORKER, openings[1])) == "stale"


def test_a_jury_without_a_verdict_neither_credits_nor_blames() -> None:
    batch, openings = committed(Sampling("draw", 1))
    batch.on_opening(2, WORKER, openings[0])
    batch.on_verdict(3, openings[0].index, "unaudited")
    assert batch.outcome is not None
    assert (batch.outcome.word, batch.outcome.observations) == ("unaudited", ())


def test_a_jury_that_never_ends_leaves_the_batch_unaudited() -> None:
    batch, openings = committed(Sampling("draw", 1))
    batch.on_opening(2, WORKER, openings[0])
    assert batch.next_deadline() == 52
    batch.on_tick(52)
    assert batch.outcome is not None
    assert batch.outcome.word == "unaudited"


def test_a_worker_that_never_commits_is_silent_and_too_late_afterwards() -> None:
    batch = Batch(sealed(offer()), SECRET, now=0, timing=TIMING)
    batch.on_tick(100)
    assert batch.outcome is not None
    assert (batch.outcome.word, batch.outcome.observations, batch.next_deadline()) == ("silent", (), None)
    assert code(batch.on_commitment(101, WORKER, promise(batch.offer, roots()))) == "stale"


def test_the_secret_is_not_shown_before_the_root_is_there() -> None:
    batch = Batch(sealed(offer()), SECRET, now=0, timing=TIMING)
    assert not [a for a in batch.on_tick(50) if isinstance(a, ShowSecret)]
    bad = msgspec.structs.replace(promise(batch.offer, roots()), signature=bytes(64))
    assert [type(a) for a in batch.on_commitment(51, WORKER, bad)] == [Refuse]
    assert isinstance(batch.on_commitment(52, WORKER, promise(batch.offer, roots()))[0], ShowSecret)


def test_commitments_are_refused_by_name() -> None:
    batch = Batch(sealed(offer()), SECRET, now=0, timing=TIMING)
    good = promise(batch.offer, roots())
    elsewhere = seal(person("worker"), "batch.commitment", commit_batch(offer(nonce=b"x" * 16), roots()))
    short = seal(person("worker"), "batch.commitment", BatchCommitment(batch.offer.id, b"short"))
    other = seal(person("juror-0"), "batch.commitment", commit_batch(batch.offer, roots()))
    assert code(batch.on_commitment(1, person("juror-0").peer, good)) == "sender"
    assert code(batch.on_commitment(1, WORKER, elsewhere)) == "commitment.batch"
    assert code(batch.on_commitment(1, WORKER, short)) == "commitment"
    assert code(batch.on_commitment(1, WORKER, other)) == "commitment"
    batch.on_commitment(1, WORKER, good)
    assert code(batch.on_commitment(2, WORKER, good)) == "commitment.duplicate"
    assert code(batch.on_commitment(2, WORKER, promise(batch.offer, roots()[::-1]))) == "commitment.second"


def test_openings_are_refused_by_name() -> None:
    early = Batch(sealed(offer()), SECRET, now=0, timing=TIMING)
    batch, openings = committed(Sampling("draw", 3))
    replace, first = msgspec.structs.replace, openings[0]
    unpicked = next(i for i in range(10) if i not in batch.picked)
    everything = open_picked(offer(), roots(), BatchSecret(offer().id, SECRET))
    stray = replace(everything[unpicked], batch=batch.offer.id)
    assert code(early.on_opening(1, WORKER, everything[0])) == "opening.early"
    assert code(batch.on_opening(2, person("requester").peer, first)) == "sender"
    assert code(batch.on_opening(2, WORKER, replace(first, batch=bytes(32)))) == "opening.batch"
    assert code(batch.on_opening(2, WORKER, stray)) == "opening.index"
    assert code(batch.on_opening(2, WORKER, replace(first, index=-1))) == "opening.index"
    assert code(batch.on_opening(2, WORKER, replace(first, job=job(99)))) == "opening.job"
    assert code(batch.on_opening(2, WORKER, replace(first, root=root_of(99)))) == "opening.root"
    assert code(batch.on_opening(2, WORKER, replace(first, path=first.path[:-1]))) == "opening.root"
    assert code(batch.on_opening(2, WORKER, replace(first, path=[*first.path, bytes(32)]))) == "opening.root"
    assert code(batch.on_opening(2, WORKER, replace(first, path=[bytes(32)] * 1000))) == "opening.root"
    assert [type(a) for a in batch.on_opening(2, WORKER, first)] == [Audit]
    assert code(batch.on_opening(2, WORKER, first)) == "opening.duplicate"
    assert code(batch.on_opening(11, WORKER, openings[1])) == "stale"


def test_verdicts_nobody_asked_for_are_our_own_mistake() -> None:
    batch, openings = committed(Sampling("draw", 3))
    with pytest.raises(LocalError):
        batch.on_verdict(2, openings[0].index, "accept")


OFFERS = {
    "offer": seal(person("requester"), "job", offer()),
    "offer.requester": seal(person("worker"), "batch.offer", offer()),
    "offer.requester, own": sealed(offer(worker=person("requester").peer)),
    "offer.version": sealed(offer(version=2)),
    "offer.jobs": sealed(offer(0)),
    "offer.jobs, too many": sealed(offer(JOBS_MAX + 1)),
    "offer.jobs, twice": sealed(offer(jobs=[job(0), job(1), job(0)])),
    "offer.jobs, short": sealed(offer(jobs=[b"short"])),
    "offer.sampling": sealed(offer(sampling=Sampling("rate", 0))),
    "offer.sampling, rate": sealed(offer(sampling=Sampling("rate", RATE_ONE + 1))),
    "offer.sampling, draw": sealed(offer(sampling=Sampling("draw", 11))),
    "offer.beacon": sealed(offer(beacon_hash=b"")),
    "offer.beacon, nonce": sealed(offer(nonce=b"")),
}


@pytest.mark.parametrize("name", OFFERS)
def test_offers_are_refused_by_name(name: str) -> None:
    with pytest.raises(Fault) as refused:
        open_offer(OFFERS[name])
    assert refused.value.code == name.split(",")[0]


def test_the_largest_offer_fits_an_envelope() -> None:
    envelope = sealed(offer(JOBS_MAX))
    assert len(codec.encode(envelope)) < ENVELOPE_BYTES_MAX
    assert len(open_offer(envelope).jobs) == JOBS_MAX


@given(raw=st.binary(max_size=200), kind=st.sampled_from([BatchOffer, BatchCommitment, BatchOpening, BatchSecret]))
def test_noise_in_a_sealed_message_is_a_fault(raw: bytes, kind: type[codec.Wire]) -> None:
    who = person("worker")
    body = seal(who, "batch.commitment", BatchSecret(b"", raw))
    with pytest.raises(Fault):
        open_batch_commitment(body, offer())
    with pytest.raises(Malformed):
        codec.decode(kind, b"\xc1" + raw)


def test_a_secret_that_was_not_fixed_picks_nothing() -> None:
    batch = offer()
    with pytest.raises(Fault, match="secret"):
        picks(batch, bytes(32), digest("test", b"another"))
    with pytest.raises(Fault, match="secret"):
        open_picked(batch, roots(), BatchSecret(bytes(32), SECRET))
    with pytest.raises(Fault, match="secret"):
        Batch(sealed(batch), bytes(32), now=0)


def test_what_is_picked_depends_on_both() -> None:
    """Another answer to one job, or another secret, and the draw is another one."""
    one = offer(1000, Sampling("draw", 20))
    other_secret = digest("test", b"another")
    other = offer(1000, Sampling("draw", 20), beacon_hash=beacon_hash(other_secret))
    root = commit_batch(one, roots(1000)).root
    changed = commit_batch(one, [*roots(999), root_of(0)]).root
    assert len({picks(one, root, SECRET), picks(one, changed, SECRET), picks(other, root, other_secret)}) == 3


def test_every_set_is_drawn_as_often_as_any_other() -> None:
    """2,000 draws of 2 out of 5: chi-squared over the 10 sets, 9 degrees of freedom, is below its 99.9 % quantile."""
    batch = offer(5, Sampling("draw", 2))
    seen: dict[tuple[int, ...], int] = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for number in range(2_000):
        seen[picks(batch, digest("test", number.to_bytes(4, "big")), SECRET)] += 1
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 27.88


def test_each_job_is_picked_at_the_rate() -> None:
    """4,000 jobs at 1/8: 500 expected, standard deviation 20.9, four of them allowed."""
    assert abs(len(picks(offer(4_000, sampling_of("sample:1/8")), bytes(32), SECRET)) - 500) < 84


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        ("sample:1", ALL),
        ("sample:0.25", Sampling("rate", 1 << 30)),
        ("sample:1/3", Sampling("rate", 1431655766)),
        ("sample:1e-12", Sampling("rate", 1)),
        ("draw:7", Sampling("draw", 7)),
    ],
)
def test_policies_are_read(policy: str, rule: Sampling) -> None:
    assert sampling_of(policy) == rule


@pytest.mark.parametrize("policy", ["sample:0", "sample:1.1", "sample:x", "sample", "quorum:3", "draw:0", "sample:1/0"])
def test_other_policies_are_refused(policy: str) -> None:
    with pytest.raises(LocalError):
        sampling_of(policy)


def test_a_third_party_can_check_that_a_job_was_picked() -> None:
    batch, openings = committed(Sampling("draw", 3), jobs=100)
    assert batch.commitment is not None
    chosen = picks(open_offer(sealed(batch.offer)), batch.commitment.root, SECRET)
    for opening in openings:
        raw = codec.encode(opening)
        check_opening(batch.offer, batch.commitment, chosen, codec.decode(BatchOpening, raw))


@given(jobs=st.integers(1, 9), data=st.data())
def test_detection_is_what_counting_all_draws_gives(jobs: int, data: st.DataObject) -> None:
    bad, size = data.draw(st.integers(0, jobs)), data.draw(st.integers(1, jobs))
    seen = data.draw(st.fractions(0, 1, max_denominator=8))
    draws = list(itertools.combinations(range(jobs), size))
    missed = sum((1 - seen) ** sum(index < bad for index in drawn) for drawn in draws)
    assert detection(jobs, bad, Sampling("draw", size), seen=seen) == 1 - Fraction(missed) / len(draws)


@given(bad=st.integers(0, 8), rate=st.sampled_from(["1/2", "1/8", "1"]))
def test_detection_at_a_rate_is_that_of_independent_picks(bad: int, rate: str) -> None:
    assert detection(8, bad, sampling_of(f"sample:{rate}")) == 1 - (1 - Fraction(rate)) ** bad


def test_impossible_batches_have_no_odds() -> None:
    for bad, rule in ((9, ALL), (-1, ALL), (1, Sampling("draw", 9))):
        with pytest.raises(LocalError):
            detection(8, bad, rule)


def test_the_documented_table_is_computed() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/explanation/sampling.md").read_text()
    for size in (10, 50, 100, 300):
        odds = [float(detection(1000, 10 * share, Sampling("draw", size))) for share in (1, 5, 20, 50)]
        rates = [float(detection(1000, 10 * share, sampling_of(f"sample:{size}/1000"))) for share in (1, 5, 20, 50)]
        for name, row in ((f"draw:{size}", odds), (f"sample:{size / 1000:g}", rates)):
            cells = " | ".join(f"{100 * p:.3f} %" if p < 0.99999 else "> 99.999 %" for p in row)
            assert f"| `{name}` | {cells} |" in page
