"""What the SDK says of the policy `escalate`: what decided, whom a rejection convicts, and which receipt to expect."""

from __future__ import annotations

from typing import Any

import pytest

import quorate
from tests.sdk.node_double import JOB_ID, NodeDouble, job_view
from tests.sdk.receipts import ANSWER, BY_NAME
from tests.sdk.test_client import TEXT, Run, result_of, settle

EVIDENCE = ("GET", f"/api/v1/jobs/{JOB_ID}/evidence")
JURY = [{"peer": "p", "verdict": "reject", "distances": {"step": 0.5}}]
DISPUTES = [{"challenger": "p", "loser": "w", "fault": "dispute.step", "step": 4}]


def climbed(by: int | str, **fields: Any) -> dict[str, Any]:
    levels = [{"verdict": "unaudited", "jury": JURY}]
    return job_view(escalation={"decided_by": by, "levels": levels, "disputes": DISPUTES}, **fields)


@pytest.mark.parametrize("by", [0, 2, "dispute"])
def test_a_result_says_what_decided(node: NodeDouble, run: Run, by: int | str) -> None:
    node.view = climbed(by)
    result = result_of(run)
    assert (result.decided_by, result.evidence) == (by, None)


def test_jobs_without_escalation_have_no_level(node: NodeDouble, run: Run) -> None:
    assert result_of(run).decided_by is None


def test_a_rejection_tells_who_disputed_and_hands_over_the_evidence(node: NodeDouble, run: Run) -> None:
    node.view = climbed("dispute", verdict="reject")
    node.replies[EVIDENCE] = (200, b"bundle")

    async def scenario(client: Any) -> Any:
        job = await settle(client.submit(TEXT, policy="escalate"))
        with pytest.raises(quorate.VerificationFailed) as caught:
            await settle(job.result())
        return caught.value.job, await settle(job.evidence())

    view, evidence = run(scenario)
    assert evidence == b"bundle"
    (dispute,) = view.escalation.disputes
    assert (dispute.loser, dispute.step, view.escalation.levels[0].jury[0].verdict) == ("w", 4, "reject")


def test_no_evidence_is_none(node: NodeDouble, run: Run) -> None:
    async def scenario(client: Any) -> Any:
        return await settle((await settle(client.submit(TEXT))).evidence())

    assert run(scenario) is None


def test_an_earlier_worker_that_was_rejected_leaves_its_evidence_with_the_result(node: NodeDouble, run: Run) -> None:
    attempts = [{"worker": "w", "verdict": "reject", "reason": ""}, {"worker": "v", "verdict": "accept", "reason": ""}]
    node.view = job_view(attempts=attempts)
    node.replies[EVIDENCE] = (200, b"bundle")
    assert result_of(run).evidence == b"bundle"


def test_a_receipt_binds_the_answer_but_not_the_verdict_of_a_dispute(node: NodeDouble, run: Run) -> None:
    """The jury that sat last rejected by majority, and a dispute found for the worker."""
    node.receipt, node.output = BY_NAME["three jurors reject"], ANSWER
    node.view = climbed("dispute")
    assert result_of(run, verify=True).verdict == "accept"
    node.output = ANSWER[:-1] + b"\x01"
    with pytest.raises(quorate.InvalidReceipt) as lie:
        result_of(run, verify=True)
    assert lie.value.reason == "answer"
    node.view, node.output = climbed(1), ANSWER
    with pytest.raises(quorate.InvalidReceipt) as lie:
        result_of(run, verify=True)
    assert lie.value.reason == "verdict"
