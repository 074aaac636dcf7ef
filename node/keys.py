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
    """Key records by peer; once it is full the one learned longest ago goes, and can be learned again when needed."""

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
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
        self._records.pop(author, None)
        self._records[author], self._keys[author] = record, bls
        while len(self._records) > self._keys_max:
            oldest = next(iter(self._records))
            del self._records[oldest], self._keys[oldest]
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
