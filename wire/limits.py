"""Hard bounds on everything that can arrive from the network. Units stand last in each name."""

FRAME_BYTES_MAX = 1 << 20
"""Longest frame on a channel."""

ENVELOPE_BYTES_MAX = 256 << 10
"""Longest signed envelope."""

RECEIPT_BYTES_MAX = 512 << 10
"""Longest receipt."""

TENSOR_BYTES_MAX = 512 << 10
"""Longest single tensor inside a message."""

TENSORS_MAX = 16
"""Tensors in one output or trace."""

INPUT_BYTES_MAX = 64 << 10
"""Longest encoded job input."""

STEPS_DRAWN_MAX = 4096
"""Longest run of which single steps may be drawn."""

WINDOW_TOKENS = 32
"""Tokens of a text that are drawn together, and whose sketch has 256 bytes."""

DEPTH_MAX = 16
"""Deepest nesting of arrays and maps in any message."""

JURY_POOL_MAX = 64
"""Peers in one jury pool."""

JURY_MAX = 21
"""Peers in one jury."""

JURIES_MAX = 256
"""Juries that one offer may name."""

CHANNELS_PER_PEER_MAX = 44
"""Channels that one peer may have open to another at once; more are reset. With the 256 KiB that each may send at
once and the 3 MiB by which windows grow, they come to 14 MiB."""

ADDRESSES_PER_PEER_MAX = 8
"""Addresses remembered for one peer."""
