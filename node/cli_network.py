"""`quorate peers`: whom this node knows, and how it is connected with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import typer

from node.cli_base import AsJson, Home, client, show_json


def peers(home: Home = None, as_json: AsJson = False) -> None:
    """Peers this node knows: how it reaches them, how far it trusts them and why, and what audits have said of them."""
    with client(home) as local:
        known = local.raw("GET", "/api/v1/peers")["peers"]
        ranks = {r["peer"]: r for r in local.raw("GET", "/api/v1/ranking")["ranking"]}
    if as_json:
        show_json([{**peer, "ranking": ranks.get(peer["peer"])} for peer in known])
        return
    for peer in sorted(known, key=lambda p: ranks[p["peer"]]["rank"] if p["peer"] in ranks else len(ranks) + 1):
        rank = ranks.get(peer["peer"])
        why = f"#{rank['rank']} {rank['score']:.3f}  {rank['why']}" if rank else "not ranked yet"
        typer.echo(f"{peer['peer']}  {'connected' if peer['connected'] else 'known':<9}  {why}")
        for connection in peer["connections"]:
            typer.echo(f"    {describe(connection)}")
        if peer["penalties"]["count"]:
            faults = peer["penalties"]
            typer.echo(f"    blamed {faults['count']} times, {faults['total']:g} in all; last: {faults['last']}")
        for record in peer["records"]:
            audits = f"audits {record['audits']}, failed {record['failures']}"
            ejected = "yes" if record["ejected"] else "no, all its work is audited" if record["watched"] else "no"
            typer.echo(f"    as {record['role']} of {record['model']}: {audits}, ejected {ejected}")
    if not known:
        typer.echo("no peers yet; start with --bootstrap ADDRESS of a node that runs", err=True)


def describe(connection: dict[str, Any]) -> str:
    """One connection in one line."""
    since = datetime.fromtimestamp(connection["since_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    path = "direct" if connection["path"] == "direct" else f"via relay {(connection['via'] or 'unknown')[-8:]}"
    rtt = f", {connection['rtt_ms']:.2f} ms" if connection["rtt_ms"] is not None else ""
    moved = ""
    if connection["bytes_in"] is not None:
        moved = f", {_size(connection['bytes_in'])} in, {_size(connection['bytes_out'])} out"
    where = connection["address"] or "unknown address"
    return (
        f"{path}, {connection['direction']}, {connection['transport']} {where}, since {since}, "
        f"{connection['streams']} streams{moved}{rtt}"
    )


def _size(count: float) -> str:
    if count < 1024:
        return f"{count:.0f} B"
    units = iter(("KiB", "MiB", "GiB", "TiB"))
    unit, count = next(units), count / 1024
    while count >= 1024 and unit != "TiB":
        unit, count = next(units), count / 1024
    return f"{count:.1f} {unit}"
