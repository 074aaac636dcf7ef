"""Settings of a node, read in one place: TOML file < environment (`QUORATE_*`) < command-line flags.

An unknown key is an error that names it. Every setting is described in `docs/reference/configuration.md`,
which a test compares with this module.
"""

from __future__ import annotations

import os
import re
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from wire.errors import LocalError, Malformed
from wire.peer import from_text

TCP = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/[^/]+/tcp/[0-9]{1,5}(/ws|/wss|/tls(/sni/[^/]+)?/ws)?(/p2p/[^/]+)?")
"""What the transport can use. Read loosely: the transport itself decides on the parts."""

HOST_PORT = re.compile(r"[A-Za-z0-9.-]{1,253}:[0-9]{1,5}")


class Settings(BaseSettings):
    """Everything an operator can choose. Units stand last in each name; amounts are micro-credits."""

    model_config = SettingsConfigDict(env_prefix="QUORATE_", extra="forbid", frozen=True)

    home: Path = Field(default=Path("~/.quorate"), description="Folder of this node's key, databases and API token.")
    listen: list[str] = Field(
        default=["/ip4/0.0.0.0/tcp/0"],
        description="Multiaddrs to listen on, TCP or WebSocket (`/ws`); port 0 takes a free one.",
    )
    fast_path: bool = Field(
        default=True, description="Use our own Noise session and Yamux; false falls back to py-libp2p's."
    )
    deny_peers: list[str] = Field(default=[], description="Peer ids with whom no connection is kept, whoever dialled.")
    deny_subnets: list[str] = Field(
        default=[], description="Subnets, such as 192.0.2.0/24, from and to which no connection is made."
    )
    bootstrap: list[str] = Field(
        default=[], description="Multiaddrs, ending in /p2p/<peer id>, of peers to join through."
    )
    map_port: bool = Field(
        default=True, description="Ask the router to open our TCP port, by PCP, NAT-PMP or UPnP, while we run."
    )
    mdns: bool = Field(
        default=True,
        description="Find peers on private IPv4 networks that we listen on by multicast DNS, and be found.",
    )
    relays: list[str] = Field(
        default=[],
        description="Multiaddrs, ending in /p2p/<peer id>, of relays to be reached through; three are used, and others "
        "are found where these are too few.",
    )
    relay: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Relay for peers that nobody can dial: always, or (auto) a little, once strangers reach this node.",
    )
    relay_budget_micro: int = Field(
        default=0,
        ge=0,
        description="Micro-credits a day for relays that bring us callers beyond their free share; 0 pays nothing.",
    )
    light: bool = Field(default=False, description="Have jobs of light peers, such as browsers, run as our own.")
    light_peers: list[str] = Field(default=[], description="Peer ids of light peers that need no invitation.")
    light_jobs_max: int = Field(default=2, ge=1, le=16, description="Jobs of one light peer at once.")
    light_credit_micro: int = Field(
        default=100_000, ge=0, le=1_000_000_000, description="What one light peer may spend of ours a day (UTC)."
    )
    drain_s: float = Field(
        default=10.0, ge=0, description="Seconds that a node which is told to stop has to finish what is under way."
    )
    webrtc: bool = Field(
        default=True,
        description="Speak WebRTC, where the extra `webrtc` is installed: for browsers, and for punching through UDP.",
    )
    stun_servers: list[str] = Field(
        default=[],
        description="Servers, as <host>:<port>, that tell how our UDP is seen; without any, our relays are asked.",
    )
    api_port: int = Field(default=0, ge=0, le=65535, description="Port of the local API on 127.0.0.1; 0 takes any.")
    serve: bool = Field(default=True, description="Run jobs for others and sit on juries (worker and juror roles).")
    serve_unpaid: bool = Field(
        default=False, description="Also work for policy `none`, where nobody checks and nothing is earned."
    )
    models: list[str] = Field(default=[], description="Names of the models to serve; empty serves all installed.")
    price_percent: int = Field(
        default=100, ge=1, le=10_000, description="Our price as a percentage of the reference price."
    )
    canary_share: float = Field(
        default=0.02,
        ge=0,
        le=0.4,
        description="Share of our asks for audits that are canaries to be rejected, and as many more to be accepted.",
    )
    lend: bool = Field(
        default=True, description="Lend our name, as the worker of canaries, to those who have paid us for work."
    )
    saving_percent: int = Field(
        default=90,
        ge=0,
        le=100,
        description="Share of a job's price that a cheat is assumed to save; decides the audits of a batch.",
    )
    credit_limit_micro: int = Field(
        default=1_000_000, ge=0, description="How far our own balance may fall below zero before we stop spending."
    )
    worker_slots: int = Field(default=2, ge=1, le=64, description="Jobs and audits in progress at once.")
    worker_processes: int = Field(default=1, ge=1, le=64, description="Processes that run models.")
    worker_threads: int = Field(default=1, ge=1, le=256, description="Threads per model process.")
    worker_backend: Literal["default", "torch", "torch-cuda"] = Field(
        default="default",
        description="What computes models: ONNX Runtime and NumPy, or torch (extra `gpu`) on the processor or a GPU.",
    )
    worker_idle_s: float = Field(default=30.0, gt=0, description="Seconds after which an idle model process ends.")
    jobs_queued_max: int = Field(default=64, ge=1, description="Own open jobs before new ones are refused.")
    discovery_s: float = Field(default=5.0, gt=0, description="Seconds to look for enough providers before giving up.")
    accept_s: float = Field(default=5.0, gt=0, description="Seconds a worker has to accept an offer.")
    stall_s: float = Field(default=20.0, gt=0, description="Seconds of silence after which a worker counts as dead.")
    image_spots: int = Field(
        default=1,
        ge=0,
        description="Drawn steps of an image's run that each juror recomputes in the tolerant lane; 0 is all of them.",
    )
    text_spots: int = Field(
        default=0,
        ge=0,
        description="Drawn windows of 32 tokens up to which a juror reads a text; 0 is all of it.",
    )
    juror_s: float = Field(default=20.0, gt=0, description="Seconds a juror has for each of its two answers.")
    sync_period_s: float = Field(default=5.0, gt=0, description="Seconds between rounds of catching up with peers.")
    gossip: bool = Field(
        default=True, description="Tell and hear news by gossip. Without it all of them still come, at the next rounds."
    )
    calibration_authors: list[str] = Field(
        default=[], description="Peer ids whose signed calibrations in <home>/calibrations count, besides our own."
    )
    passphrase_file: Path | None = Field(default=None, description="File holding the passphrase of the key file.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_json: bool = Field(default=False, description="Log one JSON object per line instead of text.")
    cheat: str = Field(
        default="",
        description="Misbehave on purpose, to test the network's defences: the name of a cheat in workloads.cheats.",
    )

    @field_validator("home", "passphrase_file", mode="after")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        """Absolute, for api.json names the token file to clients that run in other folders."""
        return path.expanduser().absolute() if path is not None else None

    @field_validator("listen", "bootstrap", "relays", mode="after")
    @classmethod
    def _multiaddrs(cls, addresses: list[str]) -> list[str]:
        for address in addresses:
            if TCP.fullmatch(address) is None:
                raise ValueError(f"{address!r} is not a TCP multiaddr such as /ip4/192.0.2.7/tcp/4001")
        return addresses

    @field_validator("stun_servers", mode="after")
    @classmethod
    def _hosts_and_ports(cls, servers: list[str]) -> list[str]:
        for server in servers:
            if HOST_PORT.fullmatch(server) is None:
                raise ValueError(f"{server!r} is not <host>:<port>")
        return servers

    @field_validator("deny_subnets", mode="after")
    @classmethod
    def _known_subnets(cls, subnets: list[str]) -> list[str]:
        for subnet in subnets:
            ip_network(subnet)
        return subnets

    @field_validator("calibration_authors", "deny_peers", "light_peers", mode="after")
    @classmethod
    def _peer_ids(cls, authors: list[str]) -> list[str]:
        for author in authors:
            try:
                from_text(author)
            except Malformed as exc:
                raise ValueError(str(exc)) from exc
        return authors

    @field_validator("cheat", mode="after")
    @classmethod
    def _known_cheat(cls, name: str) -> str:
        if name:
            from workloads.cheats import CHEATS

            if name not in CHEATS:
                raise ValueError(f"{name!r} is not known; known: {', '.join(CHEATS)}")
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment; the file is merged beneath both by `load`."""
        return init_settings, env_settings


def load(flags: dict[str, Any], *, file: Path | None = None) -> Settings:
    """Read the settings.

    Args:
        flags: what the command line set; None values are ignored.
        file: TOML file; by default `<home>/config.toml` where that exists.

    Raises:
        LocalError: an unknown key, a bad value or an unreadable file, each named.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    home = Path(given.get("home") or os.environ.get("QUORATE_HOME") or "~/.quorate").expanduser().absolute()
    path = file if file is not None else home / "config.toml"
    base: dict[str, Any] = {}
    if file is not None or path.exists():
        try:
            base = tomllib.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise LocalError(f"{path}: {exc}") from exc
    _refuse_unknown(base, path)
    beneath = {key: value for key, value in base.items() if f"QUORATE_{key.upper()}" not in os.environ}
    try:
        return Settings(**{**beneath, **given})
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in exc.errors()
        )
        raise LocalError(f"settings: {faults}") from exc


def _refuse_unknown(base: dict[str, Any], path: Path) -> None:
    unknown = sorted(set(base) - set(Settings.model_fields))
    if unknown:
        known = ", ".join(sorted(Settings.model_fields))
        raise LocalError(f"{path}: unknown key {unknown[0]!r}; known keys: {known}")
