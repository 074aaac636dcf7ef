"""A process that appends offers in a loop and prints each acknowledged id, until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from ledger.entry import majority
from tests.ledger.parties import LATER_MS, Key, job_id, ledger_of


async def main(folder: Path, tasks: int) -> None:
    async with ledger_of(folder, 1, allowance_micro=2**50) as ledger, trio.open_nursery() as nursery:

        async def append(first: int) -> None:
            number = ledger.head() * 1000 + first
            while True:
                entry = await ledger.offer(job_id(number), Key(2).peer, 1, 0, majority(job_id(number), 1), LATER_MS)
                sys.stdout.write(entry.id.hex() + "\n")
                sys.stdout.flush()
                number += tasks

        for first in range(tasks):
            nursery.start_soon(append, first)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
