"""Gossip: small signed digests that reach every peer within seconds; docs/spec/gossip.md has the rules.

Everything but `service` is sans-IO: bytes, values, `now` and a seeded generator in; bytes and events out.
"""
