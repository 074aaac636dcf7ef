"""How a client finds its node, and what it says when there is none."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from quorate import Client, NodeUnreachable, Unauthorized
from tests.sdk.node_double import TOKEN, NodeDouble


def make_home(folder: Path, url: str, *, token: str | None = TOKEN) -> Path:
    (folder / "api.json").write_text(json.dumps({"url": url, "token_file": "api.token"}))
    if token is not None:
        (folder / "api.token").write_text(token + "\n")
    return folder


def test_a_home_leads_to_its_node(node: NodeDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path, node.url)
    with Client.sync(home=home) as client:
        assert client.jobs()[0].kind == "text.generate"
    monkeypatch.setenv("QUORATE_HOME", str(home))
    with Client.sync() as client:
        assert len(client.jobs()) == 1


def test_the_default_home_is_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUORATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NodeUnreachable, match=r"\.quorate/api\.json"):
        Client()


def test_a_token_goes_to_its_own_node_only(node: NodeDouble, tmp_path: Path) -> None:
    home = make_home(tmp_path, "http://127.0.0.1:1")
    with Client.sync(node.url, home=home) as client, pytest.raises(Unauthorized):
        client.jobs()
    assert "Authorization" not in node.requests("/api/v1/jobs")[0][0]
    assert Client(node.url + "/", home=make_home(tmp_path, node.url)).endpoint.token == TOKEN
    assert TOKEN not in repr(Client(node.url, TOKEN).endpoint)


def test_a_wrong_token_is_refused(node: NodeDouble) -> None:
    with Client.sync(node.url, "wrong") as client, pytest.raises(Unauthorized, match="wrong token"):
        client.jobs()


def test_homes_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match="token"):
        Client(home=make_home(tmp_path, "http://127.0.0.1:1", token=None))
    (tmp_path / "api.json").write_text("[]")
    with pytest.raises(NodeUnreachable, match="not the file of a node"):
        Client(home=tmp_path)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client.sync(url, TOKEN) as client, pytest.raises(NodeUnreachable, match="no answer from"):
            client.jobs()
    with Client.sync("no address", TOKEN) as client, pytest.raises(NodeUnreachable):
        client.jobs()


def test_proxies_of_the_environment_are_not_used(node: NodeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with Client.sync(node.url, TOKEN) as client:
        assert len(client.jobs()) == 1
