"""Which of the relays that offer themselves to try next. Sans-IO.

Whoever wants can publish any number of offers, with any addresses, so:

- what is remembered, and how often anybody is dialled for it, does not depend on how many offers there are;
- only public addresses count, so that nobody has us knock on doors of our own network;
- chance chooses first a *neighbourhood* (the /16 of an IPv4 address, the /32 of an IPv6 one), then a relay in it: many
  identities in one place are one choice. A neighbourhood of a relay that we hold comes last;
- who fails is left alone for a while, twice as long each time; a neighbourhood whose relays fail one after the other
  is, too. What was learned of a relay outlives its offer.

Source: the same idea as address buckets against eclipse (Heilman et al., USENIX Security 2015, section 8).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from random import Random
from typing import Generic, TypeVar

from node.reach.addresses import endpoint, is_public
from node.reach.ports import Offer
from wire.peer import PeerId, to_text

K = TypeVar("K")

CANDIDATES_MAX = 64
CANDIDATES_PER_NEIGHBOURHOOD_MAX = 4
ADDRESSES_MAX = 2
"""Addresses that are tried of one relay: one of each version of IP."""

DIALS_MAX = 8
DIALS_PERIOD_S = 60.0
"""At most so many relays are tried in any such time."""

LEFT_S, LEFT_S_MAX = 30.0, 3600.0
"""Seconds for which a relay that failed is left alone, the first time and at most."""

FAILURES_SPARED = 3
"""Failures in a row of a neighbourhood's relays before the neighbourhood itself is left alone."""

GOOD_S = 600.0
"""Seconds of service after which earlier failures of a relay are forgiven."""

REMEMBERED_MAX = 1024


@dataclass(frozen=True)
class Candidate:
    """A relay that may be tried.

    Args:
        addresses: direct, without the relay's peer id.
    """

    relay: PeerId
    addresses: tuple[str, ...]
    neighbourhood: str
    weight: float


class Patience(Generic[K]):
    """Who is left alone until when."""

    def __init__(self, spared: int) -> None:
        self._spared = spared
        self._of: OrderedDict[K, tuple[int, float]] = OrderedDict()

    def failed(self, who: K, now: float) -> None:
        """Once more."""
        failures = self._of.pop(who, (0, 0.0))[0] + 1
        beyond = failures - self._spared
        pause = min(LEFT_S * 2 ** min(beyond - 1, 16), LEFT_S_MAX) if beyond > 0 else 0.0
        self._of[who] = failures, now + pause
        while len(self._of) > REMEMBERED_MAX:
            self._of.popitem(last=False)

    def forgive(self, who: K) -> None:
        """It did well."""
        self._of.pop(who, None)

    def until(self, who: K) -> float:
        """When it may be tried again."""
        return self._of.get(who, (0, 0.0))[1]


class Choice:
    """Candidates, and what became of those that were tried.

    Args:
        rng: decides among equals.
    """

    def __init__(self, me: PeerId, rng: Random) -> None:
        self._me = me
        self._rng = rng
        self._known: dict[PeerId, Candidate] = {}
        self._relays = Patience[PeerId](spared=0)
        self._places = Patience[str](spared=FAILURES_SPARED)
        self._dials: deque[float] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, offers: Iterable[Offer], now: float) -> None:
        """Replace what is offered; of too many, chance keeps the same number of every neighbourhood."""
        places: dict[str, list[Candidate]] = {}
        for offer in offers:
            candidate = self._candidate(offer)
            if candidate is not None:
                places.setdefault(candidate.neighbourhood, []).append(candidate)
        for found in places.values():
            self._rng.shuffle(found)
            found.sort(key=lambda each: (self._waits(each) > now, -each.weight * self._rng.random()))
            del found[CANDIDATES_PER_NEIGHBOURHOOD_MAX:]
        names = sorted(places)
        self._rng.shuffle(names)
        names.sort(key=lambda name: self._waits(places[name][0]) > now)
        rounds = [
            places[name][turn]
            for turn in range(CANDIDATES_PER_NEIGHBOURHOOD_MAX)
            for name in names
            if turn < len(places[name])
        ]
        self._known = {candidate.relay: candidate for candidate in rounds[:CANDIDATES_MAX]}

    def _candidate(self, offer: Offer) -> Candidate | None:
        end = f"/p2p/{to_text(offer.relay)}"
        if offer.relay == self._me or offer.load >= 1:
            return None
        by_version: dict[int, str] = {}
        for text in offer.addresses:
            at = endpoint(text)
            if at is not None and is_public(text) and text.endswith(end):
                by_version.setdefault(ip_address(at.ip).version, at.text())
        if not by_version:
            return None
        addresses = tuple(by_version[version] for version in sorted(by_version))[:ADDRESSES_MAX]
        weight = max(offer.weight, 0.01) * (1 - offer.load)
        return Candidate(offer.relay, addresses, neighbourhood(addresses[0]), weight)

    def next(self, busy: Collection[PeerId], near: Collection[str], now: float) -> Candidate | None:
        """The relay to try now; counts as tried. None if there is none, or enough were tried lately.

        Args:
            busy: relays that are held or being tried.
            near: neighbourhoods of those.
        """
        while self._dials and self._dials[0] <= now - DIALS_PERIOD_S:
            self._dials.popleft()
        if len(self._dials) >= DIALS_MAX:
            return None
        free = [each for each in self._known.values() if each.relay not in busy and self._waits(each) <= now]
        places: dict[str, list[Candidate]] = {}
        for candidate in free:
            places.setdefault(candidate.neighbourhood, []).append(candidate)
        names = sorted(name for name in places if name not in near) or sorted(places)
        if not names:
            return None
        best = [max(candidate.weight for candidate in places[name]) for name in names]
        there = places[self._rng.choices(names, best)[0]]
        self._dials.append(now)
        return self._rng.choices(there, [candidate.weight for candidate in there])[0]

    def _waits(self, candidate: Candidate) -> float:
        return max(self._relays.until(candidate.relay), self._places.until(candidate.neighbourhood))

    def ended(self, candidate: Candidate, served_s: float, now: float) -> None:
        """A relay refused, could not be had, lied, or its reservation was lost.

        Args:
            served_s: how long it had let us in; 0.0 if it never did.
        """
        if served_s >= GOOD_S:
            self._relays.forgive(candidate.relay)
        self._relays.failed(candidate.relay, now)
        if served_s:
            self._places.forgive(candidate.neighbourhood)
        else:
            self._places.failed(candidate.neighbourhood, now)


def neighbourhood(address: str) -> str:
    """The /16 or /32 of a direct address."""
    at = endpoint(address)
    assert at is not None, "a candidate has a direct address"
    ip = ip_address(at.ip)
    return str(ip_network((ip, 16 if ip.version == 4 else 32), strict=False))
