"""Every constant of the DHT, in one place. Units stand last in each name."""

from __future__ import annotations

K = 20
"""Contacts in a bucket, and nodes that hold a record (Kademlia, section 2.2)."""

ALPHA = 3
"""Requests that a look-up keeps under way (Kademlia, section 2.3)."""

SLOW_ASKS_MAX = 9
"""Overdue requests that a look-up leaves under way beside those."""

ASKS_MAX = 160
"""Requests that one look-up may make, whatever it is told."""

CANDIDATES_MAX = 480
"""Peers that one look-up remembers."""

VALUES_MAX = 1024
"""Records that one look-up collects."""

ADDRESSES_MAX = 8
"""Addresses kept for one contact, and allowed in one message about one peer."""

ADDRESS_CHARS_MAX = 200
"""Longest address; a relayed multiaddr has about 170 characters."""

FAILURES_MAX = 2
"""Calls in a row that a contact may leave unanswered before it loses its seat."""

PROBE_AGE_MS = 60_000
"""How long ago the oldest contact of a full bucket must have answered before a newcomer makes us ask again."""

PENALTY_HALF_LIFE_MS = 600_000
"""Time in which a penalty halves."""

PENALTIES_MAX = 1024
"""Peers whose penalties are remembered."""

PENALTY_YIELD = 0.5
"""From this penalty on a contact gives up its seat as soon as somebody else wants it."""

PENALTY_BAN = 1.0
"""From this penalty on a peer is neither kept, asked nor answered."""

PENALTY_PARDON = 0.5
"""Until its penalty has decayed to this."""

RECORD_BODY_BYTES_MAX = 4096
"""Longest body of a record."""

RECORD_BYTES_MAX = 4608
"""Longest record in its envelope."""

NAMESPACE_CHARS_MAX = 32
"""Longest namespace."""

CLOCK_SKEW_MS = 60_000
"""How far in our future a record may have been issued."""

PROVIDER_LIFE_MS = 600_000
"""Longest life of a provider ad."""

VALUE_LIFE_MS = 24 * 3_600_000
"""Longest life of any other record."""

RECORDS_PER_KEY_MAX = 128
"""Authors that one node keeps under one key."""

RECORDS_PER_AUTHOR_MAX = 256
"""Records that one node keeps of one author."""

RECORDS_MAX = 50_000
"""Records that one node keeps."""

RECORDS_BYTES_MAX = 48 << 20
"""Bytes of records that one node keeps."""

TRIM_SHARE = 0.95
"""A full shelf is trimmed to this share, so that trimming is rare."""

STORE_RECORDS_MAX = 32
"""Records in one request to store."""

EVIDENCE_MAX = 256
"""Equivocations remembered."""

CHECKED_MAX = 2048
"""Checked records remembered, so that twenty copies of one record cost one signature check."""

PROBES_MAX = 32
"""Peers waiting to be probed; more are not remembered."""

CONTACTS_SAVED_MAX = 256
"""Contacts written to disk, to come back without a bootstrap peer."""
