"""Targets of WebRTC: what strangers say in signalling and on data channels, and to a relay over UDP."""

from __future__ import annotations

from node.reach.protobuf import Delimited
from node.reach.stun import Answerer
from node.webrtc import description, signalling
from node.webrtc.candidates import CANDIDATES_MAX
from node.webrtc.messages import DATA_BYTES_MAX, Flag, Message, Reader
from node.webrtc.signalling import SIGNAL_BYTES_MAX, Kind, Signal
from tests.fuzz.streams import Conversations, pieces, stream_target
from wire.errors import Malformed

_DESCRIPTION = description.Description("abcd", "p" * 22, ":".join(["AB"] * 32), "actpass").text()
_LINES = [f"{line}\r\n".encode() for line in _DESCRIPTION.splitlines()]
_CANDIDATES = [
    b"a=candidate:1 1 udp 1 192.0.2.7 9 typ host\r\n",
    b"a=candidate:2 1 udp 1 2001:db8::7 9 typ srflx raddr 10.0.0.1 rport 9\r\n",
    b"a=candidate:3 1 tcp 1 192.0.2.7 9 typ host tcptype active\r\n",
]
_CANDIDATE = '{"candidate":"candidate:1 1 udp 1 192.0.2.7 9 typ host","sdpMid":"0","sdpMLineIndex":0}'
_SIGNALS = [Signal(Kind.OFFER, _DESCRIPTION), Signal(Kind.ANSWER, _DESCRIPTION), Signal(Kind.CANDIDATE, _CANDIDATE)]
_SAID = [Message(b"data"), Message(bytes(3000)), Message(flag=Flag.FIN), Message(b"x", Flag.FIN_ACK)]


@stream_target("session description", lambda: Conversations([*_LINES, *_CANDIDATES]))
def _read(raw: bytes) -> None:
    """What is read is written so that it is read again, within bounds."""
    found = description.read(raw.decode(errors="replace"))
    assert len(found.candidates) <= CANDIDATES_MAX
    assert description.read(found.text()) == found


@stream_target("WebRTC signalling", lambda: Conversations([signal.encode() for signal in _SIGNALS]))
def _signals(raw: bytes) -> None:
    """Each signal is taken or refused; what is taken reads back."""
    reader = Delimited(SIGNAL_BYTES_MAX)
    for piece in pieces(raw):
        reader.feed(piece)
        while (body := reader.next()) is not None:
            try:
                signal = signalling.decode(body)
                if signal.kind is Kind.CANDIDATE:
                    signalling.candidate(signal.text)
                else:
                    description.read(signal.text)
            except Malformed:
                continue


@stream_target("data channel", lambda: Conversations([message.encode() for message in _SAID]))
def _data_channel(raw: bytes) -> None:
    """Messages come out whole, however they were cut, and no more bytes than went in."""
    reader = Reader()
    size = 0
    for piece in pieces(raw):
        for message in reader.feed(piece):
            size += len(message.data)
            if len(message.data) <= DATA_BYTES_MAX:
                assert list(Reader().feed(message.encode())) == [message]
    assert size <= len(raw)


@stream_target("STUN", lambda: Conversations([bytes.fromhex("000100002112a442"), bytes(range(12))]))
def _stun(raw: bytes) -> None:
    """Whatever comes is answered with at most 24 bytes more, or not at all."""
    answer = Answerer(0.0).answer(raw, "203.0.113.7", 4001, 0.0)
    if answer is None:
        raise Malformed("not answered")
    assert len(answer) <= len(raw) + 24
