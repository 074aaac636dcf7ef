"""The scenarios hold over seeds, can fail, and say how to repeat a failure."""

from __future__ import annotations

import pytest

from sim.__main__ import replay, report
from sim.faults import CALM
from sim.scenarios import SCENARIOS, Scenario, echo_app, gossip_app
from sim.world import World


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name: str, seed: int) -> None:
    trace, outcome, error = replay(SCENARIOS[name], seed, SCENARIOS[name].nodes)
    assert error is None, f"python -m sim {seed} --scenario {name}"
    assert outcome
    assert trace.counts["frame"] > 100
    assert trace.counts["partition"] == trace.counts["heal"] == 1


async def _item_from_nowhere(world: World) -> str:
    world.nodes[0].app.say(bytes(32))
    return await SCENARIOS["gossip"].play(world)


def test_gossip_notices_what_nobody_said() -> None:
    scenario = Scenario(4, CALM, gossip_app, _item_from_nowhere)
    _, outcome, error = replay(scenario, 1, 4)
    assert outcome is None
    assert "nobody said" in str(error) or "nobody said" in repr(error)


async def _fail(world: World) -> str:
    raise AssertionError("on purpose")


def test_a_failure_prints_how_to_repeat_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCENARIOS, "broken", Scenario(2, CALM, echo_app, _fail))
    assert report("broken", 31, 2, tail=5) == 1
    assert "python -m sim 31 --nodes 2 --scenario broken" in capsys.readouterr().out


def test_a_success_prints_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("echo", 1, 3, tail=2) == 0
    printed = capsys.readouterr().out
    assert "trace " in printed
    assert "ok: " in printed
