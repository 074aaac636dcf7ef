"""Hard bounds on operations, on what a replica buffers and on what one sync message carries. Units stand last."""

KEY_BYTES_MAX = 512
"""Longest map key, as UTF-8."""

VALUE_BYTES_MAX = 64 << 10
"""Longest map value."""

ELEMENT_BYTES_MAX = 4 << 10
"""Longest set element."""

DOTS_MAX = 256
"""Adds that one remove can undo; a replica that must undo more writes several removes."""

PARENTS_MAX = 64
"""Heads that one operation can join."""

OP_BYTES_MAX = 96 << 10
"""Longest signed operation, envelope included."""

AUTHOR_OPS_MAX = 100_000
"""Default number of operations on one author's chain in one namespace."""

AUTHOR_BYTES_MAX = 64 << 20
"""Default bytes of the operations on one author's chain in one namespace."""

LOG_BYTES_MAX = 1 << 30
"""Default bytes of all operations that a replica keeps of one namespace: a local backstop, not a shared rule."""

AHEAD_MAX_MS = 60_000
"""How far in the future a stamp may lie before its operation has to wait."""

ORPHANS_MAX = 1024
"""Operations kept while their dependencies are unknown."""

ORPHAN_BYTES_MAX = 8 << 20
"""Bytes of the operations kept while their dependencies are unknown."""

PAGE_OPS_MAX = 256
"""Operations in one sync message."""

PAGE_BYTES_MAX = 768 << 10
"""Bytes of the operations in one sync message; leaves room in a frame for one more operation and the heads."""

HEADS_MAX = 256
"""Heads named in one sync message."""

HAVE_MAX = HEADS_MAX + 64
"""Known operations named in one pull: heads, and samples of the log further back."""

FETCH_MAX = 256
"""Operations asked for by id in one message."""

PULL_PAGES_MAX = 256
"""Pages in one pull; what remains is left to the next one."""
