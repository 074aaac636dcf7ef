"""Batches through both clients: what is asked, what is told of each answer, and what is never told."""

from __future__ import annotations

import json
from typing import Any

import pytest

import quorate
from quorate import Embed, Text
from tests.sdk.conftest import Run, collect, settle
from tests.sdk.node_double import JOB_ID, NodeDouble, problem
from tests.sdk.receipts import ACCEPTED, ANSWER, BY_NAME

PATH = f"/api/v1/batches/{JOB_ID}"
TEXTS = [Text(model="bytegpt", prompt=prompt) for prompt in ("a", "b")]


def item(index: int, **changes: Any) -> dict[str, Any]:
    told = {"audited": False, "verdict": None, "checked": "unchecked, batch audited at rate 1/2", "jury": []}
    return {"index": index, **told, "output": {"text": f"answer {index}"}} | changes


def audited(index: int) -> dict[str, Any]:
    jury = [{"peer": f"12D3KooWjuror{at}", "verdict": "accept", "distances": {}} for at in range(3)]
    return item(index, audited=True, verdict="accept", checked="audited by a jury of 3: accept", jury=jury)


def view(**changes: Any) -> dict[str, Any]:
    return {
        "id": JOB_ID,
        "kind": "text.generate",
        "model": "bytegpt",
        "state": "settled",
        "verdict": "accept",
        "lane": "tolerant",
        "worker": "12D3KooWworker",
        "jobs": 2,
        "audits": 1,
        "rate": "1/2",
        "items": [item(0), audited(1)],
        "cost_micro": 700,
        "attempts": [],
        "error": None,
        "seconds": 2.5,
    } | changes


def serve(node: NodeDouble, **changes: Any) -> None:
    node.replies["POST", "/api/v1/batches"] = (202, view(state="queued", verdict=None, items=[]))
    node.replies["GET", PATH] = (200, view(**changes))
    node.replies["GET", "/api/v1/batches"] = (200, {"batches": [view(**changes)]})
    node.replies["POST", f"{PATH}/cancel"] = (200, view(state="cancelled"))
    node.replies["GET", f"{PATH}/items/1/receipt"] = (200, ACCEPTED)
    node.replies["GET", f"{PATH}/items/1/output"] = (200, ANSWER)


def result_of(run: Run, **options: Any) -> Any:
    async def scenario(client: Any) -> Any:
        batch = await settle(client.submit_batch(TEXTS, policy="sample:0.5"))
        return await settle(batch.result(**options))

    return run(scenario)


def test_a_batch_from_submission_to_result(node: NodeDouble, run: Run) -> None:
    serve(node)

    async def scenario(client: Any) -> Any:
        batch = await settle(
            client.submit_batch(TEXTS, policy="sample:0.5", seeds=[3, 4], lane="exact", timeout_s=60.0)
        )
        assert (batch.id, batch.view.state) == (JOB_ID, "queued")
        assert [e.type for e in await collect(batch.events())][-1] == "settled"
        assert (await settle(client.batches()))[0].rate == "1/2"
        assert (await settle((await settle(client.batch(JOB_ID))).cancel())).state == "cancelled"
        return await settle(batch.result())

    result = run(scenario)
    assert [str(each.output) for each in result.items] == ["answer 0", "answer 1"]
    assert [each.audited for each in result.items] == [False, True]
    assert result.items[0].checked == "unchecked, batch audited at rate 1/2"
    assert result.items[0].receipt is None
    assert result.items[1].receipt.raw == ACCEPTED
    assert (result.verdict, result.rate, result.cost_micro, result.seconds) == ("accept", "1/2", 700, 2.5)
    sent = json.loads(node.requests("/api/v1/batches")[0][1])
    assert [job["seed"] for job in sent["jobs"]] == [3, 4]
    assert [job["input"]["prompt"] for job in sent["jobs"]] == ["a", "b"]
    assert {k: v for k, v in sent.items() if k != "jobs"} == {
        "kind": "text.generate", "model": "bytegpt", "policy": "sample:0.5", "lane": "exact", "timeout_s": 60.0,
        "retries": 2,
    }  # fmt: skip


def test_evidence_of_a_rejected_answer_or_none(node: NodeDouble, run: Run) -> None:
    serve(node)

    async def scenario(client: Any) -> Any:
        return await settle((await settle(client.batch(JOB_ID))).evidence())

    assert run(scenario) is None
    node.replies["GET", f"{PATH}/evidence"] = (200, b"bundle")
    assert run(scenario) == b"bundle"


def test_receipts_of_audited_answers_are_verified_on_request(node: NodeDouble, run: Run) -> None:
    serve(node)
    assert result_of(run, verify=True).items[1].audited
    node.replies["GET", f"{PATH}/items/1/output"] = (200, b"another answer")
    with pytest.raises(quorate.InvalidReceipt, match="answer"):
        result_of(run, verify=True)


def test_a_receipt_that_rejects_vouches_for_nothing(node: NodeDouble, run: Run) -> None:
    serve(node)
    node.replies["GET", f"{PATH}/items/1/receipt"] = (200, BY_NAME["three jurors reject"])
    with pytest.raises(quorate.InvalidReceipt):
        result_of(run, verify=True)


def test_one_rejected_answer_costs_the_batch(node: NodeDouble, run: Run) -> None:
    serve(node, verdict="reject")
    with pytest.raises(quorate.VerificationFailed) as caught:
        result_of(run)
    assert caught.value.job is not None
    assert caught.value.job.rate == "1/2"


def test_a_batch_without_a_verdict_is_returned_only_if_allowed(node: NodeDouble, run: Run) -> None:
    serve(node, verdict="unaudited", items=[item(0), item(1)])
    with pytest.raises(quorate.Unaudited):
        result_of(run)
    assert result_of(run, allow_unaudited=True).verdict == "unaudited"
    serve(node, verdict="unaudited", items=[item(0, output=None), item(1)])
    with pytest.raises(quorate.Unaudited):
        result_of(run, allow_unaudited=True)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"state": "cancelled"}, quorate.JobCancelled),
        ({"state": "failed", "verdict": None, "error": {"code": "no_provider", "message": "x"}}, quorate.NoProvider),
        ({"items": [item(0), item(1, output=None)]}, quorate.JobFailed),
    ],
)
def test_a_batch_that_ended_without_answers(
    node: NodeDouble, run: Run, changes: dict[str, Any], error: type[Exception]
) -> None:
    serve(node, **changes)
    with pytest.raises(error):
        result_of(run)


def test_too_few_audits_are_a_bad_request_that_names_the_rate(node: NodeDouble, run: Run) -> None:
    node.replies["POST", "/api/v1/batches"] = problem(400, "too_few_audits", "1 of 2", ["sample:2/2", "sample:auto"])
    with pytest.raises(quorate.BadRequest) as caught:
        result_of(run)
    assert (caught.value.code, caught.value.known) == ("too_few_audits", ("sample:2/2", "sample:auto"))


@pytest.mark.parametrize(
    ("requests", "seeds"),
    [
        ([], None),
        ([*TEXTS, Embed(model="bytegpt", texts=["x"])], None),
        ([*TEXTS, Text(model="b", prompt="")], None),
        (TEXTS, [1]),
    ],
)
def test_what_is_no_batch_is_refused_before_it_is_sent(
    node: NodeDouble, run: Run, requests: list[Any], seeds: list[int] | None
) -> None:
    async def scenario(client: Any) -> Any:
        return await settle(client.submit_batch(requests, seeds=seeds))

    with pytest.raises(quorate.BadRequest):
        run(scenario)
    assert node.asked == []
