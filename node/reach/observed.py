"""What others see of us: an address by vote, and from it the kind of NAT that we are behind. Sans-IO.

Each server that we dialled *from our listening port* tells which endpoint that connection came from. One server can
say what it likes, so an endpoint counts where servers on at least `VOTES_MIN` IP addresses agree, and an IP address
likewise. One voice per server and per IP address of a server; a voice is forgotten after `VOICE_S`.

- none: the endpoint is one of our own;
- cone: every server sees the same endpoint (RFC 4787: endpoint-independent mapping), so it may be dialled once the
  router lets somebody in, and hole punching works;
- symmetric: servers see different ports, so no server can say where the next peer would see us;
- unknown: fewer than `VOTES_MIN` voices.

Source: RFC 4787, section 4.1; RFC 5780, section 4.3 (the same test with one server on two addresses).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from enum import Enum
from typing import TypeVar

from node.reach.addresses import Endpoint
from wire.peer import PeerId

T = TypeVar("T")

VOTES_MIN = 2
VOICE_S = 1800.0
VOICES_MAX = 64


class Kind(Enum):
    """What the router between us and the others does to our addresses."""

    UNKNOWN = "unknown"
    NONE = "none"
    CONE = "cone"
    SYMMETRIC = "symmetric"


class Observed:
    """The voices of servers about one listening port."""

    def __init__(self) -> None:
        self._voices: dict[str, tuple[PeerId, Endpoint, float]] = {}

    def hear(self, server: PeerId, server_ip: str, seen: Endpoint, now: float) -> None:
        """A server on `server_ip` saw our connection come from `seen`; its newer voice replaces its older one."""
        for ip in [ip for ip, (peer, _, _) in self._voices.items() if peer == server]:
            del self._voices[ip]
        self._voices.pop(server_ip, None)
        self._voices[server_ip] = (server, seen, now)
        while len(self._voices) > VOICES_MAX:
            del self._voices[next(iter(self._voices))]

    def forget(self) -> None:
        """Our own addresses have changed: nothing heard before holds."""
        self._voices.clear()

    def _seen(self, now: float) -> list[Endpoint]:
        return [seen for _, seen, heard in self._voices.values() if now - heard <= VOICE_S]

    def ip(self, now: float) -> str | None:
        """The IP address under which most servers see us; None if too few agree."""
        return _winner(Counter(seen.ip for seen in self._seen(now)))

    def endpoint(self, now: float) -> Endpoint | None:
        """Where most servers see our listening port; None if too few agree."""
        return _winner(Counter(self._seen(now)))

    def guesses(self, now: float) -> list[Endpoint]:
        """Everything that anybody saw, the newest first: not to be advertised, but worth a dial."""
        voices = sorted(self._voices.values(), key=lambda voice: -voice[2])
        return list(dict.fromkeys(seen for _, seen, heard in voices if now - heard <= VOICE_S))

    def kind(self, own_ips: Collection[str], now: float) -> Kind:
        """What NAT these voices show, given the IP addresses of our own interfaces."""
        seen = self._seen(now)
        if len(seen) < VOTES_MIN:
            return Kind.UNKNOWN
        ip = self.ip(now)
        if ip is not None and ip in own_ips:
            return Kind.NONE
        return Kind.CONE if self.endpoint(now) is not None else Kind.SYMMETRIC


def _winner(votes: Counter[T]) -> T | None:
    ranked = votes.most_common(1)
    if not ranked or ranked[0][1] < VOTES_MIN or 2 * ranked[0][1] <= votes.total():
        return None
    return ranked[0][0]
