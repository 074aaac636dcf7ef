"""Where peers may be dialled, and what became of it: bounded, and nothing is dialled or stored here. Sans-IO.

Invariants: at most `PEERS_KNOWN_MAX` peers with `ADDRESSES_PER_PEER_MAX` addresses each, whatever strangers tell; half
of the places are for peers that were reached before, so that names out of the air never push them out. An address that
failed waits, longer each time, before it is dialled again. Addresses of a network that we have no part in are not
taken from others: whoever tells of them can only want us to knock at doors of our own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from node.libp2p.websocket_transport import is_websocket
from node.reach.addresses import ADDRESS_CHARS_MAX, Scope, circuit, host_of, scope
from wire.limits import ADDRESSES_PER_PEER_MAX
from wire.peer import PeerId, to_text

PEERS_KNOWN_MAX = 4096
"""Peers whose addresses are remembered."""

FAILURES_FREE = 2
"""Failures in a row after which an address is dialled again at once: a peer that starts again is back at any moment."""

RETRY_MS, RETRY_MS_MAX = 1_000, 30_000
"""How long an address rests after the failure beyond those; twice as long after each further one, up to the second."""

RETRY_RELAYED_MS_MAX = 4_000
"""The same for a way through a relay: the peer may come back there at any moment."""

ANYWHERE: frozenset[Scope] = frozenset(("loopback", "private", "public"))


@dataclass(slots=True)
class Known:
    """One address and what became of it; times in Unix milliseconds, 0 for never.

    Attributes:
        address: without the peer. learned_ms: when somebody last told of it. worked_ms: when a connection last came of
            it. failed_ms: when dialling it last failed. failures: in a row.
    """

    address: str
    learned_ms: int = 0
    worked_ms: int = 0
    failed_ms: int = 0
    failures: int = 0

    def rests_until_ms(self) -> int:
        """When it may be dialled again."""
        beyond = self.failures - FAILURES_FREE
        if beyond <= 0:
            return 0
        most = RETRY_RELAYED_MS_MAX if "/p2p-circuit" in self.address else RETRY_MS_MAX
        return self.failed_ms + min(RETRY_MS << min(beyond - 1, 16), most)

    def rests(self, now_ms: int) -> bool:
        """Whether it should not be dialled yet; a clock that was set back makes nothing rest."""
        return self.failed_ms <= now_ms < self.rests_until_ms()

    def rank(self) -> tuple[bool, bool, int]:
        """Sorts what is to be tried first to the front, the order of learning kept among equals."""
        return (self.failures > 0, not self.worked_ms, -self.worked_ms)


class AddressBook:
    """Where peers may be dialled: over TCP or WebSocket at addresses that name no other peer, and through relays."""

    def __init__(self) -> None:
        self._heard: OrderedDict[PeerId, list[Known]] = OrderedDict()
        self._reached: OrderedDict[PeerId, list[Known]] = OrderedDict()
        self._changed: dict[PeerId, None] = {}
        self.reach: frozenset[Scope] = ANYWHERE
        """Networks whose addresses are taken from others."""

    def __len__(self) -> int:
        return len(self._heard) + len(self._reached)

    # ---- what others tell

    def learn(self, peer: PeerId, addresses: Sequence[str], now_ms: int = 0) -> None:
        """Put `addresses` before those already known; what cannot be dialled, or is out of reach, is skipped."""
        told = [text for each in addresses[:ADDRESSES_PER_PEER_MAX] if (text := dialable(each, peer)) is not None]
        self._keep(peer, [Known(text, now_ms) for text in dict.fromkeys(told) if self._is_in_reach(text)])

    def _is_in_reach(self, text: str) -> bool:
        at = host_of(text)
        return at is None or scope(at.ip) in self.reach

    def recall(self, peer: PeerId, known: Iterable[Known]) -> None:
        """What was known before a restart, checked like what anybody tells."""
        self._keep(peer, [each for each in known if dialable(each.address, peer) == each.address])

    def _keep(self, peer: PeerId, new: list[Known]) -> None:
        if not new:
            return
        old = {each.address: each for each in self.known(peer)}
        merged: list[Known] = []
        for each in new:
            same = old.pop(each.address, None)
            if same is not None:
                same.learned_ms = max(same.learned_ms, each.learned_ms)
            merged.append(same or each)
        merged += old.values()
        best = max(merged, key=lambda each: each.worked_ms)
        kept = merged[:ADDRESSES_PER_PEER_MAX]
        if best.worked_ms and best not in kept:  # strangers' news never push out the address that we know to be right
            kept[-1] = best
        self._put(peer, kept)

    def _put(self, peer: PeerId, known: list[Known]) -> None:
        self._heard.pop(peer, None)
        self._reached.pop(peer, None)
        (self._reached if any(each.worked_ms for each in known) else self._heard)[peer] = known
        self._changed[peer] = None
        while len(self) > PEERS_KNOWN_MAX:
            side = self._heard if len(self._reached) <= PEERS_KNOWN_MAX // 2 else self._reached
            gone, _ = side.popitem(last=False)
            self._changed[gone] = None

    # ---- what became of dialling

    def worked(self, peer: PeerId, address: str, now_ms: int) -> None:
        """A connection came of an address; one that is not known is learned."""
        found = next((each for each in self.known(peer) if each.address == address), None)
        if found is None:
            self.recall(peer, [Known(address, now_ms, worked_ms=now_ms)])
            return
        found.worked_ms, found.failures = now_ms, 0
        self._put(peer, self.known(peer))

    def failed(self, peer: PeerId, address: str, now_ms: int) -> None:
        """No connection came of an address."""
        for each in self.known(peer):
            if each.address == address:
                each.failed_ms, each.failures = now_ms, each.failures + 1
                self._changed[peer] = None

    def alive(self, peer: PeerId) -> None:
        """The peer itself was heard from: no address of it need rest."""
        for each in self.known(peer):
            if each.failures:
                each.failures = 0
                self._changed[peer] = None

    # ---- where to dial

    def known(self, peer: PeerId) -> list[Known]:
        """All that is known of a peer; empty for a stranger."""
        return self._reached.get(peer) or self._heard.get(peer) or []

    def addresses(self, peer: PeerId, now_ms: int = 0) -> list[str]:
        """Where to dial now, without the `/p2p` part: first what worked last, then what is new, then what failed."""
        ready = [each for each in self.known(peer) if not each.rests(now_ms)]
        return [each.address for each in sorted(ready, key=Known.rank)]

    def rest_ms(self, peer: PeerId, now_ms: int) -> int:
        """How long until an address may be dialled again; 0 if one may now, or none is known."""
        return max(0, min((each.rests_until_ms() for each in self.known(peer)), default=0) - now_ms)

    def reached(self, most: int) -> list[PeerId]:
        """Peers that were reached, the last first."""
        best = {peer: max(each.worked_ms for each in known) for peer, known in self._reached.items()}
        return sorted(best, key=lambda peer: -best[peer])[:most]

    def figures(self) -> dict[str, int]:
        """How many peers are known, and how many of them were reached."""
        return {"known": len(self), "reached": len(self._reached)}

    def changes(self) -> dict[PeerId, list[Known]]:
        """What has changed since the last call: all that is known of each such peer, nothing if it was forgotten."""
        changed, self._changed = self._changed, {}
        return {peer: [replace(each) for each in self.known(peer)] for peer in changed}

    def touch(self, peers: Iterable[PeerId]) -> None:
        """Count these as changed: they could not be stored."""
        self._changed.update(dict.fromkeys(peers))


def dialable(text: str, peer: PeerId) -> str | None:
    """An address of a peer in its canonical form and without that peer; None if it cannot be dialled."""
    if len(text) > ADDRESS_CHARS_MAX:
        return None
    if (relayed := circuit(text, peer)) is not None:
        return relayed.text()
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        if names[-1:] == ["p2p"] and address.value_for_protocol("p2p") == to_text(peer):
            address, names = Multiaddr(text.rpartition("/p2p/")[0]), names[:-1]
    except (MultiaddrError, ValueError):
        return None
    over_tcp = names[:1] in (["ip4"], ["ip6"], ["dns4"], ["dns6"]) and names[1:] == ["tcp"]
    return str(address) if over_tcp or is_websocket(names) else None


def dialed_at(listened: Multiaddr) -> list[Multiaddr]:
    """Where others dial what we listen on: a wildcard stands for the addresses of this machine's interfaces."""
    host = listened.value_for_protocol(next(iter(listened.protocols())).code)
    if host not in ("0.0.0.0", "::"):
        return [listened]
    bare, _, name = str(listened).rpartition("/p2p/")
    web = "/ws" if bare.endswith("/ws") else ""
    found = expand_wildcard_address(Multiaddr(bare.removesuffix("/ws")))
    return [Multiaddr(f"{address}{web}/p2p/{name}") for address in found]
