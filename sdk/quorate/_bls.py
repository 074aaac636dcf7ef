"""BLS verification: draft-irtf-cfrg-bls-signature, minimal public keys, proof of possession.

py-ecc is the reference. Where `py_arkworks_bls12381` is installed (extra `fast`), the same equations are checked
with it, some hundred times faster; both must give the same answer to every input, and tests hold them to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Protocol, cast

_DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
_POP_DST = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"


class Bls(Protocol):
    """What a receipt needs; False for every key or signature that is no valid point, or the point at infinity."""

    def possession(self, owner: bytes, key: bytes, proof: bytes) -> bool:
        """Whether `proof` (96 bytes) proves that `owner` (32 bytes) possesses the secret of `key` (48 bytes)."""
        ...

    def aggregate(self, keys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
        """FastAggregateVerify: whether all `keys` signed `message`; each key's possession was proven before."""
        ...


class Reference:
    """py-ecc: pure Python, about 0.4 s a check."""

    def possession(self, owner: bytes, key: bytes, proof: bytes) -> bool:
        from py_ecc.bls.ciphersuites import G2ProofOfPossession

        return G2ProofOfPossession._CoreVerify(cast(Any, key), owner + key, cast(Any, proof), _POP_DST)

    def aggregate(self, keys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
        from py_ecc.bls.ciphersuites import G2ProofOfPossession

        return G2ProofOfPossession.FastAggregateVerify(cast(Any, keys), message, cast(Any, signature))


class Arkworks:
    """py_arkworks_bls12381: about 3 ms a check."""

    def possession(self, owner: bytes, key: bytes, proof: bytes) -> bool:
        return self._verify([key], owner + key, proof, _POP_DST)

    def aggregate(self, keys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
        return self._verify(keys, message, signature, _DST)

    def _verify(self, keys: Sequence[bytes], message: bytes, signature: bytes, domain: bytes) -> bool:
        from py_arkworks_bls12381 import GT, G1Point, G2Point

        if not keys or len(signature) != 96 or any(len(key) != 48 for key in keys):
            return False
        try:
            points = [G1Point.from_compressed_bytes(key) for key in keys]
            signed = G2Point.from_compressed_bytes(signature)
        except ValueError:
            return False
        total = sum(points[1:], points[0])
        if total == G1Point.identity() or any(point == G1Point.identity() for point in points):
            return False
        return GT.pairing_check([total, -G1Point()], [G2Point.hash_to_curve(message, domain), signed])


@lru_cache(maxsize=1)
def best() -> Bls:
    """The fastest backend that is installed."""
    return Arkworks() if find_spec("py_arkworks_bls12381") else Reference()
