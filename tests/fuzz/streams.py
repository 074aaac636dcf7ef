"""Targets that read a byte stream of the transport: Noise messages, Yamux frames, negotiation lines, channel frames.

A case is a conversation that could be, as a list of units (frames, messages, lines), of which some are dropped,
doubled, swapped, scribbled on or cut short. What is read is bounded whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from unittest.mock import patch

from node.framing import FrameAssembler, FrameReader, encode_frame
from node.libp2p.multiselect import HEADER, NEGOTIATION_BYTES_MAX, Proposer, Responder, encode
from node.libp2p.noise_frames import NoiseOpener, NoiseSealer
from node.libp2p.websocket import HANDSHAKE_BYTES_MAX, WebSocketBytes
from node.libp2p.yamux import YamuxConnection
from node.libp2p.yamux_frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, frame_header
from node.libp2p.yamux_state import HELD_BYTES_MAX, STREAMS_IN_ALL_MAX
from node.reach.circuit_messages import MESSAGE_BYTES_MAX, HolePunch, Hop, Kind, Limit, Reservation, Stop
from node.reach.protobuf import Delimited
from tests.fuzz.targets import TARGETS, Target
from wire.errors import FrameTooLarge, Malformed, Unreachable

KEY = bytes(range(32))
NONCE = patch("wsproto.handshake.generate_nonce", return_value=b"AQIDBAUGBwgJCgsMDQ4PEA==")
"""A request that is the same every time, so that the answer to it is one."""
SERVED = ("/quorate/rpc/1", "/ipfs/ping/1.0.0")


class Conversations:
    """Cases from lists of units."""

    def __init__(self, *valid: Sequence[bytes]) -> None:
        self._valid = valid

    def valid(self) -> list[bytes]:
        """The conversations that it starts from."""
        return [b"".join(units) for units in self._valid]

    def case(self, random: Random) -> bytes:
        """One conversation, changed in up to three places."""
        units = list(random.choice(self._valid))
        for _ in range(random.randrange(4)):
            at, way = random.randrange(len(units)), random.randrange(6)
            if way == 0:
                units[at] = b""
            elif way == 1:
                units.insert(at, units[at] * random.choice((1, 1, 2, 40)))
            elif way == 2:
                units[at], units[-1] = units[-1], units[at]
            elif way == 3:
                units[at] = units[at][: random.randrange(len(units[at]) + 1)]
            else:
                units[at] = _scribbled(units[at], random)
        return b"".join(units)


def _scribbled(unit: bytes, random: Random) -> bytes:
    data = bytearray(unit)
    for _ in range(random.choice((1, 1, 2))):
        if data:
            data[random.randrange(min(len(data), 16))] = random.choice(
                (0, 1, 2, 0x7F, 0x80, 0xFF, random.randrange(256))
            )
    return bytes(data)


def stream_target(
    name: str, cases: Callable[[], Conversations], *errors: type[Exception]
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Register a function that reads a stream."""

    def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[name] = Target(name, run, cases, (Malformed, *errors))
        return run

    return register


def pieces(raw: bytes) -> list[bytes]:
    """Cut in three, at places that follow from the bytes."""
    one, two = sorted((sum(raw) % (len(raw) + 1), len(raw) // 2))
    return [raw[:one], raw[one:two], raw[two:]]


def _noise() -> Conversations:
    sealer = NoiseSealer(KEY)
    return Conversations([b"".join(sealer.seal(bytes([n]) * size)) for n, size in enumerate((0, 5, 300, 3000))])


@stream_target("noise messages", _noise)
def _read_noise(raw: bytes) -> None:
    opener = NoiseOpener(KEY)
    for piece in pieces(raw):
        opener.open(piece)
        assert opener.held < 2 + 65535


def _yamux() -> Conversations:
    def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
        return frame_header(DATA, flags, stream, len(payload)) + payload

    frames = [
        frame_header(WINDOW_UPDATE, SYN, 1, 0),
        data(1, b"hello"),
        data(3, b"at once", SYN),
        frame_header(PING, SYN, 0, 9),
        frame_header(WINDOW_UPDATE, 0, 1, 70_000),
        data(1, bytes(3000), FIN),
        frame_header(WINDOW_UPDATE, ACK, 2, 100),
        data(2, b"answer"),
        frame_header(PING, ACK, 0, 4),
        frame_header(WINDOW_UPDATE, RST, 3, 0),
    ]
    return Conversations(frames, [*frames[:3], frame_header(GO_AWAY, 0, 0, 0)])


@stream_target("yamux frames", _yamux)
def _read_yamux(raw: bytes) -> None:
    connection = YamuxConnection(initiator=False, now=0.0)
    ours = connection.open()
    connection.write(ours, memoryview(b"question"))
    for piece in pieces(raw):
        connection.receive(piece, 0.0)
        for stream in list(connection.streams.values())[::2]:
            connection.use(stream, sum(map(len, connection.take(stream))))
        assert connection.held == sum(stream.held for stream in connection.streams.values()) <= HELD_BYTES_MAX
        assert len(connection.streams) <= STREAMS_IN_ALL_MAX + 1
    while connection.has_output:
        connection.batch()


def _websocket() -> Conversations:
    client = WebSocketBytes(client=True)
    asked = client.ask("127.0.0.1:4002")
    server = WebSocketBytes(client=False)
    server.feed(asked)
    client.feed(server.answer())
    ping = b"\x89\x83mask\x00\x01\x02"
    fragments = [b"\x02\x82mask\x05\x06", b"\x00\x80mask", b"\x80\x81mask\x07"]
    sent = [asked, client.payload(b"hello"), ping, client.payload(bytes(70_000)), *fragments]
    return Conversations([*asked.splitlines(keepends=True), *sent[1:]], [*sent, client.goodbye()])


@stream_target("websocket, serving", _websocket)
def _serve_websocket(raw: bytes) -> None:
    server, found = WebSocketBytes(client=False), 0
    request, end, frames = raw.partition(b"\r\n\r\n")
    for piece in (*pieces(request + end), *pieces(frames)):
        payload, asked = server.feed(piece)
        found += sum(map(len, payload))
        if asked:
            assert len(server.answer()) < HANDSHAKE_BYTES_MAX
        assert len(server.pong) <= 2 + 125
    assert found <= len(raw)


@stream_target("websocket, dialling", lambda: Conversations(_answered()))
def _dial_websocket(raw: bytes) -> None:
    client = WebSocketBytes(client=True)
    with NONCE:
        client.ask("127.0.0.1:4002")
    for piece in pieces(raw):
        client.feed(piece)


def _answered() -> list[bytes]:
    server = WebSocketBytes(client=False)
    with NONCE:
        server.feed(WebSocketBytes(client=True).ask("127.0.0.1:4002"))
    return [*server.answer().splitlines(keepends=True), server.payload(b"hello"), b"\x89\x00", server.goodbye()]


def _lines(*said: str) -> list[bytes]:
    return [encode(line) for line in said]


@stream_target(
    "negotiation, answering", lambda: Conversations(_lines(HEADER, "ls", "/none/1", SERVED[0]), _lines(HEADER))
)
def _answer(raw: bytes) -> None:
    responder = Responder(SERVED, SERVED)
    for piece in pieces(raw):
        assert len(responder.feed(piece)) < 20 * NEGOTIATION_BYTES_MAX


@stream_target(
    "negotiation, proposing", lambda: Conversations(_lines(HEADER, SERVED[0]), _lines(HEADER, "na")), Unreachable
)
def _propose(raw: bytes) -> None:
    proposer = Proposer(SERVED[0])
    for piece in pieces(raw):
        if proposer.feed(piece) is not None:
            return


@stream_target(
    "channel frames",
    lambda: Conversations([encode_frame(bytes(size)) for size in (0, 1, 3000)], [b"\0\x10\0\0"]),
    FrameTooLarge,
)
def _frames(raw: bytes) -> None:
    """Both readers find the same."""
    reader, assembler = FrameReader(), FrameAssembler()
    for piece in pieces(raw):
        reader.feed(piece)
        assembler.feed(piece)
        while True:
            frame = reader.next_frame()
            assert assembler.next_frame() == frame
            if frame is None:
                break


_PEER = bytes.fromhex("002408011220") + KEY
_RELAYED: list[Hop | Stop | HolePunch] = [
    Hop(Kind.RESERVE),
    Hop(Kind.CONNECT, _PEER),
    Hop(Kind.STATUS, b"", 100, Reservation(1_700_000_000, (b"\x04\xcb\0q\x07\x06\x0f\xa1",)), Limit(7200, 1 << 30)),
    Stop(True, _PEER, None, Limit(7200, 1 << 30)),
    Stop(False, b"", 100),
    HolePunch(False, (b"\x04\xcb\0q\x07\x06\x0f\xa1",)),
    HolePunch(True),
]


@stream_target("relay messages", lambda: Conversations([message.encode() for message in _RELAYED]))
def _relay(raw: bytes) -> None:
    """Each reader takes a message or refuses it; what it takes it reads back."""
    for kind in (Hop, Stop, HolePunch):
        reader = Delimited(MESSAGE_BYTES_MAX)
        for piece in pieces(raw):
            reader.feed(piece)
            while (body := reader.next()) is not None:
                try:
                    message = kind.decode(body)
                except Malformed:
                    continue
                again = Delimited(2 * MESSAGE_BYTES_MAX)
                again.feed(message.encode())
                assert kind.decode(again.next() or b"") == message
