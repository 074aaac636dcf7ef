"""Multicast DNS: what is written is read, what strangers send is bounded, and only the sender's own addresses count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.doors import dns
from node.doors.mdns import SERVICE, networks, told
from wire.errors import Malformed
from wire.identity import Identity
from wire.limits import ADDRESSES_PER_PEER_MAX
from wire.peer import to_text

ME, OTHER = Identity(b"m" * 32).peer, Identity(b"o" * 32).peer
HERE = f"/ip4/10.0.0.3/tcp/4001/p2p/{to_text(OTHER)}"
INSTANCE = f"abc.{SERVICE}"


def said(*texts: str) -> bytes:
    """An answer with these strings."""
    return dns.answer(SERVICE, INSTANCE, [text.encode() for text in texts], 120)


def test_a_question_is_as_the_specification_has_it() -> None:
    raw = dns.query(SERVICE)
    assert raw.hex() == "000000000001000000000000" + b"\x04_p2p\x04_udp\x05local\x00\x00\x0c\x00\x01".hex()
    assert dns.parse(raw) == dns.Message(False, asked=(SERVICE,))


@given(st.lists(st.binary(max_size=255), min_size=1, max_size=8))
def test_an_answer_is_read_back(texts: list[bytes]) -> None:
    read = dns.parse(dns.answer(SERVICE, INSTANCE, texts, 120))
    assert read == dns.Message(True, pointers=((SERVICE, INSTANCE),), texts=((INSTANCE, tuple(texts)),))


def test_a_compressed_name_is_read_whatever_its_case() -> None:
    raw = bytes.fromhex("000084000000000100000000") + b"\x04_P2P\x04_udp\x05local\x00"
    raw += b"\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x06\x03ABC\xc0\x0c"
    assert dns.parse(raw).pointers == ((SERVICE, INSTANCE),)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(dns.MESSAGE_BYTES_MAX + 1),
        b"\0\0\0\0\xff\xff" + bytes(6),
        b"\0\0\0\0\0\1" + bytes(6) + b"\xc0\x0c\0\x0c\0\1",
        b"\0\0\0\0\0\1" + bytes(6) + b"\xc0\xff\0\x0c\0\1",
        b"\0\0\0\0\0\1" + bytes(6) + b"\x40a\0\0\x0c\0\1",
        b"\0\0\0\0\0\1" + bytes(6) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\x0c\0\1",
        b"\0\0\x84\0\0\0\0\1\0\0\0\0\0\0\x10\0\1\0\0\0\0\xff\xff",
        b"\0\0\x84\0\0\0\0\1\0\0\0\0\0\0\x10\0\1\0\0\0\0\0\2\xffa",
    ],
    ids=["empty", "giant", "65535 questions", "points at itself", "points forwards", "label", "name", "record", "text"],
)
def test_what_is_no_message_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        dns.parse(raw)


def test_only_the_senders_own_addresses_are_taken() -> None:
    elsewhere = HERE.replace("10.0.0.3", "10.0.0.9")
    name = HERE.replace("ip4/10.0.0.3", "dns4/evil.example")
    ours = f"/ip4/10.0.0.3/tcp/4001/p2p/{to_text(ME)}"
    raw = said(*(f"dnsaddr={text}" for text in (HERE, elsewhere, name, ours, "/ip4/10.0.0.3/tcp/4001", "x")), "y=z")
    assert told(raw, "10.0.0.3", ME) == {OTHER: [HERE]}
    assert told(raw, "10.0.0.4", ME) == {}


def test_a_websocket_counts_too_and_there_is_a_bound() -> None:
    many = [HERE.replace("4001", str(port)).replace("/p2p", "/ws/p2p") for port in range(1, 40)]
    assert told(said(*(f"dnsaddr={text}" for text in many)), "10.0.0.3", ME) == {OTHER: many[:ADDRESSES_PER_PEER_MAX]}


def test_a_question_or_another_service_tells_of_nobody() -> None:
    assert told(dns.query(SERVICE), "10.0.0.3", ME) == {}
    raw = dns.answer("_x._udp.local", "abc._x._udp.local", [f"dnsaddr={HERE}".encode()], 120)
    assert told(raw, "10.0.0.3", ME) == {}


def test_only_private_networks_are_spoken_to() -> None:
    listening = [f"/ip4/{ip}/tcp/4001" for ip in ("127.0.0.1", "203.0.113.1", "10.0.0.3", "192.168.1.2", "10.0.0.3")]
    assert networks([*listening, "/ip6/fd00::1/tcp/4001", "/ip4/10.9.9.9/tcp/4002/ws"]) == [
        "10.0.0.3",
        "192.168.1.2",
        "10.9.9.9",
    ]
