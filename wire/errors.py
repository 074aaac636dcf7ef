"""The one error tree; who is at fault is always visible in the class.

QuorateError
├── LocalError            our own caller's fault: bad argument, bad file, not enough credit
│   └── StorageError      our own disk: full, unreadable, corrupted
├── Malformed             bytes that do not decode, or are not canonical; the caller adds whose they were
├── RemoteError           a peer's fault; carries the peer and a penalty in 0..1
│   └── Refused           it said no to a call; no penalty
├── TransportError        nobody's fault: the connection
│   ├── Unreachable       could not be opened
│   ├── ChannelClosed     ended under us
│   ├── Expired           no answer within the deadline
│   └── FrameTooLarge     a frame past the agreed limit
└── Busy                  refused politely; carries the seconds after which to retry
"""

from __future__ import annotations


class QuorateError(Exception):
    """Root of every error this project raises on purpose."""


class LocalError(QuorateError):
    """The caller on this node asked for something that cannot be."""


class StorageError(LocalError):
    """This node's disk or one of its files cannot be used; nothing was acknowledged."""


class Malformed(QuorateError):
    """Bytes that are not a canonical encoding of the expected type within its limits."""


class RemoteError(QuorateError):
    """A peer broke a rule.

    Args:
        peer: the 32-byte identity of the peer at fault.
        reason: what it did, in words fit for a log.
        penalty: how much it matters, 0 (harmless) to 1 (never talk to it again).
    """

    def __init__(self, peer: bytes, reason: str, *, penalty: float = 0.1) -> None:
        assert 0.0 <= penalty <= 1.0, "penalty is a share"
        super().__init__(f"{reason} (peer {peer.hex()[:12]})")
        self.peer = peer
        self.reason = reason
        self.penalty = penalty


class Refused(RemoteError):
    """The peer answered a call with an error of its own; nobody is penalised for it.

    Args:
        code: machine-readable. text: why, in its words.
        retry_s: seconds after which asking again is reasonable; 0 where it cannot help.
    """

    def __init__(self, peer: bytes, code: str, text: str, retry_s: float = 0.0) -> None:
        super().__init__(peer, f"refused: {code}: {text}", penalty=0.0)
        self.code = code
        self.text = text
        self.retry_s = retry_s


class TransportError(QuorateError):
    """The connection failed; no party is blamed."""


class Unreachable(TransportError):
    """No channel to that peer could be opened."""


class ChannelClosed(TransportError):
    """The channel ended, here or there."""


class Expired(TransportError):
    """A call was not answered within its deadline; whether it was carried out is not known."""


class FrameTooLarge(TransportError):
    """A frame longer than `wire.limits.FRAME_BYTES_MAX`, refused before it was sent or buffered."""


class Busy(QuorateError):
    """Refused for lack of capacity.

    Args:
        retry_s: seconds after which asking again is reasonable.
    """

    def __init__(self, retry_s: float, what: str = "busy") -> None:
        super().__init__(f"{what}; retry in {retry_s:g} s")
        self.retry_s = retry_s
