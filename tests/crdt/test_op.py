"""The format of an operation, held to vectors."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.limits import KEY_BYTES_MAX, OP_BYTES_MAX, VALUE_BYTES_MAX
from crdt.namespace import Namespace
from crdt.op import MapSet, parse
from tests.crdt.helpers import Key, signed
from tests.crdt.op_vectors import PATH, body, document, seal
from wire import codec
from wire.envelope import Envelope
from wire.errors import LocalError, Malformed

VECTORS: list[dict[str, str]] = json.loads(PATH.read_text())["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, str]) -> None:
    """Each vector gives its id, or is refused for its one reason."""
    raw = bytes.fromhex(vector["hex"])
    if "refused" in vector:
        with pytest.raises(Malformed, match=vector["refused"]):
            parse(raw).verify()
    else:
        assert parse(raw).verify().id.hex() == vector["id"]


def test_the_vectors_are_those_that_the_script_writes() -> None:
    assert json.loads(PATH.read_text()) == document()


def test_the_id_leaves_the_signature_out() -> None:
    one = parse(signed(Key("ann"), MapSet("k", b"v")).raw)
    resigned = replace(one, envelope=Envelope("crdt.op", one.envelope.author, one.envelope.body, b"s" * 64))
    assert parse(codec.encode(resigned.envelope)).id == one.id


def test_the_longest_value_and_key_fit_into_an_operation() -> None:
    one = signed(Key("ann"), MapSet("k" * KEY_BYTES_MAX, bytes(VALUE_BYTES_MAX)))
    assert len(one.raw) < OP_BYTES_MAX


def test_a_longer_value_does_not() -> None:
    with pytest.raises(Malformed, match="length"):
        parse(seal(codec.encode(body(["map.set", "k", bytes(VALUE_BYTES_MAX + 1)]))))


@given(raw=st.binary(max_size=200), at=st.integers(0, 200), good=st.sampled_from([bytes.fromhex(VECTORS[0]["hex"])]))
def test_any_bytes_are_decoded_or_refused(raw: bytes, at: int, good: bytes) -> None:
    """Whatever arrives, alone or spliced into an operation, the only error is `Malformed`."""
    for bad in (raw, good[:at] + raw, good[:at] + raw + good[at + len(raw) :]):
        with suppress(Malformed):
            assert codec.encode(parse(bad).envelope) == bad


@pytest.mark.parametrize("name", ["", "Models", "1st", "a b", "x" * 33, "ä"])
def test_a_namespace_has_a_plain_name(name: str) -> None:
    with pytest.raises(LocalError):
        Namespace(name, "map")


def test_any_difference_of_rules_has_another_hash() -> None:
    base = Namespace("notes", "map")
    others = [
        Namespace("note", "map"),
        Namespace("notes", "set"),
        Namespace("notes", "map", "author-keyed"),
        Namespace("notes", "map", ops_max=1),
        Namespace("notes", "map", bytes_max=1),
    ]
    assert len({each.rules for each in [base, *others]}) == 6
