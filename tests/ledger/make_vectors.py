"""Writes tests/vectors/entry-v1.json: `python -m tests.ledger.make_vectors`.

Each vector is the hex of an encoded entry and either its id or the one word for the reason it must be refused. Keys are
Ed25519 seeds 1, 2, 3 (32 bytes, big-endian), so every implementation can make the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ledger.entry import (
    Accept,
    Body,
    Entry,
    Header,
    Jury,
    Payment,
    Receipt,
    Relayed,
    Release,
    Settle,
    body_hash,
    sign_entry,
)
from tests.ledger.parties import LATER_MS, NOW_MS, Key, certificate, job_id, plain_offer
from wire import codec

FILE = Path(__file__).parent.parent / "vectors" / "entry-v1.json"
PAYER, WORKER, JUROR = Key(1), Key(2), Key(3)


def good() -> dict[str, Entry]:
    """One valid entry of each kind, linked to one another as one job."""
    job = job_id(1)
    offer = sign_entry(PAYER, 0, bytes(32), plain_offer(job, WORKER.peer, 1000, 10, 1, LATER_MS), NOW_MS)
    accept = sign_entry(WORKER, 0, bytes(32), Accept(job, offer.id, PAYER.peer), NOW_MS + 1)
    payments = [Payment(WORKER.peer, 1000), Payment(JUROR.peer, 10)]
    raw = codec.encode(certificate(job, "accept", [JUROR.peer]))
    receipt = sign_entry(PAYER, 1, offer.id, Receipt(job, offer.id, accept.id, "accept", [raw], payments), NOW_MS + 2)
    settle = sign_entry(WORKER, 1, accept.id, Settle(job, receipt.id, PAYER.peer, 1000), NOW_MS + 3)
    release = sign_entry(PAYER, 2, receipt.id, Release(job, offer.id, "cancelled"), NOW_MS + 4)
    relayed = sign_entry(PAYER, 3, release.id, Relayed(job_id(2), WORKER.peer, 0, 16, 20), NOW_MS + 5)
    return {
        "offer": offer,
        "accept": accept,
        "receipt": receipt,
        "settle": settle,
        "release": release,
        "relayed": relayed,
    }


def _resigned(header: Header, body: Body) -> bytes:
    return codec.encode(Entry(header, PAYER.sign(header.id), body))


def bad() -> dict[str, tuple[bytes, str]]:
    """Encodings that must be refused, with the reason."""
    offer = good()["offer"]
    raw, header = codec.encode(offer), offer.header
    replace, job = msgspec.structs.replace, job_id(1)

    def with_body(**changes: Any) -> bytes:
        body = replace(offer.body, **changes)
        return _resigned(replace(header, body_hash=body_hash(body)), body)

    def with_relayed(**changes: Any) -> bytes:
        body = replace(good()["relayed"].body, **changes)
        return _resigned(replace(header, body_hash=body_hash(body)), body)

    return {
        "empty": (b"", "malformed"),
        "truncated": (raw[:-1], "malformed"),
        "trailing byte": (raw + b"\x00", "malformed"),
        "version as two bytes": (raw.replace(b"\x93\x96\x01", b"\x93\x96\xcc\x01", 1), "malformed"),
        "unknown kind": (raw.replace(b"\xa5offer", b"\xa5offar", 1), "malformed"),
        "short author": (_resigned(replace(header, author=header.author[:31]), offer.body), "malformed"),
        "short signature": (codec.encode(replace(offer, signature=bytes(63))), "malformed"),
        "negative height": (_resigned(replace(header, height=-1), offer.body), "malformed"),
        "negative price": (with_body(price_micro=-1), "malformed"),
        "price past 2**53": (with_body(price_micro=2**53 + 1), "malformed"),
        "price as float": (with_body(price_micro=1.0), "malformed"),
        "22 jurors": (with_body(juries=[Jury(job, 22, 12)]), "malformed"),
        "257 juries": (with_body(juries=[Jury(job, 1, 1)] * 257), "malformed"),
        "65 audits": (with_body(audits=65), "malformed"),
        "unknown rule": (with_body(rule="two"), "malformed"),
        "short job of a jury": (with_body(juries=[Jury(job[:31], 1, 1)]), "malformed"),
        "nothing relayed": (with_relayed(mib=0), "malformed"),
        "more relayed than one entry holds": (with_relayed(mib=1025), "malformed"),
        "relayed for nothing": (with_relayed(price_micro=0), "malformed"),
        "relayed at an absurd price": (with_relayed(price_micro=1001), "malformed"),
        "version 2": (_resigned(replace(header, version=2), offer.body), "version"),
        "another body": (codec.encode(replace(offer, body=replace(offer.body, price_micro=1001))), "body_hash"),
        "zero signature": (codec.encode(replace(offer, signature=bytes(64))), "signature"),
        "another signer": (codec.encode(replace(offer, signature=WORKER.sign(offer.id))), "signature"),
        "signature of the header itself": (
            codec.encode(replace(offer, signature=PAYER.sign(codec.encode(header)))),
            "signature",
        ),
        "time changed after signing": (
            codec.encode(replace(offer, header=replace(header, time_ms=NOW_MS + 1))),
            "signature",
        ),
        "small-order author": (
            codec.encode(replace(offer, header=replace(header, author=bytes([1]) + bytes(31)))),
            "signature",
        ),
    }


def vectors() -> list[dict[str, str]]:
    """All vectors, in file order."""
    rows = [{"name": name, "hex": codec.encode(e).hex(), "expect": e.id.hex()} for name, e in good().items()]
    return rows + [{"name": name, "hex": raw.hex(), "expect": why} for name, (raw, why) in bad().items()]


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
