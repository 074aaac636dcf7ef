"""Writes tests/vectors/dht-record-v1.json: `python -m tests.dht.make_vectors`. Each vector has one reason to fail."""

from __future__ import annotations

import json
from pathlib import Path

from dht import relay
from dht.limits import CLOCK_SKEW_MS, PROVIDER_LIFE_MS, RECORD_BODY_BYTES_MAX, VALUE_LIFE_MS
from dht.provider import NAMESPACE, RULES, key_of
from dht.record import DOMAIN, Record, validate
from tests.dht.coreworld import MODEL, START_MS, an_ad, identity
from wire import cid, codec
from wire.envelope import Envelope, seal
from wire.errors import Malformed
from wire.peer import to_text

FILE = Path(__file__).parents[1] / "vectors" / "dht-record-v1.json"
AD = codec.encode(an_ad())
KEY = bytes(range(32))


def outcome(raw: bytes, now_ms: int) -> str:
    """What `validate` says: the record's id in hex, or the class of the error and its first word or two."""
    try:
        return validate(codec.decode(Envelope, raw), RULES, now_ms).id.hex()
    except Malformed as exc:
        return f"{type(exc).__name__}: {exc}"


def value(**changes: object) -> Record:
    """An opaque record, changed."""
    fields: dict[str, object] = {
        "namespace": "value", "key": KEY, "seq": 1, "issued_ms": START_MS,
        "expires_ms": START_MS + 60_000, "body": b"hello",
    }  # fmt: skip
    return Record(**{**fields, **changes})  # type: ignore[arg-type]  # wrong values are what some vectors are for


def ad(body: bytes = AD, life_ms: int = 600_000, model: str = MODEL) -> Record:
    """A record in namespace "provider"."""
    return Record(NAMESPACE, key_of(model), 1, START_MS, START_MS + life_ms, body)


def relay_ad(body: bytes | None = None, key: bytes = relay.KEY) -> Record:
    """A record in namespace "relay"."""
    peer = to_text(identity(1, "vector").peer)
    good = codec.encode(relay.RelayAd([f"/ip4/203.0.113.7/tcp/4001/p2p/{peer}"], 0.25))
    return Record(relay.NAMESPACE, key, 1, START_MS, START_MS + 600_000, good if body is None else body)


def cases() -> dict[str, tuple[Envelope, int]]:
    """Envelope and reader's clock, by name."""
    signer = identity(1, "vector")
    good = seal(signer, DOMAIN, value())
    flipped = bytes([good.signature[0] ^ 1]) + good.signature[1:]
    records = {
        "good value": value(),
        "good value of longest body and life": value(
            body=bytes(RECORD_BODY_BYTES_MAX), expires_ms=START_MS + VALUE_LIFE_MS
        ),
        "good provider ad": ad(),
        "unknown namespace": value(namespace="elsewhere"),
        "short key": value(key=KEY[:31]),
        "negative seq": value(seq=-1),
        "expires when issued": value(expires_ms=START_MS),
        "lives a millisecond too long": value(expires_ms=START_MS + VALUE_LIFE_MS + 1),
        "ad lives a millisecond too long": ad(life_ms=PROVIDER_LIFE_MS + 1),
        "body a byte too long": value(body=bytes(RECORD_BODY_BYTES_MAX + 1)),
        "issued too far in the future": value(
            issued_ms=START_MS + CLOCK_SKEW_MS + 1, expires_ms=START_MS + CLOCK_SKEW_MS + 2
        ),
        "ad under another model's key": ad(model=cid.of(b"another model")),
        "ad that is no ad": ad(body=b"\x90"),
        "ad with trailing byte": ad(body=AD + b"\xc0"),
        "good relay ad": relay_ad(),
        "relay ad under another key": relay_ad(key=KEY),
        "relay ad without an address": relay_ad(codec.encode(relay.RelayAd([], 0.0))),
        "relay ad with another's address": relay_ad(
            codec.encode(relay.RelayAd([f"/ip4/203.0.113.7/tcp/4001/p2p/{to_text(identity(2, 'vector').peer)}"], 0.0))
        ),
        "relay ad with a load past one": relay_ad(
            codec.encode(relay.RelayAd([f"/ip4/203.0.113.7/tcp/4001/p2p/{to_text(signer.peer)}"], 1.5))
        ),
    }
    made = {name: (seal(signer, DOMAIN, record), START_MS) for name, record in records.items()}
    made["good until its last millisecond"] = (good, START_MS + 59_999)
    made["expired"] = (good, START_MS + 60_000)
    made["signature flipped"] = (Envelope(DOMAIN, good.author, good.body, flipped), START_MS)
    made["author replaced"] = (Envelope(DOMAIN, identity(2, "vector").peer, good.body, good.signature), START_MS)
    made["signed for another domain"] = (seal(signer, "job", value()), START_MS)
    return made


def main() -> None:
    """Write the file."""
    rows = [
        {
            "name": name,
            "now_ms": now_ms,
            "hex": codec.encode(envelope).hex(),
            "expect": outcome(codec.encode(envelope), now_ms),
        }
        for name, (envelope, now_ms) in cases().items()
    ]
    FILE.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
