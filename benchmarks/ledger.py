"""Durable appends and verified entries per second: `python -m benchmarks.ledger [--quick]`.

Prints one JSON line per figure, in the form all benchmarks share. No peer is run: the peer fields are null.

    ledger.appends          offers through an open ledger: checked, signed, committed with synchronous=FULL, 256 waiting
    ledger.appends.single   the same, one at a time: the disk's own rate
    ledger.verify           entries read from disk and checked again: links, hashes, signatures, rules
    ledger.fork_proof       bytes of an encoded fork proof
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import trio
from nacl.signing import SigningKey

from benchmarks.line import show
from ledger.entry import Offer, majority, sign_entry
from ledger.fork import prove
from ledger.ports import Finding
from ledger.service import Ledger, open_ledger
from wire import codec
from wire.hashing import digest
from wire.job import Certificate
from wire.peer import PeerId

ENTRIES = 20_000
WAITING = 256
FAR_MS = 2**52


class Key:
    """A signer."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.peer = PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


def no_certificates(certificate: Certificate, *, quorum: int) -> Finding:
    """Offers carry no certificate."""
    return "unknown"


def _clock_ms() -> int:
    return int(time.time() * 1000)


def _offer(number: int) -> Offer:
    job = digest("bench.job", number.to_bytes(8, "big"))
    return Offer(job, Key(bytes(32)).peer, 1, 0, "one", majority(job, 1), 0, FAR_MS)


async def _append(ledger: Ledger, offers: list[Offer], waiting: int) -> float:
    """Appends per second with so many callers waiting at a time."""
    queue = iter(offers)

    async def caller() -> None:
        for offer in queue:
            await ledger.append([offer])

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(waiting):
            nursery.start_soon(caller)
    return len(offers) / (time.perf_counter() - start)


async def main(entries: int) -> None:
    """Run all figures with so many entries."""
    key = Key(bytes([1]) * 32)
    offers = [_offer(number) for number in range(entries + entries // 40)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        async with open_ledger(path, key, None, _clock_ms, no_certificates, allowance_micro=2**50) as ledger:
            rate = await _append(ledger, offers[:entries], WAITING)
            note = f"{entries} offers, {WAITING} waiting, WAL + FULL"
            show("ledger.appends", rate, "1/s", better="higher", note=note)
            single = await _append(ledger, offers[entries:], 1)
            note = f"{entries // 40} offers one by one, WAL + FULL"
            show("ledger.appends.single", single, "1/s", better="higher", note=note)
            start = time.perf_counter()
            audit = await ledger.audit()
            rate = audit.entries / (time.perf_counter() - start)
            assert audit.ok, audit.issues
            note = f"audit of {audit.entries} entries from disk, one core"
            show("ledger.verify", rate, "1/s", better="higher", note=note)
    proof = prove(*(sign_entry(key, 0, bytes(32), _offer(number), 0) for number in (1, 2)))
    show("ledger.fork_proof", len(codec.encode(proof)), "B", better="lower", note="one encoded proof")


if __name__ == "__main__":
    trio.run(main, ENTRIES // 5 if "--quick" in sys.argv[1:] else ENTRIES)
