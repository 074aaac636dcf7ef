"""A network in a box: hosts behind routers of every NAT kind, all of it in Linux namespaces.

    with open_lab() as lab:
        server = lab.public()
        home = lab.behind(Nat.CONE)

One process, the *stage*, is the first of a PID namespace of its own and holds the network namespace of the wide area
network, a bridge. Each host and router is a network namespace held by a process inside that PID namespace. Nothing
has a name on the machine: when the stage ends, and it ends when its standard input does, so also if the test run is
killed, the kernel ends every process in it and removes every namespace and interface with them.

NAT kinds after RFC 4787 (mapping, filtering), as nftables does them:

- full cone: each port of the router leads to the one host behind it, whoever asks;
- cone: mapping independent of the endpoint (the source port is kept), filtering by address and port;
- symmetric: a random new port for each destination, filtering by address and port;
- refusing: a cone that answers a TCP SYN which nobody asked for with a reset, so that of two that cross in the routers
  one is refused, and drops such datagrams;
- firewall: no translation, but nothing comes in that was not asked for;
- upnp: a cone with miniupnpd, which opens ports for those inside who ask by UPnP, NAT-PMP or PCP.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

TOOLS = ("ip", "nft", "unshare", "nsenter", "setpriv")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
ENDS_WITH_ITS_INPUT = "exec cat > /dev/null"
COMMAND_S = 20
CORE = "203.0.113.254"
"""The router of the wide area network."""
CORE6 = "2001:db8::fffe"


class Nat(Enum):
    """What stands between a host and the wide area network."""

    NONE = "none"
    FULL = "full"
    CONE = "cone"
    SYMMETRIC = "symmetric"
    REFUSING = "refusing"
    FIREWALL = "firewall"
    UPNP = "upnp"


_CLOSED = """
  chain to_it { type filter hook input priority 0; policy drop;
    iifname != "wan" accept; ct state established,related accept; }
  chain through { type filter hook forward priority 0; policy drop;
    iifname != "wan" accept; ct state established,related accept; ct status dnat accept; }
"""
_CLOSED6 = """
  chain to_it { type filter hook input priority 0; policy drop;
    meta l4proto ipv6-icmp accept; iifname != "wan" accept; ct state established,related accept; }
  chain through { type filter hook forward priority 0; policy drop;
    iifname != "wan" accept; ct state established,related accept; }
"""
_MAPPED = """
table inet filter {
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain forward { type filter hook forward priority -10; policy accept; jump miniupnpd; }
  chain prerouting { type nat hook prerouting priority -101; policy accept; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority 99; policy accept; jump postrouting_miniupnpd; }
}
"""
CLAIMED = "8.8.4.4"
"""What the mapping router says its address is: it refuses to work with the documentation range, and lies."""
_DAEMON = f"""
ext_ifname=wan
listening_ip=lan
ext_ip={CLAIMED}
enable_upnp=yes
enable_natpmp=yes
secure_mode=yes
notify_interval=60
uuid=0d7b5b5c-3c3e-4b7e-9a53-3c1a5b0f7b11
allow 1024-65535 10.0.0.0/8 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""
_REFUSES = """
  chain refusing { type filter hook input priority -1; policy accept;
    iifname "wan" ct state new meta l4proto tcp reject with tcp reset; }
"""
_RULES = {
    Nat.FULL: """
  chain arriving {{ type nat hook prerouting priority -100; iifname "wan" meta l4proto {{ tcp, udp }} dnat to {host}; }}
  chain leaving {{ type nat hook postrouting priority 100; oifname "wan" masquerade; }}
""",
    Nat.CONE: """
  chain leaving {{ type nat hook postrouting priority 100; oifname "wan" masquerade; }}
""",
    Nat.UPNP: """
  chain leaving {{ type nat hook postrouting priority 100; oifname "wan" masquerade; }}
""",
    Nat.REFUSING: """
  chain leaving {{ type nat hook postrouting priority 100; oifname "wan" masquerade; }}
""",
    Nat.SYMMETRIC: """
  chain leaving {{ type nat hook postrouting priority 100; oifname "wan" masquerade fully-random; }}
""",
}


class LabError(Exception):
    """A command that builds the lab failed; says which and why."""


@cache
def obstacle() -> str | None:
    """Why no lab can be built on this machine, or None."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine (Debian: iproute2, nftables, util-linux)"
    try:
        with open_lab() as lab:
            lab.behind(Nat.CONE)
    except LabError as exc:
        return f"namespaces are not permitted here: {exc}"
    return None


def _as_user() -> list[str]:
    return [] if os.geteuid() == 0 else ["--user", "--map-root-user"]


@dataclass
class Space:
    """One network namespace: a host or a router."""

    lab: Lab
    name: str
    pid: int  # of its holder, in the PID namespace of the stage
    addresses: list[str]
    router: Router | None = None

    @property
    def outside(self) -> str:
        """The address under which the wide area network sees what comes from here."""
        return self.address if self.router is None else self.router.outside

    @property
    def address(self) -> str:
        """The address by which its neighbours know it."""
        return self.addresses[0]

    def command(self, *argv: str) -> list[str]:
        """What to start in order to run `argv` in here, from outside; killing what was started kills it too."""
        tied = ["setpriv", "--pdeathsig=KILL", "--"]
        return [*self.lab.enter(), "nsenter", f"--target={self.pid}", "--net", "--", *tied, *argv]

    def run(self, script: str) -> str:
        """Run a shell script in here to its end; its output.

        Raises:
            LabError: it failed.
        """
        return _finish(self.command("sh", "-ec", script))


@dataclass
class Router(Space):
    """A namespace with the interface `wan` outwards and `lan` inwards."""

    translates: bool = True

    @property
    def gateway(self) -> str:
        """Its address on the inside."""
        return self.addresses[1]


class Lab:
    """Builds namespaces; see `open_lab`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._count = 0
        stage = self._hold(
            ["unshare", *_as_user(), "--net", "--pid", "--mount", "--fork", "--kill-child", "sh", "-ec"],
            # the stage still sees the old /proc, and in it its own number as this test run knows it
            f"read pid rest < /proc/self/stat; mount -t proc proc /proc; echo $pid; {ENDS_WITH_ITS_INPUT}",
        )
        self.stage = stage
        # the stage itself is the router of the wide area network, for networks behind routers that do not translate
        self._wan(
            f"ip link set lo up; ip link add wan type bridge; ip link set wan up; ip addr add {CORE}/24 dev wan;"
            "echo 1 > /proc/sys/net/ipv4/ip_forward;"
            f"ip addr add {CORE6}/64 dev wan nodad; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
        )

    def enter(self) -> list[str]:
        """The words before a command that is to run on the stage."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.stage}", *user, "--mount", "--pid", "--net", "--"]

    def public(self) -> Space:
        """A host with an address of its own on the wide area network."""
        self._count += 1
        host = self._space(f"public{self._count}", [f"203.0.113.{self._count}"])
        self._plug(host)
        return host

    def router(self, nat: Nat, *, behind: Router | None = None) -> Router:
        """A router on the wide area network, or behind another router."""
        self._count += 1
        number = self._count
        outside = f"203.0.113.{number}" if behind is None else f"{behind.gateway.rpartition('.')[0]}.{number + 2}"
        inside = f"10.0.{number}" if nat is not Nat.FIREWALL else f"198.51.{number}"
        space = self._space(f"router{number}", [outside, f"{inside}.1"])
        router = Router(self, space.name, space.pid, space.addresses, behind, translates=nat is not Nat.FIREWALL)
        if behind is None:
            self._plug(router)
        else:
            self._cable(behind, router)
        router.run(
            f"ip link add lan type bridge; ip link set lan up; ip addr add {router.gateway}/24 dev lan;"
            "echo 1 > /proc/sys/net/ipv4/ip_forward"
        )
        rules = _RULES.get(nat, "").format(host=f"{inside}.2")
        closed = "" if nat is Nat.FULL else _CLOSED
        if nat is Nat.REFUSING:
            closed += _REFUSES
        router.run(f"nft -f - <<'END'\ntable ip lab {{ {rules} {closed} }}\nEND")
        if nat is Nat.UPNP:
            self._map_ports(router)
        if nat is Nat.FIREWALL:  # its hosts have addresses that the others can route to
            self._wan(f"ip route add {inside}.0/24 via {outside}")
        return router

    def host(self, router: Router, number: int = 2) -> Space:
        """A host behind a router; the second has number 3."""
        address = f"{router.gateway.rpartition('.')[0]}.{number}"
        host = self._space(f"host of {router.name}", [address])
        host.router = router if router.translates else None
        self._cable(router, host)
        return host

    def behind(self, nat: Nat) -> Space:
        """A host behind a router of its own, or a public one."""
        return self.public() if nat is Nat.NONE else self.host(self.router(nat))

    def _map_ports(self, router: Router) -> None:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "conf").write_text(_DAEMON)
        router.run(f"nft -f - <<'END'\n{_MAPPED}\nEND\nip route add 239.0.0.0/8 dev lan")
        daemon = ["miniupnpd", "-d", "-f", str(folder / "conf"), "-P", str(folder / "pid")]
        process = subprocess.Popen(
            router.command(*daemon),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": PATH},
        )
        self._stack.callback(_end, process)

    def renumber(self, router: Router) -> None:
        """Give a router another address outside, as a provider does at night: all its translations are void."""
        self._count += 1
        new = f"203.0.113.{self._count}"
        router.run(f"ip link set wan down; ip addr flush dev wan; {_wan_address(new)}")
        router.addresses[0] = new

    # ---- IPv6

    def public6(self, *, dual: bool = False) -> Space:
        """A host with an IPv6 address of its own; `dual` gives it one of IPv4, too."""
        if dual:
            host = self.public()
        else:
            self._count += 1
            host = self._space(f"public{self._count}", [])
            self._join(host)
        self._number6(host, f"2001:db8::{self._count:x}")
        return host

    def behind6(self, *, dual: bool = False) -> Space:
        """A host behind a router that lets out and not in, untranslated; `dual` puts it behind a cone of IPv4, too."""
        if dual:
            router = self.router(Nat.CONE)
            host = self.host(router)
        else:
            self._count += 1
            space = self._space(f"router{self._count}", [])
            router = Router(self, space.name, space.pid, [])
            self._join(router)
            host = self._space(f"host of {router.name}", [])
            router.run("ip link add lan type bridge; ip link set lan up")
            self._join(host, router)
        inside, outside = f"2001:db8:{self._count:x}", f"2001:db8::{self._count:x}"
        self._number6(router, outside)
        router.run(
            f"ip addr add {inside}::1/64 dev lan nodad; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding;"
            f"nft -f - <<'END'\ntable ip6 lab {{ {_CLOSED6} }}\nEND"
        )
        self._wan(f"ip route add {inside}::/64 via {outside}")
        self._number6(host, f"{inside}::2", via=f"{inside}::1")
        return host

    def _join(self, space: Space, router: Router | None = None) -> None:
        """Connect a namespace, without any address, with the wide area network or the inside of a router."""
        port, far = f"port{space.pid}", "wan" if router is None else "lan"
        self._wan(f"ip link add {port} type veth peer name wan netns {space.pid}")
        if router is not None:
            self._wan(f"ip link set {port} netns {router.pid}")
        place = self._wan if router is None else router.run
        place(f"ip link set {port} master {far}; ip link set {port} up")

    def _number6(self, space: Space, address: str, via: str = CORE6) -> None:
        space.run(f"ip link set wan up; ip addr add {address}/64 dev wan nodad; ip route add default via {via} dev wan")
        space.addresses.append(address)

    # ---- inside

    def _hold(self, argv: list[str], script: str) -> int:
        """Start a process that lives until its input ends; the number that it says."""
        holder = subprocess.Popen(
            [*argv, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PATH": PATH},
        )
        self._stack.callback(_end, holder)
        assert holder.stdout is not None
        said = holder.stdout.readline().strip()
        if not said.isdigit():
            assert holder.stderr is not None
            raise LabError(holder.stderr.readline().decode(errors="replace").strip() or "a namespace did not start")
        return int(said)

    def _space(self, name: str, addresses: list[str]) -> Space:
        pid = self._hold([*self.enter(), "unshare", "--net", "sh", "-ec"], f"echo $$; {ENDS_WITH_ITS_INPUT}")
        space = Space(self, name, pid, addresses)
        space.run("ip link set lo up")
        return space

    def _wan(self, script: str) -> None:
        _finish([*self.enter(), "sh", "-ec", script])

    def _plug(self, space: Space) -> None:
        """Connect a namespace with the bridge of the wide area network."""
        port = f"port{space.pid}"
        self._wan(
            f"ip link add {port} type veth peer name wan netns {space.pid};"
            f"ip link set {port} master wan; ip link set {port} up"
        )
        space.run(_wan_address(space.address))

    def _cable(self, router: Router, space: Space) -> None:
        """Connect a namespace with the inside of a router, which becomes its default route."""
        port = f"port{space.pid}"
        self._wan(
            f"ip link add {port} type veth peer name wan netns {space.pid}; ip link set {port} netns {router.pid}"
        )
        router.run(f"ip link set {port} master lan; ip link set {port} up")
        space.run(
            f"ip addr add {space.address}/24 dev wan; ip link set wan up; ip route add default via {router.gateway}"
        )


def _wan_address(address: str) -> str:
    return f"ip addr add {address}/24 dev wan; ip link set wan up; ip route replace default via {CORE}"


def _finish(argv: list[str]) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=COMMAND_S, check=False, env={**os.environ, "PATH": PATH}
    )
    if done.returncode:
        raise LabError(f"{argv[-1]!r}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@contextmanager
def open_lab() -> Iterator[Lab]:
    """An empty wide area network; leaving the scope removes all that was built in it.

    Raises:
        LabError: this machine does not permit it.
    """
    with ExitStack() as stack:
        yield Lab(stack)
