"""A port that the router opens for us: asked for, renewed at half its time, anew elsewhere, removed at the end.

    async with open_mapping(listening) as mapping:
        mapping.port      # outside, or None

What the router says is a hint: the port is tried by the check (`node.reach`) at the address under which others see us,
and advertised only if strangers got in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node.doors import pcp
from node.doors.asking import NoMapping, Router, by_nat_pmp, by_pcp, by_upnp
from node.doors.pcp import Granted
from node.doors.routes import gateway
from node.reach.addresses import Endpoint, scope

Asking = Callable[[Router, int, int, int], Awaitable[Granted]]

MEANS: dict[str, Asking] = {"pcp": by_pcp, "nat-pmp": by_nat_pmp, "upnp": by_upnp}

LOOK_S = 1.0
"""How often our addresses are looked at."""

RETRY_S, RETRY_S_MAX = 60.0, 3600.0
"""Seconds after which a router that makes no mapping is asked again; twice as long each time."""

RENEW_S_MIN = 30.0
"""However short a router says that a mapping lasts, it is not asked more often."""

GOODBYE_S = 2.0
ROUTES = Path("/proc/net/route")

FindRouter = Callable[[str], Router | None]
"""The router for one of our own IP addresses."""


def find_router(own_ip: str) -> Router | None:
    """The default gateway, if it is on a network of ours."""
    try:
        at = gateway(ROUTES.read_text())
    except OSError:
        return None
    return Router(at, own_ip) if at is not None else None


class Mapping:
    """See `open_mapping`."""

    def __init__(self, listening: Callable[[], list[Endpoint]], means: Collection[str], find: FindRouter) -> None:
        self._listening = listening
        self._all_means = [name for name in MEANS if name in means]
        self._find = find
        self._router: Router | None = None
        self._means: str | None = None
        self._inside: Endpoint | None = None
        self._granted: Granted | None = None
        self._why = "not asked yet"

    @property
    def port(self) -> int | None:
        """The port outside that leads to us, if the router is to be believed."""
        return self._granted.port if self._granted is not None else None

    def view(self) -> dict[str, Any]:
        """What is known, for the API and the doctor."""
        granted = self._granted
        return {
            "by": self._means if granted is not None else None,
            "port": granted.port if granted is not None else None,
            "claimed": granted.ip if granted is not None else None,
            "why_not": None if granted is not None else self._why,
        }

    async def run(self) -> None:
        """Keep a mapping for the address that we have, for ever."""
        retry_s = RETRY_S
        while True:
            inside = self._wanted()
            wait_s = await self._once(inside) if inside is not None else 0.0
            if self._granted is None and inside is not None:
                wait_s, retry_s = retry_s, min(2 * retry_s, RETRY_S_MAX)
            else:
                retry_s = RETRY_S
            due = trio.current_time() + wait_s
            while self._wanted() == inside and (inside is None or trio.current_time() < due):  # noqa: ASYNC110 - no event
                await trio.sleep(LOOK_S)
            if self._wanted() != inside:
                self._granted = None

    def _wanted(self) -> Endpoint | None:
        """What we listen on behind a router."""
        for at in self._listening():
            if ":" not in at.ip and scope(at.ip) == "private":
                return at
        return None

    async def _once(self, inside: Endpoint) -> float:
        """Make or renew; the seconds until the next time."""
        if self._inside != inside or self._router is None:
            self._router, self._inside, self._means = self._find(inside.ip), inside, None
        if self._router is None:
            self._why = "no default gateway"
            return RETRY_S
        outside = self.port or inside.port
        for means in [self._means] if self._means is not None and self._granted is not None else self._all_means:
            try:
                granted = await MEANS[means](self._router, inside.port, outside, pcp.LIFETIME_S)
            except NoMapping as exc:
                self._why = f"{means}: {exc}"
                continue
            if 0 < granted.port <= 65535 and granted.lifetime_s > 0:
                self._means = means
                self._granted = granted
                return max(min(granted.lifetime_s, pcp.LIFETIME_S) / 2, RENEW_S_MIN)
            self._why = f"{means}: granted nothing"
        self._granted = None
        return RETRY_S

    async def remove(self) -> None:
        """Give the mapping back."""
        granted, router, inside = self._granted, self._router, self._inside
        if granted is None or router is None or inside is None or self._means is None:
            return
        self._granted = None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GOODBYE_S):
            try:
                await MEANS[self._means](router, inside.port, granted.port, 0)
            except NoMapping:
                return  # it ends by itself


@asynccontextmanager
async def open_mapping(
    listening: Callable[[], list[Endpoint]], *, means: Collection[str] = tuple(MEANS), find: FindRouter = find_router
) -> AsyncIterator[Mapping]:
    """Keep a mapping of the first private IPv4 address that we listen on, for as long as the scope lasts.

    Args:
        listening: what we listen on now, wildcards replaced by the addresses of our interfaces.
        means: which of `MEANS` to try.
        find: the router to ask.
    """
    async with trio.open_nursery() as nursery:
        mapping = Mapping(listening, means, find)
        nursery.start_soon(mapping.run)
        try:
            yield mapping
        finally:
            nursery.cancel_scope.cancel()
            await mapping.remove()
