"""An observed-remove set: a remove undoes the adds its author has seen, so a concurrent add wins.

A dot is the id of an add operation. An element is a member while one of its dots is not removed. Removed dots are
remembered together with their element, so adds and removes commute even where a liar removes a dot before it is
seen, or under the wrong element. Source: Shapiro et al., "Conflict-free Replicated Data Types" (INRIA RR-7687,
2011), section 4; Bieniusa et al., "An optimized conflict-free replicated set" (INRIA RR-8083, 2012).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wire.peer import PeerId

_Removed = tuple[bytes, bytes, PeerId | None]


class OrSet:
    """The set of one replica.

    Args:
        own_only: a remove counts only against the adds of its own author.
    """

    def __init__(self, *, own_only: bool = False) -> None:
        self._own_only = own_only
        self._dots: dict[bytes, dict[bytes, PeerId]] = {}
        self._removed: set[_Removed] = set()

    def add(self, element: bytes, dot: bytes, author: PeerId) -> bool:
        """Add `element` under `dot`; whether the dot now counts."""
        if self._is_removed(element, dot, author):
            return False
        self._dots.setdefault(element, {})[dot] = author
        return True

    def remove(self, element: bytes, dots: Iterable[bytes], remover: PeerId) -> None:
        """Undo the adds `dots` of `element`, whether they have been seen or not."""
        for dot in dots:
            self._removed.add((element, dot, remover if self._own_only else None))
        self._purge(element)

    def merge(self, other: OrSet) -> None:
        """Merge another replica's set."""
        assert self._own_only == other._own_only, "the policy is part of the type"
        self._removed |= other._removed
        for element, dots in other._dots.items():
            for dot, author in dots.items():
                self.add(element, dot, author)
        for element in list(self._dots):
            self._purge(element)

    def __contains__(self, element: bytes) -> bool:
        return element in self._dots

    def members(self) -> list[bytes]:
        """The elements, ascending."""
        return sorted(self._dots)

    def dots(self, element: bytes, *, author: PeerId | None = None) -> list[bytes]:
        """The dots of `element` that count, ascending; only those of `author` if given."""
        dots = self._dots.get(element, {})
        return sorted(dot for dot, owner in dots.items() if author is None or owner == author)

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Elements with each of their dots, ascending."""
        for element in self.members():
            for dot in self.dots(element):
                yield element, dot

    def _is_removed(self, element: bytes, dot: bytes, author: PeerId) -> bool:
        return (element, dot, author if self._own_only else None) in self._removed

    def _purge(self, element: bytes) -> None:
        dots = self._dots.get(element, {})
        for dot in [dot for dot, author in dots.items() if self._is_removed(element, dot, author)]:
            del dots[dot]
        if not dots:
            self._dots.pop(element, None)
