"""The BLS keys of other peers, each proven by a key record that the peer signed."""

from __future__ import annotations

from ledger.ports import Finding
from wire.certificate import check
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.identity import check_key_record
from wire.job import Certificate
from wire.peer import PeerId

KEYS_MAX = 4096


class Keyring:
    """Key records by peer; bounded, first come first kept once full (a record can be learned again when needed)."""

    def __init__(self) -> None:
        self._records: dict[PeerId, Envelope] = {}
        self._keys: dict[PeerId, bytes] = {}

    def learn(self, record: Envelope, *, author: PeerId) -> bytes:
        """Check a key record and keep it; returns the 48-byte BLS key.

        Raises:
            Malformed: not signed by `author`, or the proof of possession fails.
        """
        known = self._records.get(author)
        if known == record:
            return self._keys[author]
        peer, bls = check_key_record(record)
        if peer != author:
            raise Malformed("a key record of another peer")
        if author in self._records or len(self._records) < KEYS_MAX:
            self._records[author], self._keys[author] = record, bls
        return bls

    def record(self, peer: PeerId) -> Envelope | None:
        """The key record of a peer, if known."""
        return self._records.get(peer)

    def check(self, certificate: Certificate, *, quorum: int) -> Finding:
        """The ledger's `CertificateCheck`: "unknown" while a signer's key has not been seen."""
        if any(signer not in self._keys for signer in certificate.signers):
            return "unknown"
        try:
            check(certificate, self._keys, quorum=quorum)
        except Malformed:
            return "invalid"
        return "valid"
