"""Iterative look-up: ask the closest known contacts, learn closer ones, stop when the `k` closest have all answered.

Theory of operation: contacts are FRESH, ASKED, ANSWERED or FAILED. A step keeps at most `alpha` requests in flight,
always to the closest fresh contacts among the `k` closest that have not failed; when none of these is fresh or asked,
the look-up is over. Values are the union of what every one of them said, so no single peer decides what is found. Every
answer can only add finitely many contacts (`CONTACTS_MAX`), so it ends whatever peers say. Kademlia, section 2.3.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from dht.table import ALPHA, Contact, K, node_id
from wire.peer import PeerId

CONTACTS_MAX = 512
"""Contacts considered by one look-up."""


class _State(enum.Enum):
    FRESH = 0
    ASKED = 1
    ANSWERED = 2
    FAILED = 3


class Lookup:
    """One look-up for `target` (a 256-bit point); actions are the contacts to ask now."""

    def __init__(self, target: int, me: PeerId, known: Iterable[Contact], *, k: int = K, alpha: int = ALPHA) -> None:
        self.target = target
        self._me = me
        self._k = k
        self._alpha = alpha
        self._contacts: dict[PeerId, Contact] = {}
        self._states: dict[PeerId, _State] = {}
        self.asked = 0
        self._add(known)

    def start(self) -> list[Contact]:
        """Whom to ask first."""
        return self._next()

    def on_reply(self, peer: PeerId, closer: Sequence[Contact]) -> list[Contact]:
        """A peer answered with contacts; returns whom to ask next. Answers that nobody asked for change nothing."""
        if self._states.get(peer) is _State.ASKED:
            self._states[peer] = _State.ANSWERED
            self._add(closer[: self._k])
        return self._next()

    def on_failure(self, peer: PeerId) -> list[Contact]:
        """A peer did not answer, or broke a rule; returns whom to ask next."""
        if self._states.get(peer) is _State.ASKED:
            self._states[peer] = _State.FAILED
        return self._next()

    @property
    def done(self) -> bool:
        """Whether nothing is in flight and nothing is left to ask."""
        return not self._flying() and not self._fresh()

    def result(self) -> list[Contact]:
        """The `k` closest contacts that answered, closest first."""
        answered = [c for c in self._sorted() if self._states[c.peer] is _State.ANSWERED]
        return answered[: self._k]

    def _add(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            new = contact.peer not in self._states and contact.peer != self._me and len(contact.peer) == 32
            if new and len(self._contacts) < CONTACTS_MAX:
                self._contacts[contact.peer] = contact
                self._states[contact.peer] = _State.FRESH

    def _sorted(self) -> list[Contact]:
        return sorted(self._contacts.values(), key=lambda c: node_id(c.peer) ^ self.target)

    def _shortlist(self) -> list[Contact]:
        """The `k` closest that have not failed."""
        return [c for c in self._sorted() if self._states[c.peer] is not _State.FAILED][: self._k]

    def _fresh(self) -> list[Contact]:
        return [c for c in self._shortlist() if self._states[c.peer] is _State.FRESH]

    def _flying(self) -> int:
        return sum(state is _State.ASKED for state in self._states.values())

    def _next(self) -> list[Contact]:
        actions = self._fresh()[: max(0, self._alpha - self._flying())]
        for contact in actions:
            self._states[contact.peer] = _State.ASKED
        self.asked += len(actions)
        return actions
