"""`python -m node.offline RECEIPT ...`: verify receipts in a process that cannot open a socket.

An audit hook (PEP 578) refuses every `socket.*` event, so that "offline" is enforced and not promised.
"""

from __future__ import annotations

import sys
from typing import Any


def _no_network(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith("socket."):
        raise PermissionError(f"{event}: this process verifies offline")


def main() -> int:
    """Verify as `python -m quorate.receipt`, without a network."""
    sys.addaudithook(_no_network)
    from quorate._receipt_cli import main as verify

    return verify(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
