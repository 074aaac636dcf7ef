"""What peers owe one another: one signed, hash-chained log per peer, whose entries link across chains.

There is no global order and no coin. `entry`, `fork`, `state`, `rules`, `chain` and `audit` are pure; `store` keeps
entries in SQLite; `service` is the trio shell that signs, commits and only then releases. The wire format is
`docs/spec/ledger.md`.
"""
