"""`quorate doctor`: what works, what does not, and the fix. Prints nothing secret."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.config import Settings
from node.identity import KEY_FILE, load_or_create
from wire.errors import LocalError

FREE_BYTES_MIN = 100 << 20


@dataclass(frozen=True)
class Check:
    """One finding; `fix` is empty where nothing is wrong."""

    name: str
    ok: bool
    finding: str
    fix: str = ""


def examine(home: Path | None) -> list[Check]:
    """All checks, in the order in which they depend on one another."""
    from node import config

    try:
        settings = config.load({"home": home})
    except LocalError as exc:
        return [Check("settings", False, str(exc), "correct the named key")]
    checks = [Check("settings", True, f"home {settings.home}"), *_disk(settings), *_key(settings), *_models()]
    return [*checks, *_node(settings)]


def _disk(settings: Settings) -> Iterator[Check]:
    folder = settings.home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield Check("disk", False, f"{folder} cannot be written", "make it writable or choose another with --home")
        return
    free = shutil.disk_usage(folder).free
    ok = free >= FREE_BYTES_MIN
    fix = f"free at least {FREE_BYTES_MIN >> 20} MB, or choose another folder with --home"
    yield Check("disk", ok, f"{free >> 20} MB free", "" if ok else fix)


def _key(settings: Settings) -> Iterator[Check]:
    path = settings.home / KEY_FILE
    if not path.exists():
        yield Check("key", True, "none yet; made at the first start")
        return
    try:
        load_or_create(settings)
    except LocalError as exc:
        yield Check("key", False, str(exc), _key_fix(path, str(exc)))
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    yield Check("key", True, f"{KEY_FILE} has mode {mode:04o}")


def _key_fix(path: Path, said: str) -> str:
    if "chmod" in said:
        return f"chmod 600 {path}"
    if "passphrase" in said:
        return "name the file that holds the passphrase: QUORATE_PASSPHRASE_FILE, or passphrase_file in config.toml"
    return f"move {path} away and restore a backup: quorate id restore FILE --passphrase-file P"


def _models() -> Iterator[Check]:
    from workloads.catalog import built_in

    try:
        names = sorted(built_in().models)
    except LocalError as exc:
        yield Check("models", False, str(exc), "reinstall quorate-node")
        return
    yield Check("models", bool(names), ", ".join(names) or "none installed", "" if names else "reinstall quorate-node")


def _node(settings: Settings) -> Iterator[Check]:
    path = settings.home / "api.json"
    if not path.exists():
        yield Check("node", False, "not running on this home", f"quorate up --home {settings.home}")
        return
    from node.local import open_local

    try:
        with open_local(settings.home) as client:
            about = client.raw("GET", "/api/v1/node")
            models = client.raw("GET", "/api/v1/models")["models"]
            audit = client.raw("POST", "/api/v1/ledger/audit")
    except LocalError as exc:
        fix = f"if it was killed: quorate up --home {settings.home}; if it hangs, stop it first"
        yield Check("node", False, f"does not answer: {exc}", fix)
        return
    yield Check("node", True, f"running for {about['uptime_s']:.0f} s, peer {about['peer']}")
    yield from _network(about, models)
    if about.get("reach") is not None:
        yield reached(about["reach"])
    yield Check("ledger", audit["ok"], f"{audit['entries']} entries", "" if audit["ok"] else "; ".join(audit["issues"]))


def _network(about: dict[str, Any], models: list[dict[str, Any]]) -> Iterator[Check]:
    peers = about["peers_connected"]
    fix = "" if peers else "start with --bootstrap ADDRESS, which a node that runs prints as `ready`"
    yield Check("peers", peers > 0, f"{peers} connected", fix)
    enough = {m["name"]: m["providers"] for m in models}
    served = any(count >= 4 for count in enough.values())
    counts = ", ".join(f"{name}: {count}" for name, count in enough.items()) or "none"
    need = "a job of yours needs a worker and three jurors: wait for more peers, or serve the model on more nodes"
    yield Check("providers", served, counts, "" if served else need)


def reached(view: dict[str, Any]) -> Check:
    """From where, and by which path, others reach this node; what to do where they cannot."""
    ways = f"{view['peers_direct']} peers directly, {view['peers_relayed']} through relays; NAT: {view['nat']}"
    if view["proven"]:
        return Check("reachable", True, f"from anywhere, at {', '.join(view['proven'])} ({ways})")
    if view["relays"]:
        return Check("reachable", True, f"through {len(view['relays'])} relays, then directly where possible ({ways})")
    failed = [claim["address"] for claim in view["claims"] if claim["failed"]]
    if failed:
        port = failed[0].rpartition("/")[2]
        fix = f"forward TCP port {port} to this machine, or let it through the firewall; or wait until relays are found"
        return Check("reachable", False, f"strangers fail to connect to {', '.join(failed)} ({ways})", fix)
    if view["relays_configured"]:
        return Check("reachable", False, f"no relay gives a reservation ({ways})", "name other relays in `relays`")
    return Check("reachable", True, f"from peers that connected; nobody has checked from elsewhere yet ({ways})")


def render(checks: list[Check]) -> str:
    """The checks as text, one per line, each fix beneath its finding."""

    lines = []
    for check in checks:
        lines.append(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<10} {check.finding}")
        if check.fix:
            lines.append(f"      fix: {check.fix}")
    return "\n".join(lines)
