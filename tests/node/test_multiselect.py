"""multistream-select: agreement in one round trip, whatever the cuts; bounded, and strict about what is no line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.libp2p.multiselect import (
    HEADER,
    NEGOTIATION_BYTES_MAX,
    PROPOSALS_MAX,
    LineReader,
    Proposer,
    ProtocolRefused,
    Responder,
    encode,
    proposal,
)
from tests.node.cutting import cuts
from wire.errors import Malformed

SIZES = st.lists(st.integers(1, 30), min_size=1)
NAMES = st.text(min_size=1, max_size=60).filter(lambda name: name not in ("ls", "na"))


def responder(*names: str) -> Responder:
    """One that serves `names`."""
    return Responder(names, names)


@given(NAMES, st.binary(max_size=100), st.binary(max_size=100), SIZES)
def test_both_sides_agree_and_lose_no_byte(name: str, question: bytes, answer: bytes, sizes: list[int]) -> None:
    there, said, after = responder(name), b"", b""
    for chunk in cuts(proposal(name) + question, sizes):
        if there.agreed is None:
            said += there.feed(chunk)
            after += there.rest() if there.agreed is not None else b""
        else:
            after += chunk
    assert (there.agreed, after) == (name, question)
    here, got = Proposer(name), b""
    agreed = False
    for chunk in cuts(said + answer, sizes):
        if agreed:
            got += chunk
        elif (rest := here.feed(chunk)) is not None:
            agreed, got = True, rest
    assert agreed
    assert got == answer


def test_a_refusal_is_a_refusal() -> None:
    there = responder("/a/1")
    said = there.feed(proposal("/b/1"))
    assert said == encode(HEADER) + encode("na")
    with pytest.raises(ProtocolRefused, match="/b/1"):
        Proposer("/b/1").feed(said)
    assert there.feed(encode("/a/1")) == encode("/a/1")
    assert there.agreed == "/a/1"


def test_the_listing_names_what_is_served_in_one_bounded_message() -> None:
    names = [f"/quorate/{n}/1" for n in range(200)]
    lines = LineReader()
    lines.feed(responder(*names).feed(encode(HEADER) + encode("ls")))
    assert lines.line() == HEADER
    listing = lines.line()
    assert listing is not None
    assert listing.encode().endswith(b"\n")
    assert len(listing) < NEGOTIATION_BYTES_MAX
    assert listing.split() == names[: len(listing.split())]


def test_who_proposes_for_ever_is_cut_off() -> None:
    there = responder("/a/1")
    there.feed(encode(HEADER) + encode("/b/1") * PROPOSALS_MAX)
    with pytest.raises(Malformed, match="proposals"):
        there.feed(encode("/a/1"))


@pytest.mark.parametrize(
    "raw",
    [b"\x00", b"\x03abc", b"\x02\xff\n", b"\x81\x08", b"\xff\xff\x01", b"\x80\x80\x80\x80\x20"],
    ids=["nil", "no newline", "not utf-8", "1,025 bytes", "32,767 bytes", "8 GiB"],
)
def test_what_is_no_line_is_refused(raw: bytes) -> None:
    lines = LineReader()
    lines.feed(raw)
    with pytest.raises(Malformed):
        lines.line()


def test_the_longest_line_passes() -> None:
    name = "/" + "x" * (NEGOTIATION_BYTES_MAX - 2)
    lines = LineReader()
    lines.feed(encode(name))
    assert lines.line() == name


@pytest.mark.parametrize("greeting", ["/multistream/2.0.0", "hello", "na"])
def test_another_greeting_is_refused_by_both_sides(greeting: str) -> None:
    with pytest.raises(Malformed):
        responder("/a/1").feed(encode(greeting))
    with pytest.raises(Malformed):
        Proposer("/a/1").feed(encode(greeting))


@given(st.binary(max_size=300), SIZES)
def test_garbage_ends_in_an_error_or_waits_whatever_the_cuts(raw: bytes, sizes: list[int]) -> None:
    def outcome(chunks: list[bytes]) -> str:
        there = responder("/a/1")
        try:
            return b"".join(map(there.feed, chunks)).hex()
        except Malformed as exc:
            return str(exc)

    assert outcome(cuts(raw, sizes)) == outcome([raw])
