"""Entries and fork proofs as bytes."""

from __future__ import annotations

import hashlib
import json
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import fork
from ledger.entry import (
    ENTRY_BYTES_MAX,
    Body,
    Entry,
    InvalidEntry,
    Payment,
    Receipt,
    check_entry,
    decode_entry,
    outcome,
    sign_entry,
)
from ledger.fork import ForkProof, SignedHeader
from tests.ledger.make_vectors import FILE, PAYER, good, vectors
from tests.ledger.parties import LATER_MS, NOW_MS, Key, certificate, job_id, plain_offer
from wire import codec
from wire.errors import LocalError, Malformed
from wire.limits import JURY_MAX

VECTORS = json.loads(FILE.read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_entry_vector(vector: dict[str, str]) -> None:
    """Each vector names its id, or the one reason why it must be refused."""
    assert outcome(bytes.fromhex(vector["hex"])) == vector["expect"]


def test_the_vector_file_is_what_its_generator_writes() -> None:
    assert vectors() == VECTORS


def test_the_id_is_the_tagged_hash_of_the_header_as_the_specification_writes_it() -> None:
    """Worked by hand, from the bytes: an entry is [header, signature, body], the header has six fields."""
    offer = good()["offer"]
    raw = codec.encode(offer)
    header = raw[1 : raw.index(b"\xc4\x40")]
    tag = hashlib.sha256(b"quorate/1/entry").digest()
    assert header.startswith(b"\x96\x01\xc4\x20" + PAYER.peer)
    assert hashlib.sha256(tag + tag + header).digest() == offer.id


def test_every_kind_of_body_has_a_vector() -> None:
    assert {type(entry.body) for entry in good().values()} == set(get_args(Body))


def _offer(height: int, price: int, key: Key = PAYER) -> Entry:
    return sign_entry(key, height, bytes(32), plain_offer(job_id(1), Key(2).peer, price, 0, 1, LATER_MS), NOW_MS)


@given(data=st.data())
def test_no_changed_bit_survives(data: st.DataObject) -> None:
    """Flip any bit of any kind of entry: refused, or (never) the same id."""
    entry = data.draw(st.sampled_from(sorted(good().values(), key=lambda entry: entry.id)))
    raw = bytearray(codec.encode(entry))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    assert outcome(bytes(raw)) in {"malformed", "version", "body_hash", "signature"}


@given(st.binary(max_size=400))
def test_any_bytes_are_answered_with_a_typed_refusal(raw: bytes) -> None:
    assert outcome(raw) == "malformed"


def test_an_oversized_entry_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(Malformed, match="bytes, at most"):
        decode_entry(codec.encode(_offer(0, 1)) + bytes(ENTRY_BYTES_MAX))
    with pytest.raises(LocalError):
        sign_entry(PAYER, 0, bytes(32), Receipt(job_id(1), job_id(2), job_id(3), "accept", [bytes(8193)], []), 0)


def test_the_largest_jury_fits_into_an_entry() -> None:
    jury = [Key(100 + number).peer for number in range(JURY_MAX)]
    raw = codec.encode(certificate(job_id(1), "accept", jury)) + bytes(64)  # a BLS signature is longer than our hash
    payments = [Payment(peer, 2**53) for peer in jury]
    entry = sign_entry(PAYER, 0, bytes(32), Receipt(job_id(1), job_id(2), job_id(3), "accept", [raw], payments), 0)
    assert len(codec.encode(entry)) < 4096


def test_two_headers_at_one_height_prove_a_fork_in_about_350_bytes() -> None:
    one, other = _offer(7, 1), _offer(7, 2)
    proof = fork.prove(one, other)
    assert proof is not None
    assert proof == fork.prove(other, one)
    assert fork.check(proof) == PAYER.peer
    assert 300 < len(codec.encode(proof)) < 400


def test_signing_again_is_no_fork() -> None:
    """A second, different, valid-looking signature of one header leaves the id alone."""
    entry = _offer(7, 1)
    again = msgspec.structs.replace(entry, signature=bytes(64))
    assert again.id == entry.id
    assert fork.prove(entry, again) is None
    assert fork.prove(entry, entry) is None
    assert fork.prove(entry, _offer(8, 1)) is None
    assert fork.prove(entry, _offer(7, 1, Key(2))) is None


def test_what_proves_no_fork_is_refused() -> None:
    def signed(entry: Entry) -> SignedHeader:
        return SignedHeader(entry.header, entry.signature)

    one, other = sorted((_offer(7, 1), _offer(7, 2)), key=lambda entry: entry.id)
    refused = {
        "same": (ForkProof(signed(one), signed(one)), "fork"),
        "order": (ForkProof(signed(other), signed(one)), "fork"),
        "height": (ForkProof(signed(one), signed(_offer(8, 1))), "fork"),
        "author": (ForkProof(signed(one), signed(_offer(7, 1, Key(2)))), "fork"),
        "signature": (ForkProof(signed(one), SignedHeader(other.header, one.signature)), "signature"),
        "first signature": (ForkProof(SignedHeader(one.header, bytes(64)), signed(other)), "signature"),
    }
    for name, (proof, code) in refused.items():
        with pytest.raises(InvalidEntry) as caught:
            fork.check(proof)
        assert (name, caught.value.code) == (name, code)


def test_a_good_entry_passes() -> None:
    for entry in good().values():
        check_entry(decode_entry(codec.encode(entry)))
