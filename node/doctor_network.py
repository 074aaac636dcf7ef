"""`quorate doctor network`: where this node is reached, by which path, and the fix. Pure: it reads one view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from node.doctor import Check, reached

NATS = {
    "unknown": "too few peers have told yet where they see this node",
    "none": "this machine has the address that others see",
    "cone": "a router that keeps the port: hole punching works",
    "symmetric": "a router with a new port for each destination: hole punching fails, relays carry on",
}


def network_checks(about: dict[str, Any]) -> list[Check]:
    """Findings, from what `GET /api/v1/node` says.

    Args:
        about: with `reach`, `addresses` and `peers_connected`.
    """
    view = about["reach"]
    if view is None:
        return [Check("network", False, "this node does not run on a real network", "start it with quorate up")]
    return [
        _peers(about, view),
        _nat(view),
        *_mapping(view["mapping"]),
        *_addresses(view),
        _relays(view),
        reached(view),
        Check("advertised", bool(about["addresses"]), ", ".join(about["addresses"]) or "nothing"),
        _relaying(view["relaying"]),
    ]


def _peers(about: dict[str, Any], view: dict[str, Any]) -> Check:
    ways = f"{view['peers_direct']} directly, {view['peers_relayed']} through relays"
    fix = "" if about["peers_connected"] else "name a node that runs in `bootstrap`"
    return Check("peers", not fix, ways, fix)


def _nat(view: dict[str, Any]) -> Check:
    seen = f"; seen as {view['seen']}" if view["seen"] else ""
    return Check("nat", True, f"{view['nat']}: {NATS[view['nat']]}{seen}")


def _mapping(told: dict[str, Any] | None) -> Iterator[Check]:
    """What the router was asked for; whether strangers get in there is said of the address."""
    if told is not None and told["port"] is not None:
        yield Check("mapping", True, f"the router says that it opened TCP port {told['port']}, by {told['by']}")
    elif told is not None:
        yield Check("mapping", True, f"no router opens a port for this node ({told['why_not']})")


def _addresses(view: dict[str, Any]) -> Iterator[Check]:
    """Each address at which strangers may reach this node, with what they said of it."""
    for claim in view["claims"]:
        address, reached_by, failed_by = claim["address"], claim["reached"], claim["failed"]
        told = f"{address}: {reached_by} peers reached it from outside, {failed_by} did not"
        if address in view["proven"] or not failed_by:
            yield Check("address", True, told)
            continue
        port = address.rpartition("/")[2]
        yield Check("address", False, told, f"forward TCP port {port} to this machine, or let it through the firewall")


def _relays(view: dict[str, Any]) -> Check:
    held, named, known = len(view["relays"]), view["relays_configured"], view["relays_known"]
    told = f"{held} let callers in; {named} named in `relays`, {known} found by this node"
    if held or view["proven"] or not view["claims"]:
        return Check("relays", True, told)
    fix = "" if known or named else "join a network that has relays (`bootstrap`), or name some in `relays`"
    return Check("relays", False, told, fix or "wait a minute; if it stays, name other relays in `relays`")


def _relaying(told: dict[str, Any] | None) -> Check:
    if told is None:
        return Check("relaying", True, "switched off (`relay`)")
    if not told["serving"]:
        return Check("relaying", True, "begins once strangers are known to reach this node")
    return Check("relaying", True, relaying_line(told))


def relaying_line(told: dict[str, Any]) -> str:
    """What a relay carries, in one line."""
    places = f"{told['reservations']} of {told['reservations_max']} reservations"
    circuits = f"{told['circuits']} of {told['circuits_max']} circuits"
    passed = f"{told['bytes_passed'] / 1e6:,.1f} MB passed, {told['refused']} refused"
    return f"{places}, {circuits}, {passed}, {told['earned_micro']:,} micro-credits earned"
