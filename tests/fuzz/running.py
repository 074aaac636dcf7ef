"""Runs cases of targets in chunks, each with a generator of its own: a run repeats itself on any number of cores."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import tests.fuzz.decoders
import tests.fuzz.doors
import tests.fuzz.judging
import tests.fuzz.protobufs  # registers its targets
import tests.fuzz.rpc
import tests.fuzz.streams
import tests.fuzz.webrtc
from tests.fuzz.targets import TARGETS, Target, remembering

CHUNK = 5_000
HANG_S = 20
"""Seconds of the processor for 250 cases, which take a few hundredths."""
MEMORY_BYTES = 6 << 30
"""Address space of a process that fuzzes: a decoder that allocates what a header claims fails here."""

assert tests.fuzz.decoders, "registers its targets"
assert tests.fuzz.streams, "registers its targets"


class Hang(Exception):
    """A case took far too long."""


@dataclass
class Found:
    """What became of some cases."""

    target: str
    cases: int = 0
    accepted: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    """The input in hexadecimal, and what was raised."""


def chunk(name: str, seed: int, number: int, cases: int) -> Found:
    """Run one chunk, within `watched`; equal arguments give equal cases."""
    target, random = TARGETS[name], Random(f"{seed}/{name}/{number}")
    source, found = target.cases(), Found(name)
    with remembering(source, target.run, target.errors):
        for at in range(cases):
            if at % 250 == 0:
                signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
            raw = source.case(random)
            found.cases += 1
            found.accepted += try_one(target, raw, found)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return found


def try_one(target: Target, raw: bytes, found: Found) -> bool:
    """Whether the target took the case; what it must not raise is noted."""
    try:
        target.run(raw)
    except target.errors:
        return False
    except Exception as exc:  # noqa: BLE001  # that is what is looked for
        found.failures.append((raw.hex(), repr(exc)[:300]))
        return False
    return True


@contextmanager
def watched() -> Iterator[None]:
    """Within it, a hang is an error of the case."""

    def hang(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, hang)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def limit_memory() -> None:
    """From here on an allocation without end is an error of the case; for processes that do nothing else."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
