"""What a user does wrong is refused at once, naming what is known."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from node.swarm import Member, Swarm, six
from wire.identity import Identity
from wire.peer import to_text


@pytest.fixture(scope="module")
def lone() -> Any:
    """One node, alone."""
    swarm = six()
    try:
        swarm.start(swarm.members[0])
        swarm.ready(swarm.members[0])
        yield swarm
    finally:
        swarm.stop()


def _api(member: Member) -> httpx.Client:
    import json

    about = json.loads((member.home / "api.json").read_text())
    token = (member.home / "api.token").read_text()
    return httpx.Client(base_url=about["url"], headers={"Authorization": f"Bearer {token}"}, timeout=20)


TEXT = {"kind": "text.generate", "model": "bytes-gpt", "input": {"prompt": "x"}}


@pytest.mark.parametrize(
    ("change", "status", "code", "known"),
    [
        ({"model": "gpt-9"}, 404, "unknown_model", "bytes-gpt"),
        ({"kind": "video.generate"}, 400, "bad_request", "image.generate"),
        ({"colour": "red"}, 400, "unknown_field", "seed"),
        ({"input": {"prompt": "x", "speed": 3}}, 400, "unknown_field", "tokens_max"),
        ({"input": {}}, 400, "bad_request", "prompt"),
        ({"input": {"prompt": 3}}, 400, "bad_request", "prompt"),
        ({"lane": "psychic"}, 400, "bad_request", "tolerant"),
        ({"policy": "quorum:4"}, 400, "bad_request", "quorum:3"),
        ({"seed": -1}, 400, "bad_request", None),
        ({"timeout_s": float(10**9)}, 400, "bad_request", None),
        ({"input": {"prompt": "x", "tokens_max": 10**6}}, 400, "bad_request", None),
        ({"input": {"prompt": "x", "method": "divine"}}, 400, "bad_request", None),
    ],
)
def test_a_bad_job_is_refused_at_once(
    lone: Swarm, change: dict[str, Any], status: int, code: str, known: str | None
) -> None:
    with _api(lone.members[0]) as api:
        answer = api.post("/api/v1/jobs", json={**TEXT, **change})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if known is not None:
        assert known in answer.json()["error"]["known"]


def test_malformed_json_is_a_400(lone: Swarm) -> None:
    with _api(lone.members[0]) as api:
        answer = api.post("/api/v1/jobs", content=b"{nope", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


def test_no_token_no_answer(lone: Swarm) -> None:
    with _api(lone.members[0]) as api:
        answer = api.get("/api/v1/node", headers={"Authorization": "Bearer nonsense"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_another_host_header_is_refused(lone: Swarm) -> None:
    with _api(lone.members[0]) as api:
        answer = api.get("/api/v1/node", headers={"Host": "evil.example"})
    assert answer.status_code == 400


def test_unknown_paths_and_jobs_are_404(lone: Swarm) -> None:
    with _api(lone.members[0]) as api:
        assert api.get("/api/v1/jobs/00ff").json()["error"]["code"] == "not_found"
        assert api.get("/api/v2").json()["error"]["code"] == "not_found"


def test_a_lone_node_says_that_nobody_serves_the_model(lone: Swarm) -> None:
    with _api(lone.members[0]) as api:
        job = api.post("/api/v1/jobs", json=TEXT).json()
        with api.stream("GET", f"/api/v1/jobs/{job['id']}/events", timeout=60) as events:
            list(events.iter_lines())
        view = api.get(f"/api/v1/jobs/{job['id']}").json()
    assert (view["state"], view["error"]["code"]) == ("failed", "no_provider")
    assert "worker and 3 jurors" in view["error"]["message"]


def test_the_token_is_readable_by_its_owner_only(lone: Swarm) -> None:
    assert (lone.members[0].home / "api.token").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("peer", "count", "status", "said"),
    [
        ("nobody", 4, 400, "nobody"),
        ("SELF", 4, 400, "this node itself"),
        ("STRANGER", 0, 400, "1 to 16"),
        ("STRANGER", 1, 504, "no answer from"),
    ],
)
def test_a_ping_that_cannot_be(lone: Swarm, peer: str, count: int, status: int, said: str) -> None:
    stranger = to_text(Identity.from_seed(b"s" * 32).peer)
    target = {"SELF": lone.members[0].peer, "STRANGER": stranger}.get(peer, peer)
    with _api(lone.members[0]) as api:
        reply = api.post(f"/api/v1/peers/{target}/ping", params={"count": count})
    assert reply.status_code == status
    assert said in reply.json()["error"]["message"]
