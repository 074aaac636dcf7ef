"""What a stranger can do to the real transport: nothing but lose its own connection."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
from libp2p import generate_new_rsa_identity, new_swarm
from libp2p.crypto.ed25519 import Ed25519PrivateKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.messages import NoiseExtensions, NoiseHandshakePayload
from libp2p.security.noise.patterns import IPattern, PatternXX
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from node.libp2p.gate import Gate
from node.libp2p_host import NEGOTIATION_BYTES_MAX, WINDOW_BYTES_MAX, libp2p_id
from node.transport_libp2p import Libp2pTransport
from node.transport_libp2p import open_transport as open_either
from wire.errors import ChannelClosed, FrameTooLarge, RemoteError, Unreachable
from wire.limits import FRAME_BYTES_MAX
from wire.peer import PeerId
from wire.transport import Channel

ECHO = "/contract/echo/1"
HELLO = b"\x13/multistream/1.0.0\n"


FAST = True
"""Whether the transports of the running test use our own session and muxer."""


@pytest.fixture(autouse=True, params=["fast", "stock"])
def _both_ways(request: pytest.FixtureRequest) -> None:
    """Each test here runs on our fast path and on py-libp2p's session and muxer."""
    globals()["FAST"] = request.param == "fast"


def open_transport(*args: Any, **options: Any) -> AbstractAsyncContextManager[Libp2pTransport]:
    """A transport of the kind that the running test is about."""
    return open_either(*args, fast_path=FAST, **options)


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        await channel.send(await channel.receive())


def nobody_to_blame(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


@pytest.fixture
async def bob() -> AsyncIterator[Libp2pTransport]:
    """The transport under attack; it serves an echo."""
    async with open_transport(b"b" * 32, blame=nobody_to_blame) as transport:
        transport.serve(ECHO, echo)
        yield transport


async def still_well(bob: Libp2pTransport) -> None:
    """Bob serves an honest newcomer."""
    async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as honest:
        honest.learn(bob.peer, bob.addresses())
        with trio.fail_after(10):
            channel = await honest.open(bob.peer, ECHO)
            await channel.send(b"well?")
            assert await channel.receive() == b"well?"
            await channel.aclose()


def port_of(transport: Libp2pTransport) -> int:
    """The TCP port it listens on."""
    return int(cast(Any, Multiaddr(transport.addresses()[0])).value_for_protocol("tcp"))


@asynccontextmanager
async def stock_swarm(key_pair: KeyPair, security: dict[TProtocol, Any]) -> AsyncIterator[Any]:
    """A py-libp2p host with security of the attacker's choice."""
    swarm = new_swarm(key_pair=key_pair, sec_opt=security)
    host = BasicHost(network=swarm)
    async with host.run([]):
        try:
            yield swarm
        finally:
            await host.close()


# ---- who is at the other end


@pytest.mark.parametrize("protocol", ["/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0"])
async def test_only_noise_is_negotiated(bob: Libp2pTransport, protocol: str) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(bob))
    line = protocol.encode() + b"\n"
    with trio.fail_after(5):
        async with stream:
            await stream.send_all(HELLO + bytes([len(line)]) + line)
            answer = b""
            while not answer.endswith(b"na\n"):
                piece = await stream.receive_some()
                assert piece, f"no refusal: {answer!r}"
                answer += piece
    assert answer == HELLO + b"\x03na\n"


async def test_a_plaintext_dial_is_refused(bob: Libp2pTransport) -> None:
    key_pair = create_new_key_pair(b"m" * 32)
    security = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair)}
    async with stock_swarm(key_pair, security) as swarm:
        with pytest.raises(Exception, match="failed to upgrade security"):
            await swarm.dial_addr(Multiaddr(bob.addresses()[0]), libp2p_id(bob.peer))
    assert bob.connected() == []
    await still_well(bob)


class ImpostorPattern(PatternXX):
    """Claims a public key without having its private half."""

    victim: Any = None

    def make_handshake_payload(self, extensions: NoiseExtensions | None = None) -> NoiseHandshakePayload:
        honest = super().make_handshake_payload(extensions)
        return NoiseHandshakePayload(self.victim, honest.id_sig, extensions=honest.extensions)


class Impostor(StockNoise):
    """A Noise transport whose identity is a lie."""

    victim: Any = None

    def get_pattern(self) -> IPattern:
        pattern = ImpostorPattern(self.local_peer, self.libp2p_privkey, self.noise_privkey)
        pattern.victim = self.victim
        return pattern


async def test_nobody_connects_under_the_key_of_another(bob: Libp2pTransport) -> None:
    key_pair = create_new_key_pair(b"m" * 32)
    noise = Impostor(key_pair, noise_privkey=create_new_noise_key_pair().private_key)
    noise.victim = create_new_key_pair(b"v" * 32).public_key
    refused = False
    async with stock_swarm(key_pair, {NOISE: noise}) as swarm:
        try:
            with trio.fail_after(5):
                connection = await swarm.dial_addr(Multiaddr(bob.addresses()[0]), libp2p_id(bob.peer))
                await connection.event_closed.wait()
        except trio.TooSlowError:
            pass
        except Exception:  # noqa: BLE001 - py-libp2p has no single class for a dial that the other side cuts off
            refused = True
        else:
            refused = True
        assert bob.connected() == []
    assert refused
    await still_well(bob)


async def test_a_dialled_peer_must_be_the_one_that_was_meant(bob: Libp2pTransport) -> None:
    victim = PeerId(Ed25519PrivateKey.new(b"v" * 32).get_public_key().to_bytes())
    async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as honest:
        honest.learn(victim, [bob.addresses()[0].rpartition("/p2p/")[0]])
        with trio.fail_after(5), pytest.raises(Unreachable):
            await honest.open(victim, ECHO)
        assert honest.connected() == []


async def test_an_address_of_one_peer_is_not_learned_for_another(bob: Libp2pTransport) -> None:
    victim = PeerId(Ed25519PrivateKey.new(b"v" * 32).get_public_key().to_bytes())
    async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as honest:
        honest.learn(victim, bob.addresses())
        with pytest.raises(Unreachable, match="no address known"):
            await honest.open(victim, ECHO)


async def test_an_rsa_identity_is_refused(bob: Libp2pTransport) -> None:
    key_pair = generate_new_rsa_identity()
    noise = StockNoise(key_pair, noise_privkey=create_new_noise_key_pair().private_key)
    async with stock_swarm(key_pair, {NOISE: noise}) as swarm:
        with trio.move_on_after(5):
            try:
                connection = await swarm.dial_addr(Multiaddr(bob.addresses()[0]), libp2p_id(bob.peer))
                await connection.event_closed.wait()
            except Exception:  # noqa: BLE001 - see above; what counts is asserted below
                pass
        assert bob.connected() == []
    await still_well(bob)


# ---- what a stranger can make us hold


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize(
    "length", [8 << 30, 64 << 20, NEGOTIATION_BYTES_MAX + 1], ids=["8 GiB", "64 MiB", "1025 bytes"]
)
async def test_a_negotiation_message_is_bounded_before_anyone_is_known(bob: Libp2pTransport, length: int) -> None:
    """Stock py-libp2p buffered what an unauthenticated stranger sent, up to 64 bits of length."""
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(bob))
    prefix = bytearray()
    left = length
    while left >= 0x80:
        prefix.append(left & 0x7F | 0x80)
        left >>= 7
    prefix.append(left)
    gc.collect()
    before, sent = resident_bytes(), 0
    async with stream:
        with trio.fail_after(10):
            try:
                await stream.send_all(HELLO + prefix)
                while sent < 64 << 20:
                    await stream.send_all(bytes(1 << 16))
                    sent += 1 << 16
            except trio.BrokenResourceError:
                pass
    assert sent < 16 << 20, "the socket took more than kernel buffers hold"
    assert resident_bytes() - before < 8 << 20
    await still_well(bob)


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\n", b"no newline", b"\n", b""], ids=["not utf-8", "no end", "empty", "nil"]
)
async def test_garbage_instead_of_a_protocol_ends_the_stream_only(bob: Libp2pTransport, line: bytes) -> None:
    """In stock py-libp2p an undecodable protocol name stopped the whole host."""
    async with open_transport(b"m" * 32, listen=[], blame=nobody_to_blame) as mallory:
        mallory.learn(bob.peer, bob.addresses())
        good = await mallory.open(bob.peer, ECHO)
        stream = await cast(Any, mallory)._swarm.new_stream(libp2p_id(bob.peer))
        await stream.write(HELLO + bytes([len(line)]) + line)
        with trio.fail_after(10):
            await good.send(b"x" * 1000)
            assert len(await good.receive()) == 1000
        await good.aclose()
        await stream.reset()
    await still_well(bob)


async def test_an_announced_frame_past_the_limit_ends_its_channel_before_it_is_held() -> None:
    seen: list[type[Exception]] = []
    heard = trio.Event()

    async def take(channel: Channel) -> None:
        try:
            assert await channel.receive() == b"before"
            await channel.receive()
        except (FrameTooLarge, ChannelClosed) as exc:
            seen.append(type(exc))
            heard.set()
            raise

    async with (
        open_transport(b"b" * 32, blame=nobody_to_blame) as bob,
        open_transport(b"m" * 32, listen=[], blame=nobody_to_blame) as mallory,
    ):
        bob.serve("/contract/take/1", take)
        bob.serve(ECHO, echo)
        mallory.learn(bob.peer, bob.addresses())
        good = await mallory.open(bob.peer, ECHO)
        stream = await cast(Any, mallory)._host.new_stream(libp2p_id(bob.peer), [TProtocol("/contract/take/1")])
        await stream.write(b"\0\0\0\6before" + (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(1000))
        with trio.fail_after(5):
            await heard.wait()
            with pytest.raises(IOException):
                await stream.read(1)
            await good.send(b"fine")
            assert await good.receive() == b"fine"
        assert seen == [FrameTooLarge]
        await good.aclose()


async def test_a_peer_that_ignores_the_window_loses_its_stream() -> None:
    """Nobody reads, the peer sends on: what we hold stays within two windows."""
    started = trio.Event()

    async def idle(channel: Channel) -> None:
        started.set()
        await trio.sleep_forever()

    async with (
        open_transport(b"b" * 32, blame=nobody_to_blame) as bob,
        open_transport(b"m" * 32, listen=[], blame=nobody_to_blame) as mallory,
    ):
        bob.serve("/contract/idle/1", idle)
        bob.serve(ECHO, echo)
        mallory.learn(bob.peer, bob.addresses())
        await (await mallory.open(bob.peer, ECHO)).aclose()
        stream = await cast(Any, mallory)._host.new_stream(libp2p_id(bob.peer), [TProtocol("/contract/idle/1")])
        await started.wait()
        await _overrun(stream.muxed_stream)
        with trio.fail_after(10):
            good = await mallory.open(bob.peer, ECHO)
            await good.send(b"fine")
            assert await good.receive() == b"fine"
        (connection,) = [c for cs in cast(Any, bob)._swarm.connections.values() for c in cs]
        muxer = connection.muxed_conn
        held = muxer.core.held if FAST else sum(len(buffer) for buffer in muxer.stream_buffers.values())
        assert held <= 2 * WINDOW_BYTES_MAX
        await good.aclose()
        await stream.reset()


async def _overrun(stream: Any) -> None:
    """Send 24 MiB whatever the window is, as far as the other side lets us."""
    (stream.state if FAST else stream).send_window = 1 << 31
    try:
        for _ in range(24):
            await stream.write((1 << 20).to_bytes(4, "big") + bytes(1 << 20))
    except MuxedStreamError:
        assert FAST, "the stock muxer hears of the reset later"


# ---- coming and going


async def test_closing_takes_less_than_a_second_with_channels_open() -> None:
    async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice:
        async with open_transport(b"b" * 32, blame=nobody_to_blame) as bob:
            bob.serve(ECHO, echo)
            alice.learn(bob.peer, bob.addresses())
            channels = [await alice.open(bob.peer, ECHO) for _ in range(20)]
            began = trio.current_time()
        assert trio.current_time() - began < 1.0
        with trio.fail_after(5), pytest.raises(ChannelClosed):
            await channels[0].receive()
        with pytest.raises(Unreachable):
            await bob.open(alice.peer, ECHO)


async def test_closing_does_not_wait_for_a_peer_that_stopped_reading(bob: Libp2pTransport) -> None:
    """A socket that takes nothing more holds a sender; it must not hold the node."""
    release, ended = trio.Event(), trio.Event()

    async def idle(channel: Channel) -> None:
        await release.wait()

    bob.serve("/contract/idle/1", idle)
    async with trio.open_nursery() as nursery:
        async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice:
            alice.learn(bob.peer, bob.addresses())
            channel = await alice.open(bob.peer, "/contract/idle/1")

            async def flood() -> None:
                try:
                    while True:
                        await channel.send(bytes(FRAME_BYTES_MAX))
                except ChannelClosed:
                    ended.set()

            nursery.start_soon(flood)
            await trio.sleep(0.2)
            began = trio.current_time()
        assert trio.current_time() - began < 1.0
        with trio.fail_after(1):
            await ended.wait()
        release.set()


async def test_a_peer_that_comes_back_is_found_at_once() -> None:
    """No negative cache: a failed dial does not stand in the way of the next."""
    async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice:
        async with open_transport(b"b" * 32, blame=nobody_to_blame) as bob:
            bob.serve(ECHO, echo)
            peer, where = bob.peer, bob.addresses()
            alice.learn(peer, where)
            await (await alice.open(peer, ECHO)).aclose()
        with trio.fail_after(2), pytest.raises(Unreachable):
            await alice.open(peer, ECHO)
        async with open_transport(b"b" * 32, listen=[where[0].rpartition("/p2p/")[0]], blame=nobody_to_blame) as bob:
            bob.serve(ECHO, echo)
            with trio.fail_after(2):
                channel = await alice.open(peer, ECHO)
                await channel.send(b"again")
                assert await channel.receive() == b"again"
                await channel.aclose()


async def test_the_second_address_is_tried_when_the_first_is_dead(bob: Libp2pTransport) -> None:
    async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice:
        alice.learn(bob.peer, ["/ip4/127.0.0.1/tcp/1", *bob.addresses()])
        with trio.fail_after(3):
            await (await alice.open(bob.peer, ECHO)).aclose()


async def test_both_dialling_at_once_ends_with_working_channels() -> None:
    async with (
        open_transport(b"1" * 32, blame=nobody_to_blame) as one,
        open_transport(b"2" * 32, blame=nobody_to_blame) as two,
    ):
        for here, there in ((one, two), (two, one)):
            here.serve(ECHO, echo)
            here.learn(there.peer, there.addresses())
        done: list[bytes] = []

        async def talk(here: Libp2pTransport, there: Libp2pTransport) -> None:
            for _ in range(5):
                channel = await here.open(there.peer, ECHO)
                await channel.send(b"x")
                done.append(await channel.receive())
                await channel.aclose()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, one, two)
                nursery.start_soon(talk, two, one)
        assert len(done) == 10


async def test_a_connection_that_ended_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """In stock py-libp2p each connection that was ever accepted keeps one of the places for ever."""
    monkeypatch.setattr("node.libp2p_host.CONNECTIONS_MAX", 3)
    async with open_transport(b"b" * 32, blame=nobody_to_blame) as bob:
        bob.serve(ECHO, echo)
        for number in range(8):
            async with open_transport(bytes([number]) * 32, listen=[], blame=nobody_to_blame) as visitor:
                visitor.learn(bob.peer, bob.addresses())
                with trio.fail_after(10):
                    await (await visitor.open(bob.peer, ECHO)).aclose()
            with trio.fail_after(5):
                while bob.connected():  # noqa: ASYNC110 - the transport has no event for a connection that ended
                    await trio.sleep(0.01)


async def test_a_denied_peer_gets_no_connection_either_way() -> None:
    async with open_transport(b"m" * 32, blame=nobody_to_blame) as mallory:
        mallory.serve(ECHO, echo)
        gate = Gate([mallory.peer])
        async with open_transport(b"b" * 32, blame=nobody_to_blame, gate=gate) as bob:
            bob.serve(ECHO, echo)
            for here, there in ((bob, mallory), (mallory, bob)):
                here.learn(there.peer, there.addresses())
                with trio.fail_after(10), pytest.raises(Unreachable):
                    await here.open(there.peer, ECHO)
            await still_well(bob)


async def test_a_denied_subnet_gets_no_connection_either_way(bob: Libp2pTransport) -> None:
    gate = Gate(subnets=["127.0.0.0/8"])
    async with open_transport(b"g" * 32, blame=nobody_to_blame, gate=gate) as guarded:
        guarded.serve(ECHO, echo)
        for here, there in ((bob, guarded), (guarded, bob)):
            here.learn(there.peer, there.addresses())
            with trio.fail_after(10), pytest.raises(Unreachable):
                await here.open(there.peer, ECHO)
    assert gate.refused > 0


async def test_an_exception_of_a_handler_without_a_listener_ends_the_transport() -> None:
    """A bug must be seen: without `on_bug` it leaves the transport's scope."""

    async def broken(channel: Channel) -> None:
        raise ZeroDivisionError("ours")

    async def bob_and_alice() -> None:
        async with open_transport(b"b" * 32, blame=nobody_to_blame) as bob:
            bob.serve(ECHO, broken)
            async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice:
                alice.learn(bob.peer, bob.addresses())
                await alice.open(bob.peer, ECHO)
                await trio.sleep_forever()

    with trio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        await bob_and_alice()
    assert caught.value.subgroup(ZeroDivisionError)
