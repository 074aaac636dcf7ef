"""Both clients against a node's API on real sockets: one scenario each, run under trio, asyncio and blocking."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

import quorate
from quorate import Embed, Image, Text
from tests.sdk.conftest import Run, collect, settle
from tests.sdk.node_double import JOB_ID, WHOLE_LIFE, NodeDouble, event, job_view, problem
from tests.sdk.receipts import ACCEPTED, ANSWER, BY_NAME

TEXT = Text(model="bytegpt", prompt="the ")
EVENTS = f"/api/v1/jobs/{JOB_ID}/events"


def result_of(run: Run, **options: Any) -> Any:
    """Submit a text job and wait for its result."""

    async def scenario(client: Any) -> Any:
        job = await settle(client.submit(TEXT))
        return await settle(job.result(**options))

    return run(scenario)


def test_a_job_from_submission_to_result(node: NodeDouble, run: Run) -> None:
    async def scenario(client: Any) -> Any:
        job = await settle(client.submit(TEXT, timeout_s=60.0, budget_micro=5_000, retries=1, seed=7, lane="exact"))
        assert job.id == JOB_ID
        assert job.view.state == "queued"
        return await settle(job.result())

    result = run(scenario)
    assert str(result.output) == result.output.text == "hello"
    assert (result.verdict, result.lane, result.cost_micro, result.seconds) == ("accept", "tolerant", 1300, 1.5)
    assert result.distances == {"margin": 0.25}
    assert result.thresholds == {"margin": 1.0}
    assert [juror.verdict for juror in result.jury] == ["accept"] * 3
    assert result.receipt.raw == b"receipt"
    assert result.output_raw == b"output"
    assert json.loads(node.requests("/api/v1/jobs")[0][1]) == {
        "kind": "text.generate",
        "model": "bytegpt",
        "input": {
            "prompt": "the ", "tokens_max": 48, "method": "greedy", "temperature": 1.0, "top_k": 0, "beams": 4
        },
        "policy": "quorum:3", "lane": "exact", "seed": 7, "budget_micro": 5_000, "timeout_s": 60.0, "retries": 1,
    }  # fmt: skip


def test_what_is_not_said_is_left_to_the_node(node: NodeDouble, run: Run) -> None:
    result_of(run)
    sent = json.loads(node.requests("/api/v1/jobs")[0][1])
    assert sent.keys() == {"kind", "model", "input", "policy", "retries"}


def test_events_tell_the_whole_life(node: NodeDouble, run: Run) -> None:
    async def scenario(client: Any) -> Any:
        return await collect((await settle(client.job(JOB_ID))).events())

    events = run(scenario)
    types = [e.type for e in events]
    assert types == ["queued", "matched", "running", "running", "auditing", "settled"]
    assert [e.final for e in events] == [False] * 5 + [True]
    assert (events[2].done, events[2].total, events[3].text) == (1, 2, "hel\u2028lo")
    assert events[1].data["worker"] == "12D3KooWworker"
    assert events[0].at_ms == 1_000


def test_a_broken_event_stream_is_resumed_where_it_broke(node: NodeDouble, run: Run) -> None:
    """The second connection names the last event, and an event that comes twice is told once."""
    middle = WHOLE_LIFE[2]
    node.streams = [[*WHOLE_LIFE[:2], middle[:20]], [WHOLE_LIFE[1], middle[:9], middle[9:], *WHOLE_LIFE[3:]]]

    async def scenario(client: Any) -> Any:
        return await collect((await settle(client.job(JOB_ID))).events())

    assert [e.seq for e in run(scenario)] == [0, 1, 2, 3, 4, 5]
    first, second = (headers for headers, _ in node.requests(EVENTS))
    assert "Last-Event-ID" not in first
    assert second["Last-Event-ID"] == "1"


def test_a_stream_that_keeps_breaking_means_that_the_node_is_gone(node: NodeDouble, run: Run) -> None:
    node.streams, node.view = [[WHOLE_LIFE[0]]], job_view(state="running", verdict=None, output=None)
    with pytest.raises(quorate.NodeUnreachable, match="2 times in a row"):
        result_of(run)
    assert len(node.requests(EVENTS)) == 2


def test_a_job_that_ended_without_its_last_event_has_a_result(node: NodeDouble, run: Run) -> None:
    """A node that restarted may have forgotten events; what counts is the job."""
    node.streams = [[WHOLE_LIFE[0]]]
    assert result_of(run).verdict == "accept"


def test_an_unreadable_event_is_the_nodes_fault(node: NodeDouble, run: Run) -> None:
    node.streams = [[b"data: {\n\n"]]
    with pytest.raises(quorate.NodeFault, match="unreadable event"):
        result_of(run)


def test_events_of_no_job(node: NodeDouble, run: Run) -> None:
    node.replies["GET", EVENTS] = problem(404, "not_found", "no such job")
    with pytest.raises(quorate.NotFound, match="no such job"):
        result_of(run)


def test_waiting_ends_at_its_time_and_the_job_goes_on(node: NodeDouble, run: Run) -> None:
    node.streams = [[WHOLE_LIFE[0], node.until_closed]]
    with pytest.raises(quorate.JobTimeout, match=r"not ended after 0\.2 s") as late:
        result_of(run, timeout_s=0.2)
    assert late.value.job is not None
    assert late.value.job.id == JOB_ID
    assert not node.requests(f"/api/v1/jobs/{JOB_ID}/cancel")


def test_events_can_be_left_early(node: NodeDouble, run: Run) -> None:
    """Leaving, and closing the client over a stream that was abandoned, leave nothing open."""
    node.streams = [[WHOLE_LIFE[0], node.until_closed]]

    async def scenario(client: Any) -> Any:
        job = await settle(client.job(JOB_ID))
        if hasattr(client, "aclose"):
            async with job.events() as events:
                assert (await anext(events)).seq == 0
            assert await collect(events) == []
            await anext(job.events())
        else:
            with job.events() as events:
                assert next(events).seq == 0
            assert list(events) == []
            next(job.events())
        return (await settle(client.jobs()))[0].state

    assert run(scenario) == "settled"


def test_a_job_is_cancelled(node: NodeDouble, run: Run) -> None:
    node.streams = [[WHOLE_LIFE[0], event(1, "cancelled")]]

    async def scenario(client: Any) -> Any:
        job = await settle(client.submit(TEXT))
        assert (await settle(job.cancel())).state == "cancelled"
        node.view = job_view(state="cancelled", verdict=None, output=None)
        await settle(job.result())

    with pytest.raises(quorate.JobCancelled):
        run(scenario)


REFUSALS = [
    (400, "bad_request", quorate.BadRequest),
    (404, "unknown_model", quorate.BadRequest),
    (422, "unknown_field", quorate.BadRequest),
    (422, "something new", quorate.BadRequest),
    (409, "no_provider", quorate.NoProvider),
    (503, "no_provider", quorate.NoProvider),
    (402, "insufficient_credit", quorate.InsufficientCredit),
    (504, "timeout", quorate.JobTimeout),
    (401, "unauthorized", quorate.Unauthorized),
    (404, "not_found", quorate.NotFound),
    (503, "busy", quorate.NodeBusy),
    (500, "something new", quorate.NodeFault),
]


@pytest.mark.parametrize(("status", "code", "error"), REFUSALS, ids=[f"{row[0]} {row[1]}" for row in REFUSALS])
def test_each_refusal_is_an_error_of_its_own(
    node: NodeDouble, run: Run, status: int, code: str, error: type[quorate.QuorateError]
) -> None:
    node.replies["POST", "/api/v1/jobs"] = problem(status, code, "said so", ["a", "b"])
    with pytest.raises(quorate.QuorateError, match="said so") as refused:
        result_of(run)
    assert type(refused.value) is error
    assert refused.value.code == code
    if isinstance(refused.value, quorate.BadRequest):
        assert refused.value.known == ("a", "b")


@pytest.mark.parametrize(("status", "body"), [(500, b"<html>"), (200, b"[]"), (202, b"not json"), (200, b"{}")])
def test_a_reply_that_is_no_reply_is_the_nodes_fault(node: NodeDouble, run: Run, status: int, body: bytes) -> None:
    node.replies["POST", "/api/v1/jobs"] = (status, body)
    with pytest.raises(quorate.NodeFault):
        result_of(run)


REJECTED = job_view(state="failed", verdict="reject", error={"code": "rejected", "message": "no"})
ENDINGS = [
    (REJECTED, quorate.VerificationFailed),
    (job_view(verdict="reject"), quorate.VerificationFailed),
    (job_view(verdict="unaudited"), quorate.Unaudited),
    (job_view(verdict=None), quorate.Unaudited),
    (job_view(state="failed", verdict="unaudited", output=None), quorate.Unaudited),
    (
        job_view(state="failed", verdict=None, output=None, error={"code": "timeout", "message": "no"}),
        quorate.JobTimeout,
    ),
    (
        job_view(state="failed", verdict=None, output=None, error={"code": "no_provider", "message": "no"}),
        quorate.NoProvider,
    ),
    (
        job_view(state="failed", verdict=None, output=None, error={"code": "insufficient_credit", "message": "no"}),
        quorate.InsufficientCredit,
    ),
    (job_view(state="failed", verdict=None, output=None, error={"code": "new", "message": "no"}), quorate.JobFailed),
    (job_view(state="failed", verdict=None, output=None), quorate.JobFailed),
    (job_view(state="running", verdict=None, output=None), quorate.NodeFault),
]


@pytest.mark.parametrize(
    ("view", "error"), ENDINGS, ids=[f"{v['state']} {v['verdict']} {v['error']}" for v, _ in ENDINGS]
)
def test_each_bad_ending_is_an_error_of_its_own(
    node: NodeDouble, run: Run, view: dict[str, Any], error: type[quorate.QuorateError]
) -> None:
    node.view = view
    with pytest.raises(quorate.QuorateError) as ended:
        result_of(run)
    assert type(ended.value) is error
    if isinstance(ended.value, quorate.JobError):
        assert ended.value.job is not None
        assert ended.value.job.state == view["state"]


def test_an_unaudited_answer_is_given_to_those_who_ask_for_it(node: NodeDouble, run: Run) -> None:
    node.view = job_view(verdict="unaudited")
    result = result_of(run, allow_unaudited=True)
    assert (result.verdict, result.output.text) == ("unaudited", "hello")


def test_policy_none_asks_for_an_unaudited_answer(node: NodeDouble, run: Run) -> None:
    node.view, node.receipt = job_view(verdict=None, jury=[]), None

    async def scenario(client: Any) -> Any:
        job = await settle(client.submit(TEXT, policy="none"))
        with pytest.raises(quorate.Unaudited):
            await settle(job.result(allow_unaudited=False))
        return await settle(job.result())

    result = run(scenario)
    assert (result.verdict, result.receipt) == ("unaudited", None)


def test_a_liar_in_the_jury_moves_the_distances_little(node: NodeDouble, run: Run) -> None:
    said = [("accept", 0.1), ("accept", 0.3), ("reject", 9.0)]
    node.view = job_view(jury=[{"peer": "p", "verdict": v, "distances": {"margin": d}} for v, d in said])
    assert result_of(run).distances == {"margin": pytest.approx(0.2)}


def test_an_image_is_a_file(node: NodeDouble, run: Run, tmp_path: Path) -> None:
    png = base64.b64encode(b"\x89PNG...").decode()
    node.view = job_view(kind="image.generate", output={"image": {"width": 8, "height": 9, "png_base64": png}})

    async def scenario(client: Any) -> Any:
        return await settle((await settle(client.submit(Image(model="digits", label=7, steps=5)))).result())

    output = run(scenario).output
    assert (output.width, output.height, output.png) == (8, 9, b"\x89PNG...")
    assert output.save(tmp_path / "seven.png").read_bytes() == output.png
    assert json.loads(node.requests("/api/v1/jobs")[0][1])["input"] == {"label": 7, "steps": 5}


def test_embeddings_are_vectors_in_order(node: NodeDouble, run: Run) -> None:
    node.view = job_view(kind="embed.text", output={"embeddings": [[1.0, 0.5], [0.25, 2.0]]})

    async def scenario(client: Any) -> Any:
        return await settle((await settle(client.submit(Embed(model="minilm", texts=["a", "b"])))).result())

    assert run(scenario).output.vectors == ((1.0, 0.5), (0.25, 2.0))
    assert json.loads(node.requests("/api/v1/jobs")[0][1])["input"] == {"texts": ["a", "b"]}


@pytest.mark.parametrize("output", [{}, {"image": {"width": 1, "height": 1, "png_base64": "?"}}])
def test_an_answer_of_no_kind_is_the_nodes_fault(node: NodeDouble, run: Run, output: dict[str, Any]) -> None:
    node.view = job_view(output=output)
    with pytest.raises(quorate.NodeFault):
        result_of(run)


def test_a_result_can_verify_its_receipt_at_once(node: NodeDouble, run: Run) -> None:
    node.receipt, node.output = ACCEPTED, ANSWER
    assert result_of(run, verify=True).receipt.raw == ACCEPTED


@pytest.mark.parametrize(
    ("receipt", "output", "reason"),
    [
        (b"noise", ANSWER, "encoding"),
        (ACCEPTED, ANSWER[:-1] + b"\x01", "answer"),
        (BY_NAME["three jurors reject"], ANSWER, "verdict"),
        (ACCEPTED, None, "missing"),
        (None, ANSWER, "missing"),
    ],
    ids=["noise", "another answer", "another verdict", "no answer", "no receipt"],
)
def test_a_node_that_lies_about_a_verdict_is_found_out(
    node: NodeDouble, run: Run, receipt: bytes | None, output: bytes | None, reason: str
) -> None:
    node.receipt, node.output = receipt, output
    with pytest.raises(quorate.InvalidReceipt) as lie:
        result_of(run, verify=True)
    assert lie.value.reason == reason


def test_the_node_tells_of_itself(node: NodeDouble, run: Run) -> None:
    model = {"name": "m", "cid": "bafk", "kind": "embed.text", "lanes": ["exact"], "providers": 2, "card": {"l": "x"}}
    replies: dict[tuple[str, str], dict[str, Any]] = {
        ("GET", "node"): {"peer": "12D3", "version": "0.1.0", "models": [model], "balance_micro": -5, "new_field": 1},
        ("GET", "models"): {"models": [model]},
        ("GET", "peers"): {"peers": [{"peer": "12D3", "connected": True, "trust": 0.5}]},
        ("GET", "ranking"): {"ranking": [{"peer": "12D3", "score": 0.5, "rank": 1, "why": "you paid it"}]},
        ("GET", "ledger"): {"balance_micro": 7, "height": 2, "head": "ab", "entries": [{"kind": "offer"}]},
        ("POST", "ledger/audit"): {"ok": True, "entries": 2, "issues": []},
    }
    node.replies = {(method, f"/api/v1/{path}"): (200, reply) for (method, path), reply in replies.items()}

    async def scenario(client: Any) -> Any:
        names = ("node", "models", "peers", "ranking", "ledger", "ledger_audit")
        return [await settle(getattr(client, name)()) for name in names]

    me, models, peers, ranking, ledger, audit = run(scenario)
    assert (me.balance_micro, me.models[0].name, models[0].card) == (-5, "m", {"l": "x"})
    assert (peers[0].trust, ranking[0].why, ledger.entries, audit.ok) == (0.5, "you paid it", [{"kind": "offer"}], True)


def test_a_job_id_is_no_path(run: Run) -> None:
    async def scenario(client: Any) -> Any:
        await settle(client.job("../node"))

    with pytest.raises(quorate.BadRequest, match="hex"):
        run(scenario)
