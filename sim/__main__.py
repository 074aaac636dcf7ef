"""Replay a scenario: `python -m sim SEED [--nodes N] [--scenario NAME]`."""

from __future__ import annotations

import argparse
import sys
import traceback

from sim.scenarios import SCENARIOS, Scenario
from sim.trace import Trace
from sim.world import run, world


def replay(scenario: Scenario, seed: int, nodes: int) -> tuple[Trace, str | None, BaseException | None]:
    """Play a scenario once.

    Returns:
        the trace; what came out, or None if it failed; and how it failed.
    """
    trace = Trace()

    async def main() -> str:
        nonlocal trace
        async with world(nodes=nodes, seed=seed, faults=scenario.faults, build=scenario.build) as made:
            trace = made.net.trace
            return await scenario.play(made)

    try:
        outcome = run(main, seed)
    except Exception as exc:  # noqa: BLE001 - the supervisor: whatever failed, its seed and trace are printed
        return trace, None, exc
    return trace, outcome, None


def report(name: str, seed: int, nodes: int, tail: int) -> int:
    """Play, print, and return the exit status."""
    trace, outcome, error = replay(SCENARIOS[name], seed, nodes)
    print(f"scenario {name} seed {seed} nodes {nodes}")
    print("events " + " ".join(f"{kind}={count}" for kind, count in sorted(trace.counts.items())))
    print(f"trace {trace.hash}")
    for line in list(trace.tail)[len(trace.tail) - tail :] if tail else []:
        print("  " + line)
    if error is not None:
        traceback.print_exception(error)
        print(f"FAILED; replay with: python -m sim {seed} --nodes {nodes} --scenario {name}")
        return 1
    print(f"ok: {outcome}")
    return 0


def main() -> int:
    """Parse the command line; without a name every scenario plays."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="Replay simulated worlds from a seed.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--nodes", type=int, help="how many nodes (default: what the scenario says)")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), help="which (default: all)")
    parser.add_argument("--tail", type=int, default=0, help="print the last events too (at most 200)")
    given = parser.parse_args()
    names = [given.scenario] if given.scenario else sorted(SCENARIOS)
    return max(report(name, given.seed, given.nodes or SCENARIOS[name].nodes, given.tail) for name in names)


if __name__ == "__main__":
    sys.exit(main())
