"""Frames of light peers: read as the vectors say, and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from node.light.messages import BODY_BYTES_MAX, REASON_CHARS_MAX, Submit, decode_reply, decode_request, refused
from tests.node.light_vectors import ASK, fields, load, make
from wire import codec
from wire.errors import Malformed


@pytest.mark.parametrize("vector", load(), ids=lambda vector: vector["name"])
def test_each_vector_is_read_as_it_says(vector: dict[str, Any]) -> None:
    decode: Any = decode_request if vector["from"] == "light peer" else decode_reply
    raw = bytes.fromhex(vector["hex"])
    if vector["expect"] == "malformed":
        with pytest.raises(Malformed):
            decode(raw)
    else:
        assert fields(decode(raw)) == vector["expect"]
        assert codec.encode(decode(raw)) == raw


def test_the_vectors_are_those_of_the_code() -> None:
    assert load() == make()["vectors"]


def test_a_job_has_a_longest_body() -> None:
    assert decode_request(codec.encode(Submit(ASK, "x" * BODY_BYTES_MAX)))
    with pytest.raises(Malformed, match="goes on"):
        decode_request(codec.encode(Submit(ASK, "x" * (BODY_BYTES_MAX + 1))))


def test_a_reason_has_a_longest_text() -> None:
    assert len(refused("failed", "x" * 10_000).reason) == REASON_CHARS_MAX
