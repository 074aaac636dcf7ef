"""A WebSocket as bytes: what goes in at one end comes out at the other, however it is cut, and rules hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.libp2p.websocket import HANDSHAKE_BYTES_MAX, IDLE_FRAMES_MAX, MESSAGE_BYTES_MAX, WebSocketBytes
from node.libp2p.websocket import WebSocketViolation as Violation


def opened() -> tuple[WebSocketBytes, WebSocketBytes]:
    """A client and a server that are connected."""
    client, server = WebSocketBytes(client=True), WebSocketBytes(client=False)
    assert server.feed(client.ask("192.0.2.7:4002")) == ([], True)
    assert client.feed(server.answer()) == ([], False)
    assert client.opened
    assert server.opened
    return client, server


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, length: int | None = None) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes([0x80 | size])
    else:
        head = b"\xff" + size.to_bytes(8, "big") if size > 0xFFFF else b"\xfe" + size.to_bytes(2, "big")
    return bytes([opcode | (0x80 if final else 0)]) + head + bytes(4) + payload


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(1, 50), st.booleans())
def test_what_one_end_sends_the_other_reads(messages: list[bytes], step: int, upwards: bool) -> None:
    client, server = opened()
    one, other = (client, server) if upwards else (server, client)
    raw = b"".join(map(one.payload, messages))
    got = [piece for at in range(0, len(raw), step) for piece in other.feed(raw[at : at + step])[0]]
    assert b"".join(got) == b"".join(messages)


def test_what_comes_with_the_consent_is_not_lost() -> None:
    client, server = WebSocketBytes(client=True), WebSocketBytes(client=False)
    server.feed(client.ask("192.0.2.7:4002"))
    assert client.feed(server.answer() + server.payload(b"early")) == ([b"early"], False)


def test_fragments_are_one_stream_with_a_ping_between_them() -> None:
    _, server = opened()
    raw = frame(2, b"a", final=False) + frame(0, b"b", final=False) + frame(9, b"well?") + frame(0, b"c")
    assert b"".join(server.feed(raw)[0]) == b"abc"
    assert server.pong == b"\x8a\x05well?"


def test_a_frame_of_any_length_is_handed_on_as_it_comes() -> None:
    _, server = opened()
    payload, _ = server.feed(frame(2, b"begin", length=1 << 62))
    assert payload == [b"begin"]
    assert server.feed(b"more")[0] == [b"more"]


def test_a_message_ends_somewhere() -> None:
    _, server = opened()
    server.feed(frame(2, length=1 << 62))
    piece = bytes(1 << 20)
    for _ in range(MESSAGE_BYTES_MAX // len(piece)):
        server.feed(piece)
    with pytest.raises(Violation, match="too long"):
        server.feed(b"x")


def test_frames_without_payload_are_not_endless() -> None:
    _, server = opened()
    for _ in range(IDLE_FRAMES_MAX):
        server.feed(frame(9))
    server.feed(frame(2, b"x"))
    server.feed(frame(9) * IDLE_FRAMES_MAX)
    with pytest.raises(Violation, match="without payload"):
        server.feed(frame(10))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (frame(1, b"text"), "text"),
        (b"\xc2\x81\x00\x00\x00\x00x", "RSV|rsv|Reserved|reserved"),
        (b"\x82\x01x", "unmasked"),
        (frame(3), "opcode"),
        (frame(0, b"x"), "CONTINUATION"),
        (frame(9, final=False), "control"),
        (frame(9, b"x" * 126), "[Cc]ontrol"),
    ],
    ids=["text", "compressed", "unmasked", "unknown", "continues nothing", "half a ping", "long ping"],
)
def test_a_broken_rule_is_a_violation(raw: bytes, why: str) -> None:
    _, server = opened()
    with pytest.raises(Violation, match=why):
        server.feed(raw)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"\x13/multistream/1.0.0\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n\r\n",
    ],
    ids=["plain", "post", "multistream", "tls", "old version"],
)
def test_what_is_no_request_is_refused_politely(request_: bytes) -> None:
    server = WebSocketBytes(client=False)
    with pytest.raises(Violation):
        server.feed(request_)
    said = server.refusal(400)
    assert said == b"" or said.startswith(b"HTTP/1.1 400")
    assert not server.opened


@pytest.mark.parametrize("line", [b"X: " + b"y" * 1000 + b"\r\n", b"y" * 1000], ids=["headers", "no end of line"])
def test_a_handshake_ends_somewhere(line: bytes) -> None:
    server = WebSocketBytes(client=False)
    server.feed(b"GET / HTTP/1.1\r\n")

    def go_on() -> None:
        for _ in range(HANDSHAKE_BYTES_MAX // len(line) + 1):
            server.feed(line)

    with pytest.raises(Violation):
        go_on()


def test_a_server_that_refuses_is_said_so() -> None:
    client = WebSocketBytes(client=True)
    client.ask("192.0.2.7:4002")
    with pytest.raises(Violation, match="403"):
        client.feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def test_a_goodbye_ends_both_ways() -> None:
    client, server = opened()
    assert server.feed(client.goodbye()) == ([], False)
    assert server.ended
    assert client.payload(b"x") == b""
    assert client.feed(server.goodbye()) == ([], False)
    assert client.ended
    assert server.goodbye() == client.goodbye() == b""
