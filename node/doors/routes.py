"""The default route for IPv4, from the text of Linux's `/proc/net/route`. Sans-IO.

Source: proc(5).
"""

from __future__ import annotations

import ipaddress

UP_AND_GATEWAY = 0x3
LINES_MAX = 4096


def gateway(table: str) -> str | None:
    """The router that everything unknown is sent to, the one of least metric; None if there is none."""
    best: tuple[int, str] | None = None
    for line in table.splitlines()[1:LINES_MAX]:
        fields = line.split()
        if len(fields) < 8 or len(fields[2]) != 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        try:
            flags, metric = int(fields[3], 16), int(fields[6])
            at = str(ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[2]), "little")))
        except ValueError:
            continue
        if flags & UP_AND_GATEWAY == UP_AND_GATEWAY and (best is None or metric < best[0]):
            best = metric, at
    return best[1] if best is not None else None
