"""The BLS keys of other peers, each proven by a key record that the peer signed, and the peers that announced two."""

from __future__ import annotations

from itertools import islice, product

from ledger.ports import Finding
from wire.certificate import check
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.identity import check_key_record
from wire.job import Certificate
from wire.peer import PeerId
from wire.two_keys import TwoKeys, prove
from wire.two_keys import check as check_two_keys

KEYS_MAX = 4096
PROOFS_MAX = 1024
COMBINATIONS_MAX = 16
"""Ways to combine the keys of signers who have two that are tried for one certificate."""


class SecondKey(Malformed):
    """A proper key record of a peer that has announced another key before; the proof is kept."""


class Keyring:
    """Key records by peer; once it is full the one learned longest ago goes, and can be learned again when needed.

    The key that was seen first stays a peer's key. Of one that shows another, both are kept as the proof of it: it is
    not drawn any more, and certificates under either key still hold, for those who made them were shown that one.
    """

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._records: dict[PeerId, Envelope] = {}
        self._keys: dict[PeerId, bytes] = {}
        self._proofs: dict[PeerId, TwoKeys] = {}

    def learn(self, record: Envelope, *, author: PeerId) -> bytes:
        """Check a key record and keep it; returns the 48-byte BLS key.

        Raises:
            SecondKey: the peer has announced another key before.
            Malformed: not signed by `author`, or the proof of possession fails.
        """
        known = self._records.get(author)
        if known == record:
            return self._keys[author]
        peer, bls = check_key_record(record)
        if peer != author:
            raise Malformed("a key record of another peer")
        if known is not None and (proof := prove(known, record)) is not None:
            self._convict(author, proof)
            raise SecondKey("announces a second BLS key")
        self._records.pop(author, None)
        self._records[author], self._keys[author] = record, bls
        while len(self._records) > self._keys_max:
            oldest = next(iter(self._records))
            del self._records[oldest], self._keys[oldest]
        return bls

    def learn_proof(self, proof: TwoKeys) -> PeerId:
        """Check a proof that somebody else made, and keep it; returns the peer that it convicts.

        Raises:
            Malformed: it proves nothing.
        """
        peer = check_two_keys(proof)
        self._convict(peer, proof)
        return peer

    def _convict(self, peer: PeerId, proof: TwoKeys) -> None:
        self._proofs.setdefault(peer, proof)
        while len(self._proofs) > PROOFS_MAX:
            del self._proofs[next(iter(self._proofs))]

    def record(self, peer: PeerId) -> Envelope | None:
        """The key record of a peer, if known."""
        return self._records.get(peer)

    def two_faced(self) -> dict[PeerId, TwoKeys]:
        """Peers that announced two keys, with the proof."""
        return dict(self._proofs)

    def check(self, certificate: Certificate, *, quorum: int) -> Finding:
        """The ledger's `CertificateCheck`: "unknown" while a signer's key has not been seen."""
        if any(signer not in self._keys for signer in certificate.signers):
            return "unknown"
        choices = product(*(self._keys_of(signer) for signer in certificate.signers))
        for keys in islice(choices, COMBINATIONS_MAX):
            try:
                check(certificate, dict(zip(certificate.signers, keys, strict=True)), quorum=quorum)
            except Malformed:
                continue
            return "valid"
        return "invalid"

    def _keys_of(self, peer: PeerId) -> list[bytes]:
        proof = self._proofs.get(peer)
        second = [] if proof is None else [check_key_record(each)[1] for each in (proof.first, proof.second)]
        return list(dict.fromkeys([self._keys[peer], *second]))
