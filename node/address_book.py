"""Where peers may be dialled, and where we are: multiaddrs of the real transport. Bounded; nothing is dialled here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from node.reach.addresses import circuit
from wire.limits import ADDRESSES_PER_PEER_MAX
from wire.peer import PeerId, to_text

PEERS_KNOWN_MAX = 4096
"""Peers whose addresses are remembered; the least recently learned is forgotten."""


class AddressBook:
    """Where peers may be dialled: bounded, newest first, only addresses that name TCP and no other peer.

    Or a relay, by circuit addresses.
    """

    def __init__(self) -> None:
        self._of: OrderedDict[PeerId, list[Multiaddr]] = OrderedDict()

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Put `addresses` before those already known; what cannot be dialled is skipped."""
        new = [parsed for text in addresses[:ADDRESSES_PER_PEER_MAX] if (parsed := _dialable(text, peer)) is not None]
        old = self._of.pop(peer, [])
        merged = list(dict.fromkeys(new + old))[:ADDRESSES_PER_PEER_MAX]
        if merged:
            self._of[peer] = merged
        while len(self._of) > PEERS_KNOWN_MAX:
            self._of.popitem(last=False)

    def addresses(self, peer: PeerId) -> list[Multiaddr]:
        """Without the `/p2p` part; empty for a stranger."""
        return list(self._of.get(peer, ()))


def _dialable(text: str, peer: PeerId) -> Multiaddr | None:
    if len(text) > 256:
        return None
    if (relayed := circuit(text, peer)) is not None:
        return Multiaddr(relayed.text())
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        if names[1:] == ["tcp", "p2p"] and address.value_for_protocol("p2p") == to_text(peer):
            address, names = Multiaddr(text.rpartition("/p2p/")[0]), names[:-1]
    except (MultiaddrError, ValueError):
        return None
    return address if names[:1] in (["ip4"], ["ip6"], ["dns4"], ["dns6"]) and names[1:] == ["tcp"] else None


def dialed_at(listened: Multiaddr) -> list[Multiaddr]:
    """Where others dial what we listen on: a wildcard stands for the addresses of this machine's interfaces."""
    host = listened.value_for_protocol(next(iter(listened.protocols())).code)
    if host not in ("0.0.0.0", "::"):
        return [listened]
    bare, _, name = str(listened).rpartition("/p2p/")
    return [Multiaddr(f"{address}/p2p/{name}") for address in expand_wildcard_address(Multiaddr(bare))]
