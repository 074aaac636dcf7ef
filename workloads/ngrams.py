"""Texts as hashed byte n-gram counts: the features of the embedding model.

Each lower-cased word, between spaces, gives its byte 3- to 5-grams and itself; CRC-32 picks the bucket. A count c
weighs sqrt(c), and each text is scaled to unit length. Square roots and divisions are exactly rounded by IEEE 754, so
the features do not depend on the machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(rb"[a-z0-9\x80-\xff]+|[^\sa-z0-9\x80-\xff]+")


def buckets(text: str, count: int) -> Counter[int]:
    """How often each of `count` buckets is hit by the n-grams of `text`."""
    found: Counter[int] = Counter()
    for word in _WORD.findall(text.lower().encode(errors="replace")):
        padded = b" " + word[:40] + b" "
        found[crc32(b"=" + padded) % count] += 1
        for n in (3, 4, 5):
            for at in range(len(padded) - n + 1):
                found[crc32(padded[at : at + n]) % count] += 1
    return found


def features(texts: Sequence[str], count: int) -> NDArray[np.float64]:
    """f8[n, count]: one row of unit length per text; zeros for a text without words."""
    rows = np.zeros((len(texts), count))
    for row, text in zip(rows, texts, strict=True):
        found = buckets(text, count)
        if found:
            row[list(found)] = np.sqrt(np.array(list(found.values()), dtype=np.float64))
            row /= np.sqrt(float(sum(found.values())))
    return rows
