"""Cutting a byte stream anywhere, as a network does."""

from __future__ import annotations

from collections.abc import Sequence


def cuts(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    """`stream` in chunks of `sizes`, over and over."""
    chunks, at, turn = [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        chunks.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    return chunks
