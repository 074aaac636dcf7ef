"""Shared state without a server: signed, hash-linked operations that converge even with liars present.

`crdt` holds descriptive state only (models, ratings, tags); money and access rights live in the ledger.
Cores (`hlc`, `op`, `lww_map`, `or_set`, `dag`, `replica`, `sync`) are pure; `store` and `service` do the I/O.
"""
