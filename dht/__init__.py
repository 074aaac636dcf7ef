"""Kademlia over the Transport seam: who is out there, and who signed which record about what.

`table`, `lookup`, `record`, `provider`, `shelf` and `core` are pure; `store` is SQLite, `service` is trio.
Source: Maymounkov and Mazieres, "Kademlia: A Peer-to-peer Information System Based on the XOR Metric", 2002.
"""
