"""A batch of real jobs: picked answers go before real juries, and what they say ends in credit and in the record."""

from __future__ import annotations

import pytest

from tests.verify.test_canary import answer, hold, job
from tests.verify.test_sampling import SECRET, TIMING
from tests.verify.world import SALT, person, weights
from tests.verify.world import SECRET as JURY_SECRET
from verify import eprocess
from verify.commitment import commit
from verify.jury import beacon_hash, pool_of
from verify.messages import JuryAsk
from verify.sampling import (
    Audit,
    Batch,
    BatchOffer,
    BatchOutcome,
    ShowSecret,
    commit_batch,
    open_picked,
    sampling_of,
)
from wire.envelope import seal

JOBS = 12
SPECS = [job("embed.text", "tolerant", index) for index in range(JOBS)]
WORKER = person("worker")


def batch_of(wrong: set[int], policy: str, number: int = 0) -> BatchOutcome:
    """A worker that cheats in `wrong` does the batch; the requester's whole side of it."""
    claims = [answer("embed.text", "tolerant", i, cheat="int8-weights" if i in wrong else None) for i in range(JOBS)]
    commitments = [commit(spec.id, claim.output, claim.trace, SALT) for spec, claim in zip(SPECS, claims, strict=True)]
    requester = person("requester")
    jobs = [spec.id for spec in SPECS]
    offer = BatchOffer(
        1, requester.peer, WORKER.peer, jobs, sampling_of(policy), beacon_hash(SECRET), number.to_bytes(16, "big")
    )
    batch = Batch(seal(requester, "batch.offer", offer), SECRET, now=0, timing=TIMING)
    roots = [commitment.root for commitment in commitments]
    promised = seal(WORKER, "batch.commitment", commit_batch(offer, roots))
    (shown,) = [a for a in batch.on_commitment(1, WORKER.peer, promised) if isinstance(a, ShowSecret)]
    audits = [a for o in open_picked(offer, roots, shown.shown) for a in batch.on_opening(2, WORKER.peer, o)]
    for audit in audits:
        assert isinstance(audit, Audit)
        i = audit.index
        ask = JuryAsk(
            seal(requester, "job", SPECS[i]),
            seal(WORKER, "commitment", commitments[i]),
            JURY_SECRET,
            SALT,
            pool_of(weights(7)),
            claims[i].output,
            claims[i].trace,
        )
        assert commitments[i].root == audit.root
        batch.on_verdict(3, i, hold(ask, {}).verdict)
    assert batch.outcome is not None
    return batch.outcome


@pytest.mark.parametrize(
    ("wrong", "policy", "word"),
    [
        (set(), "draw:3", "credited"),
        ({4}, "sample:1", "rejected"),
        (set(range(JOBS)), "draw:1", "rejected"),
    ],
)
def test_real_batches_end_as_their_picked_answers_deserve(wrong: set[int], policy: str, word: str) -> None:
    outcome = batch_of(wrong, policy)
    assert outcome.word == word
    assert outcome.observations.count(True) == (word == "rejected")


def test_batches_wrong_throughout_end_in_ejection() -> None:
    evidence, batches = eprocess.fresh(), 0
    while not evidence.rejected:
        batches += 1
        for failed in batch_of(set(range(JOBS)), "draw:1", batches).observations:
            evidence = eprocess.observe(evidence, failed=failed)
    assert batches == 3
