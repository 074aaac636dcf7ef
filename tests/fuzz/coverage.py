"""Coverage-guided: `python -m tests.fuzz.coverage "jury ask" -runs=1000000 [FOLDER]`, with the extra `fuzz` installed.

The same targets under atheris (libFuzzer). Half of the new inputs are structural mutations of valid messages, half are
libFuzzer's own of what reached new code before; FOLDER keeps the latter. What follows the name goes to libFuzzer.
"""

from __future__ import annotations

import sys
from random import Random

import atheris

OURS = ["wire", "verify", "ledger", "crdt", "dht", "recommend", "workloads", "node", "quorate"]

with atheris.instrument_imports(include=OURS):  # before anything else imports them
    from tests.fuzz.running import Found, try_one
    from tests.fuzz.targets import TARGETS, remembering


def main(name: str, options: list[str]) -> None:
    """Fuzz one target; ends the process."""
    target = TARGETS[name]
    source = target.cases()

    def one(raw: bytes) -> None:
        found = Found(name)
        try_one(target, raw, found)
        if found.failures:
            raise AssertionError(found.failures[0][1])

    def mutate(data: bytes, bytes_max: int, seed: int) -> bytes:
        random = Random(seed)
        made = source.case(random) if random.random() < 0.5 else atheris.Mutate(data, bytes_max)
        return bytes(made[:bytes_max])

    with remembering(source, target.run, target.errors):
        atheris.Setup([sys.argv[0], "-max_len=65536", *options], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
