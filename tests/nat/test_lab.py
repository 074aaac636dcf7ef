"""The lab itself: its routers behave as their kinds say, and nothing of it outlives the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nat.lab import PATH, Lab, Nat
from tests.nat.probes import ROOT, ProbeError, Probes


async def test_two_behind_cones_cannot_dial_each_other(lab: Lab, probes: Probes) -> None:
    a = await probes.start(lab.behind(Nat.CONE))
    b = await probes.start(lab.behind(Nat.CONE))
    for one, other in ((a, b), (b, a)):
        await one.ask("learn", peer=other.peer, addresses=[*other.at(other.outside), *other.addresses])
        with pytest.raises(ProbeError):
            await one.echo(other, within_s=1.0)


@pytest.mark.parametrize("nat", [Nat.NONE, Nat.FULL])
async def test_who_is_public_or_behind_a_full_cone_can_be_dialled(lab: Lab, probes: Probes, nat: Nat) -> None:
    a = await probes.start(lab.behind(Nat.SYMMETRIC))
    b = await probes.start(lab.behind(nat))
    await a.ask("learn", peer=b.peer, addresses=b.at(b.outside))
    assert await a.echo(b) < 5.0


async def test_a_firewall_lets_out_and_not_in(lab: Lab, probes: Probes) -> None:
    a = await probes.start(lab.public())
    b = await probes.start(lab.behind(Nat.FIREWALL))
    await a.ask("learn", peer=b.peer, addresses=b.at(b.host.address))
    with pytest.raises(ProbeError):
        await a.echo(b, within_s=1.0)
    await b.ask("learn", peer=a.peer, addresses=a.at(a.host.address))
    assert await b.echo(a) < 5.0


SERVE = """
import socket
listening = socket.create_server(("", 9))
print(flush=True)
kept, (address, port) = listening.accept()
print(address, port, flush=True)
"""
DIAL = """
import socket, sys
kept = []
for server in sys.argv[1:]:
    kept.append(socket.socket())
    kept[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept[-1].settimeout(5)
    kept[-1].bind(("", 4001))
    kept[-1].connect((server, 9))
"""


def _mapped(lab: Lab, nat: Nat) -> list[tuple[str, int]]:
    """What two servers see of one source port behind `nat`."""
    servers = [lab.public(), lab.public()]
    host = lab.behind(nat)
    running = [
        subprocess.Popen(server.command(sys.executable, "-c", SERVE), stdout=subprocess.PIPE, text=True)
        for server in servers
    ]
    try:
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        host.run(f"{sys.executable} -c '{DIAL}' {' '.join(server.address for server in servers)}")
        seen = []
        for process in running:
            assert process.stdout is not None
            address, port = process.stdout.readline().split()
            seen.append((address, int(port)))
        return seen
    finally:
        for process in running:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("nat", "same"), [(Nat.CONE, True), (Nat.SYMMETRIC, False)])
def test_a_cone_keeps_the_port_and_a_symmetric_router_does_not(lab: Lab, nat: Nat, same: bool) -> None:
    first, second = _mapped(lab, nat)
    assert first[0] == second[0]
    assert first[0].startswith("203.0.113.")
    assert (first[1] == second[1] == 4001) is same


def test_double_nat_hides_a_host_twice(lab: Lab) -> None:
    inner = lab.router(Nat.CONE, behind=lab.router(Nat.CONE))
    host = lab.host(inner)
    assert host.address.startswith("10.")
    assert inner.address.startswith("10.")
    assert "default via" in host.run("ip route")


def test_nothing_outlives_a_test_run_that_is_killed(lab: Lab) -> None:
    """Everything in the lab is a child of the stage's PID namespace: it ends with the run that holds its input."""
    script = (
        "from tests.nat.lab import Nat, open_lab\n"
        "with open_lab() as lab:\n"
        "    lab.behind(Nat.CONE)\n"
        "    print(lab.stage, flush=True)\n"
        "    input()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PATH": PATH},
    )
    try:
        assert run.stdout is not None
        stage = int(run.stdout.readline())
        members = _members(stage)
        assert stage in members
        assert len(members) >= 3
        watched = [os.pidfd_open(pid) for pid in members]
    finally:
        run.send_signal(signal.SIGKILL)
        run.communicate()
    for ended in watched:
        assert _readable(ended, within_ms=5000)
        os.close(ended)


def _members(stage: int) -> list[int]:
    """The processes in the PID namespace of the stage."""
    space = Path(f"/proc/{stage}/ns/pid").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/pid").readlink() == space:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def _readable(descriptor: int, *, within_ms: int) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(within_ms))
