"""Benchmarks: `make bench AREA=<area> [ARGS=--quick]` prints one JSON object per line."""
