"""The simulated network and worlds of nodes under a virtual clock; imports `wire` only."""
