"""`/webrtc-signaling/0.0.1`: offer, answer and candidates, over a connection that proves who is at each end. Sans-IO.

    message = varint length || protobuf { type: 0 offer, 1 answer, 2 candidate;  data: text }

A candidate is the JSON of an `RTCIceCandidate`; empty or null means that none follow.
Source: github.com/libp2p/specs, webrtc/webrtc.md; js-libp2p's @libp2p/webrtc 6.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum

from node.reach import protobuf
from node.reach.protobuf import delimit
from node.webrtc.candidates import CANDIDATE_CHARS_MAX, Candidate, parse
from node.webrtc.description import DESCRIPTION_CHARS_MAX
from wire.errors import Malformed

SIGNALLING = "/webrtc-signaling/0.0.1"
SIGNAL_BYTES_MAX = DESCRIPTION_CHARS_MAX + 64

_TYPE, _DATA = 1, 2


class Kind(IntEnum):
    """What a message carries."""

    OFFER = 0
    ANSWER = 1
    CANDIDATE = 2


@dataclass(frozen=True)
class Signal:
    """One message."""

    kind: Kind
    text: str

    def encode(self) -> bytes:
        """As sent, behind its length."""
        raw = protobuf.encode([(_TYPE, int(self.kind)), (_DATA, self.text.encode())])
        assert len(raw) <= SIGNAL_BYTES_MAX
        return delimit(raw)


def decode(raw: bytes) -> Signal:
    """A message without its length.

    Raises:
        Malformed: not such a message.
    """
    fields = protobuf.decode(raw)
    number = protobuf.number(fields, _TYPE)
    data = protobuf.strings(fields, _DATA)
    try:
        return Signal(Kind(number or 0), data[-1].decode() if data else "")
    except ValueError as exc:
        raise Malformed(f"not a signal: {exc}") from exc


def candidate(text: str) -> Candidate | None:
    """The candidate in the JSON of a `CANDIDATE`; None where none follows, or none that can be used.

    Raises:
        Malformed: not JSON of that form.
    """
    if not text:
        return None
    if len(text) > 2 * CANDIDATE_CHARS_MAX:
        raise Malformed("a candidate of so many characters")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"a candidate is JSON: {exc}") from exc
    if said is None or said == "":
        return None
    if not isinstance(said, dict) or not isinstance(said.get("candidate"), str):
        raise Malformed("a candidate is an object with its text")
    return parse(said["candidate"])
