"""A stranger on a real connection: malformed, oversized, non-canonical and wrongly signed messages of every method.

Each is refused, its sender is blamed in the log, and the connection goes on to serve an honest call.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from dht.messages import ASK, FindNode, Nodes, Request
from node.market.messages import AUDIT, HIRE, PAID, REVEAL, Hire
from node.rpc.node import open_rpc
from node.swarm import Swarm, six
from node.transport_libp2p import Libp2pTransport, open_transport
from wire import codec
from wire.envelope import Envelope
from wire.errors import ChannelClosed, FrameTooLarge, Refused, TransportError
from wire.identity import Identity
from wire.limits import FRAME_BYTES_MAX
from wire.peer import PeerId, from_text
from wire.rpc.caller import Caller, Ended
from wire.rpc.seam import PROTOCOL as RPC
from wire.rpc.seam import Method

METHODS: tuple[Method[Any, Any], ...] = (HIRE, AUDIT, REVEAL, PAID, ASK)


@pytest.fixture(scope="module")
def victim() -> Iterator[Swarm]:
    """One node."""
    swarm = six()
    try:
        swarm.start(swarm.members[0])
        swarm.ready(swarm.members[0])
        yield swarm
    finally:
        swarm.stop()


def _forged_hire() -> bytes:
    author = Identity.generate().peer
    return codec.encode(Hire(Envelope("job", author, b"\x90", bytes(64)), b"", [], b""))


FRAMES = {
    "empty": b"",
    "random": secrets.token_bytes(200),
    "truncated": codec.encode(Request(FindNode(bytes(32)), []))[:-3],
    "trailing": codec.encode(Request(FindNode(bytes(32)), [])) + b"\xc0",
    "not canonical": b"\x91\xdd\x00\x00\x00\x03\xa9find-node\xc4\x00\x90",
    "too deep": b"\x91" * 5000 + b"\xc0",
    "huge": b"\xc6\x00\x0f\xff\x00" + bytes(0x0FFF00),
    "wrongly signed": _forged_hire(),
}


async def _throw_frame(transport: Libp2pTransport, peer: PeerId, frame: bytes) -> None:
    """Send one frame on a call channel; the node must end the channel, not hang."""
    with trio.fail_after(10):
        channel = await transport.open(peer, RPC)
        try:
            await channel.send(frame)
            await channel.receive()
        except (ChannelClosed, FrameTooLarge):
            pass
        finally:
            await channel.aclose()


async def _throw_message(transport: Libp2pTransport, peer: PeerId, method: str, message: bytes) -> None:
    """Call a method with something else than it takes: the node answers with an error, and the channel stays."""
    core = Caller(peer)
    core.post(core.start(method.encode(), 10.0, 0.0), [message], last=True)
    with trio.fail_after(10):
        channel = await transport.open(peer, RPC)
        while (batch := core.next_batch(0.0)) is not None:
            await channel.send(batch)
        while not (events := core.receive(await channel.receive())):
            pass
        await channel.aclose()
    assert isinstance(events[0], Ended)
    assert isinstance(events[0].error, Refused)


async def _attack(address: str) -> None:
    peer = from_text(address.rpartition("/p2p/")[2])
    async with open_transport(Identity.generate().ed25519_seed, blame=lambda _: None) as transport:
        transport.learn(peer, [address])
        for frame in FRAMES.values():
            await _throw_frame(transport, peer, frame)
        for method in METHODS:
            for frame in FRAMES.values():
                await _throw_message(transport, peer, method.name, frame and b"\0" + frame)
        channel = await transport.open(peer, RPC)
        with pytest.raises(TransportError):
            await channel.send(bytes(FRAME_BYTES_MAX + 1))
        await channel.aclose()
        async with open_rpc(transport, blame=lambda _: None) as rpc:
            reply = await rpc.call(peer, ASK, Request(FindNode(bytes(32)), []), timeout_s=10.0)
        assert isinstance(reply.told, Nodes)


async def test_hostile_frames_are_refused_and_blamed_and_the_node_goes_on(victim: Swarm) -> None:
    member = victim.members[0]
    await _attack(member.address)
    assert member.alive
    lines = [json.loads(line) for line in member.log().splitlines() if line.startswith("{")]
    blamed = [line for line in lines if line["event"] == "peer_at_fault"]
    assert len(blamed) >= (1 + len(METHODS)) * (len(FRAMES) - 1), "all but those that happen to be valid elsewhere"
    assert [line for line in lines if line["event"] == "handler_failed"] == [], "no bug of ours was hit"


def test_two_nodes_cannot_share_a_home(victim: Swarm) -> None:
    """Two writers of one chain would fork it; the second one is turned away with the reason."""
    import subprocess
    import sys

    home = str(victim.members[0].home)
    command = [sys.executable, "-m", "node", "up", "--home", home, "--listen", "/ip4/127.0.0.1/tcp/0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "another node is running" in done.stderr


def test_an_open_key_file_is_refused_with_the_fix() -> None:
    import subprocess
    import sys

    swarm = six()
    member = swarm.members[0]
    try:
        swarm.start(member)
        swarm.ready(member)
        swarm.stop(keep_homes=True)
        (member.home / "identity.key").chmod(0o644)
        command = [sys.executable, "-m", "node", "up", "--home", str(member.home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "chmod 600" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        swarm.stop()
