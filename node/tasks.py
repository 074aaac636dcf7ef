"""Tasks that may be asked for when it is too late: a transport's handlers outlive the services that they call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio


def start_if_open(nursery: trio.Nursery, run: Callable[..., Awaitable[object]], *args: Any) -> bool:
    """Start a task as `start_soon` does; False, and nothing, if the nursery has ended."""
    try:
        nursery.start_soon(run, *args)
    except RuntimeError:  # what trio raises for a nursery that is closed to new arrivals
        return False
    return True
