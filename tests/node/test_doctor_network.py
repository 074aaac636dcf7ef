"""`quorate doctor network`: what is found, and a fix exactly where something is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from node.doctor_network import network_checks, relaying_line

HERE = "/ip4/203.0.113.9/tcp/4001"
RELAYING = {
    "serving": True,
    "reservations": 3,
    "reservations_max": 128,
    "circuits": 1,
    "circuits_max": 128,
    "refused": 2,
    "bytes_passed": 41_700_000,
    "earned_micro": 1_234,
}
PUBLIC: dict[str, Any] = {
    "nat": "none",
    "seen": HERE,
    "proven": [HERE],
    "claims": [{"address": HERE, "reached": 4, "failed": 0}],
    "relays": [],
    "relays_configured": 0,
    "relays_known": 0,
    "mapping": None,
    "peers_direct": 4,
    "peers_relayed": 1,
    "relaying": RELAYING,
}
HIDDEN = {
    **PUBLIC,
    "nat": "symmetric",
    "seen": None,
    "proven": [],
    "claims": [{"address": HERE, "reached": 0, "failed": 2}],
    "relaying": None,
}


def found(view: dict[str, Any] | None, peers: int = 5) -> dict[str, tuple[bool, str, str]]:
    about = {"reach": view, "addresses": [f"{HERE}/p2p/x"], "peers_connected": peers}
    return {check.name: (check.ok, check.finding, check.fix) for check in network_checks(about)}


def test_a_public_node_needs_nothing() -> None:
    checks = found(PUBLIC)
    assert all(ok and not fix for ok, _, fix in checks.values())
    assert checks["peers"][1] == "4 directly, 1 through relays"
    assert checks["address"][1] == f"{HERE}: 4 peers reached it from outside, 0 did not"
    assert (
        checks["relaying"][1]
        == "3 of 128 reservations, 1 of 128 circuits, 41.7 MB passed, 2 refused, 1,234 micro-credits earned"
    )


def test_a_hidden_node_is_told_what_to_open_and_where_to_find_relays() -> None:
    checks = found(HIDDEN)
    assert "hole punching fails" in checks["nat"][1]
    assert "forward TCP port 4001" in checks["address"][2]
    assert checks["relays"] == (
        False,
        "0 let callers in; 0 named in `relays`, 0 found by this node",
        "join a network that has relays (`bootstrap`), or name some in `relays`",
    )
    assert checks["reachable"][0] is False
    assert "switched off" in checks["relaying"][1]


@pytest.mark.parametrize(
    ("told", "ok", "fix"),
    [({"relays": ["r"]}, True, ""), ({"relays_known": 3}, False, "wait a minute"), ({"claims": []}, True, "")],
)
def test_relays(told: dict[str, Any], ok: bool, fix: str) -> None:
    check = found({**HIDDEN, **told})["relays"]
    assert check[0] is ok
    assert check[2].startswith(fix)
    assert bool(check[2]) is bool(fix)


def test_who_knows_nobody_is_told_to_join() -> None:
    assert "bootstrap" in found(HIDDEN, peers=0)["peers"][2]


def test_a_relay_that_waits_says_for_what() -> None:
    assert "once strangers" in found({**PUBLIC, "relaying": {**RELAYING, "serving": False}})["relaying"][1]


def test_a_simulated_node_has_no_network() -> None:
    assert found(None)["network"][0] is False


def test_relaying_line_counts_megabytes() -> None:
    assert "1,234.5 MB" in relaying_line({**RELAYING, "bytes_passed": 1_234_500_000})


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"port": 4001, "by": "upnp", "claimed": None, "why_not": None}, "opened TCP port 4001, by upnp"),
        ({"port": None, "by": None, "claimed": None, "why_not": "upnp: no answer"}, "upnp: no answer"),
    ],
)
def test_what_the_router_says_is_shown(mapping: dict[str, Any], said: str) -> None:
    assert said in found({**HIDDEN, "mapping": mapping})["mapping"][1]
