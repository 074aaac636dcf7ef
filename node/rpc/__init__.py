"""Calls over any transport: trio around the cores of `wire.rpc` (docs/spec/rpc.md)."""
