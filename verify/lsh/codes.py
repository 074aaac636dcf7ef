"""Packed binary codes and their structure-of-arrays form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wire.errors import LocalError

Codes = NDArray[np.uint64]
Columns = NDArray[np.uint64]

WORD_BITS = 64
WORDS = (1, 4)
CODES_MAX = 1 << 31


def pack(bits: NDArray[np.bool_]) -> Codes:
    """bool[n, 64 w] as codes uint64[n, w].

    Raises:
        LocalError: another dtype, or a width that is not a multiple of 64.
    """
    if bits.dtype != np.bool_ or bits.ndim != 2 or bits.shape[1] % WORD_BITS:
        raise LocalError(f"bool[n, 64 w] expected, not {bits.dtype}{list(bits.shape)}")
    packed = np.packbits(bits, axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64)


def unpack(codes: Codes) -> NDArray[np.bool_]:
    """uint64[n, w] as bool[n, 64 w]; undoes `pack`."""
    octets = np.ascontiguousarray(codes.astype("<u8")).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").astype(np.bool_)


def columns(codes: Codes) -> Columns:
    """Checked codes, one contiguous row per word: uint64[w, n].

    Raises:
        LocalError: not uint64[n, 1] or uint64[n, 4], or 2^31 codes or more.
    """
    if codes.dtype != np.uint64 or codes.ndim != 2 or codes.shape[1] not in WORDS:
        raise LocalError(f"codes are uint64[n, 1] or uint64[n, 4], not {codes.dtype}{list(codes.shape)}")
    if len(codes) >= CODES_MAX:
        raise LocalError(f"{len(codes)} codes; at most {CODES_MAX - 1}")
    return np.ascontiguousarray(codes.T)
