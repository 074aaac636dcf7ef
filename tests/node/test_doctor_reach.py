"""What the doctor says of how a node is reached: the truth, and a fix exactly where something is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from node.doctor import reached

HERE = "/ip4/203.0.113.9/tcp/4001"
VIEW: dict[str, Any] = {
    "nat": "cone",
    "proven": [],
    "claims": [],
    "relays": [],
    "relays_configured": 0,
    "peers_direct": 2,
    "peers_relayed": 1,
}
FAILED = [{"address": HERE, "reached": 0, "failed": 2}]


@pytest.mark.parametrize(
    ("told", "ok", "said", "fix"),
    [
        ({"proven": [HERE]}, True, HERE, ""),
        ({"relays": ["one", "two"], "claims": FAILED}, True, "2 relays", ""),
        ({"claims": FAILED}, False, HERE, "forward TCP port 4001"),
        ({"relays_configured": 1}, False, "no relay", "name other relays"),
        ({}, True, "nobody has checked", ""),
    ],
)
def test_reached(told: dict[str, Any], ok: bool, said: str, fix: str) -> None:
    check = reached({**VIEW, **told})
    assert check.ok is ok
    assert said in check.finding
    assert "2 peers directly, 1 through relays; NAT: cone" in check.finding
    assert bool(check.fix) is bool(fix)
    assert fix in check.fix
