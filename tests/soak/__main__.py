"""The soak for as long as one likes: `python -m tests.soak [--minutes 10]`; prints the census of each round."""

from __future__ import annotations

import argparse

import trio

from tests.soak.world import check, soak


async def main(minutes: float) -> None:
    """Rounds until the time is over."""
    ends = trio.current_time() + 60 * minutes
    soaked = await soak(lambda rounds: rounds < 8 or trio.current_time() < ends, print)
    print("begun", soaked.begun, "ended", soaked.ended, sep="\n")
    for name, count in sorted(soaked.outcomes.items()):
        print(f"{count:7} {name}")
    early, late = soaked.growth_kb()
    print(
        f"memory of the process that stays: {early / 1024:.1f} MiB after the warm-up, {late / 1024:.1f} MiB at the end"
    )
    check(soaked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    trio.run(main, parser.parse_args().minutes)
