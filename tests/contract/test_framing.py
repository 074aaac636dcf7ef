"""Frames in a byte stream, and the other pure parts of the real transport."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.address_book import PEERS_KNOWN_MAX, AddressBook
from node.framing import FrameReader, encode_frame
from wire.errors import FrameTooLarge
from wire.limits import ADDRESSES_PER_PEER_MAX, FRAME_BYTES_MAX
from wire.peer import PeerId, to_text

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "transport-frames-v1.json").read_text())


def cut(chunks: list[bytes]) -> list[bytes]:
    """The frames that a reader finds in chunks."""
    reader = FrameReader()
    frames = []
    for chunk in chunks:
        reader.feed(chunk)
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
    return frames


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_frame_vector(vector: dict[str, Any]) -> None:
    """Each vector gives the frames in a stream, or says why the stream ends."""
    stream = bytes.fromhex(vector["stream"])
    if vector["expect"] == "too large":
        with pytest.raises(FrameTooLarge):
            cut([stream])
    else:
        assert cut([stream]) == [bytes.fromhex(frame) for frame in vector["expect"]]


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_frames_survive_any_cutting_of_the_stream(frames: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(map(encode_frame, frames))
    chunks, at, turn = [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        chunks.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert cut(chunks) == frames


@settings(max_examples=50)
@given(st.integers(FRAME_BYTES_MAX + 1, 2**32 - 1))
def test_a_length_past_the_limit_is_refused_by_its_header(size: int) -> None:
    reader = FrameReader()
    reader.feed(encode_frame(b"before") + size.to_bytes(4, "big"))
    assert reader.next_frame() == b"before"
    with pytest.raises(FrameTooLarge):
        reader.next_frame()


def test_the_longest_frame_passes_and_one_byte_more_does_not() -> None:
    assert cut([encode_frame(bytes(FRAME_BYTES_MAX))]) == [bytes(FRAME_BYTES_MAX)]
    with pytest.raises(FrameTooLarge):
        encode_frame(bytes(FRAME_BYTES_MAX + 1))


# ---- the address book


def peer(n: int) -> PeerId:
    """Some peer."""
    return PeerId(n.to_bytes(32, "big"))


def test_addresses_are_few_and_the_newest_come_first() -> None:
    book = AddressBook()
    for port in range(1, 30):
        book.learn(peer(1), [f"/ip4/127.0.0.1/tcp/{port}"])
    kept = [str(address) for address in book.addresses(peer(1))]
    assert kept == [f"/ip4/127.0.0.1/tcp/{port}" for port in range(29, 29 - ADDRESSES_PER_PEER_MAX, -1)]


def test_the_peer_part_is_checked_and_dropped() -> None:
    book = AddressBook()
    book.learn(peer(1), [f"/ip6/::1/tcp/4001/p2p/{to_text(peer(1))}", f"/ip4/1.2.3.4/tcp/1/p2p/{to_text(peer(2))}"])
    assert [str(address) for address in book.addresses(peer(1))] == ["/ip6/::1/tcp/4001"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "nonsense",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/udp/1/quic-v1",
        "/ip4/127.0.0.1/tcp/1/http",
        "/ip4/300.0.0.1/tcp/1",
        "/ip4/127.0.0.1/tcp/99999",
        "/unix/tmp/socket",
        "/ip4/127.0.0.1/tcp/1/p2p/nobody",
        "/dns4/" + "a" * 300 + "/tcp/1",
        "/ip4/127.0.0.1/tcp/1\x00",
        "\udcff",
    ],
)
def test_what_cannot_be_dialled_is_not_learned(text: str) -> None:
    book = AddressBook()
    book.learn(peer(1), [text])
    assert book.addresses(peer(1)) == []


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_no_text_breaks_the_book(text: str) -> None:
    book = AddressBook()
    book.learn(peer(1), [text, "/ip4/127.0.0.1/" + text, "/" + text])
    assert len(book.addresses(peer(1))) <= 3


def test_the_least_recently_learned_peer_is_forgotten() -> None:
    book = AddressBook()
    for n in range(PEERS_KNOWN_MAX + 1):
        book.learn(peer(n), ["/ip4/127.0.0.1/tcp/1"])
    assert book.addresses(peer(0)) == []
    assert len(book.addresses(peer(1))) == 1
    assert len(book.addresses(peer(PEERS_KNOWN_MAX))) == 1
