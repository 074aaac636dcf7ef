"""Session descriptions (SDP) as far as data channels need them: read strictly, and written anew. Sans-IO.

aiortc never sees what a stranger wrote: a description is taken apart here, and what it is given is put together from
the parts. Of several media only the one of data channels counts, and it must be the first.
Source: RFC 8866 (SDP), RFC 8841 (data channels), RFC 8839 (ICE), RFC 8122 (fingerprints).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from node.webrtc.candidates import CANDIDATES_MAX, Candidate, parse
from wire.errors import Malformed

DESCRIPTION_CHARS_MAX = 8192
LINES_MAX = 256
SETUPS = ("actpass", "active", "passive")
SCTP_PORT = 5000
MESSAGE_BYTES_MAX = 65536
"""Longest message of a data channel that we take, as the other side is told."""

_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT = re.compile(r"sha-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})", re.IGNORECASE)
_MID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_MEDIA = re.compile(r"application [0-9]{1,5} UDP/DTLS/SCTP webrtc-datachannel")


@dataclass(frozen=True)
class Description:
    """What one side says of itself.

    Args:
        fingerprint: SHA-256 of the certificate that its DTLS handshake will show, as hexadecimal pairs with colons.
        setup: its part of the DTLS handshake: `active` begins, `passive` waits, `actpass` (offers) leaves it open.
    """

    ufrag: str
    password: str
    fingerprint: str
    setup: str
    mid: str = "0"
    sctp_port: int = SCTP_PORT
    candidates: tuple[Candidate, ...] = ()

    def text(self) -> str:
        """As SDP."""
        lines = [
            "v=0",
            "o=- 0 2 IN IP4 127.0.0.1",
            "s=-",
            "t=0 0",
            f"a=group:BUNDLE {self.mid}",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{self.mid}",
            f"a=ice-ufrag:{self.ufrag}",
            f"a=ice-pwd:{self.password}",
            "a=ice-options:trickle",
            f"a=fingerprint:sha-256 {self.fingerprint}",
            f"a=setup:{self.setup}",
            f"a=sctp-port:{self.sctp_port}",
            f"a=max-message-size:{MESSAGE_BYTES_MAX}",
            *(f"a={candidate.text()}" for candidate in self.candidates),
        ]
        return "".join(f"{line}\r\n" for line in lines)

    def only(self, wanted: Callable[[Candidate], bool]) -> Description:
        """The same with these candidates alone."""
        return replace(self, candidates=tuple(filter(wanted, self.candidates)))


def read(text: str) -> Description:
    """A description.

    Raises:
        Malformed: too long, or something that is needed is missing or of another form.
    """
    lines = text.splitlines() if len(text) <= DESCRIPTION_CHARS_MAX else []
    if not lines or len(lines) > LINES_MAX or lines[0] != "v=0":
        raise Malformed("a session description begins with v=0 and is of bounded length")
    media = [at for at, line in enumerate(lines) if line.startswith("m=")]
    if not media or _MEDIA.fullmatch(lines[media[0]][2:]) is None:
        raise Malformed("a session description without data channels")
    ours = lines[: media[0]] + lines[media[0] : media[1] if len(media) > 1 else None]
    fingerprints = _all(ours, "fingerprint")
    found = [match[1].upper() for line in fingerprints if (match := _FINGERPRINT.fullmatch(line)) is not None]
    if len(set(found)) != 1:
        raise Malformed("a session description has one SHA-256 fingerprint")
    port = _last(ours, "sctp-port", re.compile(r"[0-9]{1,5}"))
    if not 0 < int(port) <= 65535:
        raise Malformed("not a port")
    known = [parse(f"candidate:{line}") for line in _all(ours, "candidate")]
    return Description(
        _last(ours, "ice-ufrag", _UFRAG),
        _last(ours, "ice-pwd", _PASSWORD),
        found[0],
        _last(ours, "setup", re.compile("|".join(SETUPS))),
        _last(ours, "mid", _MID),
        int(port),
        tuple(dict.fromkeys(candidate for candidate in known if candidate is not None))[:CANDIDATES_MAX],
    )


def _all(lines: Sequence[str], name: str) -> list[str]:
    head = f"a={name}:"
    return [line[len(head) :] for line in lines if line.startswith(head)]


def _last(lines: Sequence[str], name: str, form: re.Pattern[str]) -> str:
    found = _all(lines, name)
    if not found or form.fullmatch(found[-1]) is None:
        raise Malformed(f"a session description without a proper {name}")
    return found[-1]
