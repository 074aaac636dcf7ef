"""IPv6 on this machine: the far end is known, gates hold, the versions are apart, and dials go side by side."""

from __future__ import annotations

import socket

import pytest
import trio

from node.libp2p.gate import Gate
from node.reach.addresses import Endpoint
from node.reach.ways import Ways
from node.transport_libp2p import open_transport
from wire.errors import RemoteError, Unreachable
from wire.transport import Channel

ECHO = "/ipv6/echo/1"
LIMIT_S = 30.0
V6 = "/ip6/::1/tcp/0"


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")


def nobody(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        await channel.send(await channel.receive())


@pytest.mark.parametrize("listen", [V6, f"{V6}/ws"])
@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_channel_over_ipv6_and_where_the_other_end_is(listen: str, fast_path: bool) -> None:
    async with (
        open_transport(b"b" * 32, listen=[listen], blame=nobody, fast_path=fast_path) as bob,
        open_transport(b"a" * 32, listen=[], blame=nobody) as alice,
    ):
        bob.serve(ECHO, echo)
        alice.learn(bob.peer, bob.addresses())
        with trio.fail_after(LIMIT_S):
            channel = await alice.open(bob.peer, ECHO)
            await channel.send(b"hello")
            assert await channel.receive() == b"hello"
        seen = Ways(*bob.network).seen(alice.peer)
        assert isinstance(seen, Endpoint)
        assert seen.ip == "::1"


async def test_a_denied_subnet_of_ipv6_is_denied_both_ways() -> None:
    gate = Gate(subnets=["::1/128"])
    async with (
        open_transport(b"b" * 32, listen=[V6], blame=nobody, gate=gate) as bob,
        open_transport(b"a" * 32, listen=[V6], blame=nobody) as alice,
    ):
        alice.learn(bob.peer, bob.addresses())
        bob.learn(alice.peer, alice.addresses())
        with trio.fail_after(LIMIT_S):
            for one, other in ((alice, bob), (bob, alice)):
                with pytest.raises(Unreachable):
                    await one.open(other.peer, ECHO)
    assert gate.refused


async def test_both_versions_listen_on_one_port_and_neither_takes_the_others() -> None:
    async with open_transport(b"b" * 32, listen=[V6], blame=nobody) as bob:
        port = bob.listening()[0].split("/")[4]
        async with open_transport(b"c" * 32, listen=[f"/ip6/::/tcp/{port}"], blame=nobody):
            with pytest.raises(OSError, match=r".*"):
                await trio.open_tcp_stream("127.0.0.1", int(port))


async def test_an_address_that_hangs_does_not_hold_up_the_other_version() -> None:
    async with (
        open_transport(b"b" * 32, blame=nobody) as bob,
        open_transport(b"a" * 32, listen=[], blame=nobody) as alice,
        trio.open_nursery() as nursery,
    ):
        bob.serve(ECHO, echo)

        async def hang(_: trio.SocketStream) -> None:
            await trio.sleep_forever()

        listeners = await nursery.start(trio.serve_tcp, hang, 0)
        mute = next(each for each in listeners if each.socket.family == socket.AF_INET6)
        alice.learn(bob.peer, [f"/ip6/::1/tcp/{mute.socket.getsockname()[1]}", *bob.addresses()])
        with trio.fail_after(LIMIT_S):
            await (await alice.open(bob.peer, ECHO)).aclose()
        assert [outcome for _, outcome in alice.dialler.figures.ended] == ["ok"]
        nursery.cancel_scope.cancel()
