"""Peers that keep no rule, for `benchmarks.network_attacks`: `python -m benchmarks.peers_hostile ATTACK ADDRESS NICE`.

Runs one attack until its input ends, on a low priority: what the attacker computes is not to take the processor
of those whom he attacks, as he would have a machine of his own. Then it prints how often it struck and what that cost
in processor time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import process_time

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.exceptions import BaseLibp2pError

from node.libp2p.multiselect import HEADER
from node.libp2p.noise_frames import NoiseViolation
from node.libp2p.yamux_frames import DATA, INITIAL_WINDOW_BYTES, RST, WINDOW_UPDATE, frame_header
from tests.contract.attacker import HELLO, Attacker, Victim, attacker, data, lines, proposing, syn, tcp
from wire.errors import QuorateError
from wire.peer import from_text

ECHO, IDLE = "/quorate/bench/echo/1", "/quorate/bench/idle/1"
AT_ONCE = 8
"""Connections with which an attack that needs no identity is carried out."""

LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, BaseLibp2pError, QuorateError, NoiseViolation)
LOST_TOO = (*LOST, AssertionError, trio.TooSlowError)
"""How the victim defends itself, seen from here."""


class Strikes:
    """How often."""

    def __init__(self) -> None:
        self.count = 0


Attack = Callable[[Victim, Strikes, int], Awaitable[None]]


async def impersonation(victim: Victim, strikes: Strikes, _n: int) -> None:
    """Offer security without proof, and then a handshake whose proof is another's."""
    async with await tcp(victim) as stream:
        await lines(stream, HEADER)
        strikes.count += 1
        await stream.send_all(b"\x11/plaintext/2.0.0\n")
        await stream.receive_some()
    wrong, right = create_new_key_pair(os.urandom(32)), create_new_key_pair(os.urandom(32))
    async with attacker(victim, pair=type(right)(right.private_key, wrong.public_key)):
        strikes.count += 1


async def handshakes(victim: Victim, strikes: Strikes, _n: int) -> None:
    """A whole handshake with a new identity, and away."""
    async with attacker(victim, os.urandom(32)):
        strikes.count += 1


async def handshakes_begun(victim: Victim, strikes: Strikes, _n: int) -> None:
    """Half a handshake message, held for as long as one is let."""
    async with await tcp(victim) as stream:
        await lines(stream, HEADER, "/noise")
        strikes.count += 1
        await stream.send_all(b"\xff\xff" + bytes(20_000))
        await stream.receive_some()


async def slow_loris(victim: Victim, strikes: Strikes, _n: int) -> None:
    """A byte of a greeting now and then."""
    async with await tcp(victim) as stream:
        for byte in HELLO[:-1] * 10:
            strikes.count += 1
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)


async def length_8_gib(victim: Victim, strikes: Strikes, _n: int) -> None:
    """A negotiation message that announces 8 GiB."""
    async with await tcp(victim) as stream:
        await lines(stream, HEADER)
        strikes.count += 1
        await stream.send_all(b"\x80\x80\x80\x80\x20" + bytes(64 << 10))
        await stream.receive_some()


@asynccontextmanager
async def listening(victim: Victim, n: int) -> AsyncIterator[Attacker]:
    """An authenticated connection on which whatever the victim says is read and dropped."""
    async with attacker(victim, bytes([n + 1]) * 32) as mallory, trio.open_nursery() as nursery:

        async def read() -> None:
            try:
                while await mallory.session.receive():
                    pass
            except LOST:
                nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        yield mallory
        nursery.cancel_scope.cancel()


async def streams(victim: Victim, strikes: Strikes, n: int) -> None:
    """Streams by the thousand."""
    async with listening(victim, n) as mallory:
        for first in range(1, 1 << 30, 2000):
            await mallory.send(*(syn(first + 2 * k) for k in range(1000)))
            strikes.count += 1000


async def window(victim: Victim, strikes: Strikes, n: int) -> None:
    """More than the window, on one stream after the other."""
    async with listening(victim, n) as mallory:
        for number in range(1, 1 << 30, 2):
            await mallory.send(proposing(number, IDLE), *[data(number, bytes(256 << 10))] * 6)
            strikes.count += 1


async def zero_window(victim: Victim, strikes: Strikes, n: int) -> None:
    """Ask for answers on every stream, and give no window for them."""
    async with listening(victim, n) as mallory:
        for first in range(1, 1 << 30, 100):
            for number in range(first, first + 100, 2):
                await mallory.send(proposing(number, ECHO))
                await mallory.send(*[data(number, (4 << 10).to_bytes(4, "big") + bytes(4 << 10))] * 60)
                strikes.count += 1
            await mallory.send(*(frame_header(WINDOW_UPDATE, RST, first + 2 * k, 0) for k in range(50)))


async def replay(victim: Victim, strikes: Strikes, n: int) -> None:
    """A sealed message twice."""
    async with attacker(victim, bytes([n + 1]) * 32) as mallory:
        await mallory.send(proposing(1, ECHO))
        message = b"".join(mallory.session._sealer.seal(data(1, b"\0\0\0\6pay me")))
        await mallory.socket.send_all(message + message)
        strikes.count += 1
        await mallory.ended()


async def half_open(victim: Victim, strikes: Strikes, n: int) -> None:
    """Streams whose negotiation never ends, taken back and opened anew."""
    async with listening(victim, n) as mallory:
        for first in range(1, 1 << 30, 80):
            numbers = range(first, first + 80, 2)
            await mallory.send(*(syn(number) + data(number, HELLO) for number in numbers))
            await mallory.send(*(frame_header(WINDOW_UPDATE, RST, number, 0) for number in numbers))
            strikes.count += 40


async def giant(victim: Victim, strikes: Strikes, n: int) -> None:
    """A frame of 4 GiB, for as long as it lasts."""
    async with listening(victim, n) as mallory:
        await mallory.send(proposing(1, ECHO), frame_header(DATA, 0, 1, 2**32 - 1))
        while True:
            await mallory.send(bytes(256 << 10))
            strikes.count += 1


async def fragments(victim: Victim, strikes: Strikes, n: int) -> None:
    """Frames of one byte, which leave no window unused for long."""
    async with listening(victim, n) as mallory:
        for number in range(1, 1 << 30, 2):
            await mallory.send(proposing(number, IDLE))
            for _ in range(INITIAL_WINDOW_BYTES // 20_000):
                await mallory.send(data(number, b"x") * 20_000)
                strikes.count += 20_000
            await mallory.send(frame_header(WINDOW_UPDATE, RST, number, 0))


async def bytewise(victim: Victim, strikes: Strikes, n: int) -> None:
    """A sealed message for every byte."""
    async with listening(victim, n) as mallory:
        await mallory.send(proposing(1, ECHO))
        while True:
            sealed = b"".join(b"".join(mallory.session._sealer.seal(bytes([byte]))) for byte in data(1, b"\0\0\0\1x"))
            await mallory.socket.send_all(sealed * 1)
            strikes.count += len(data(1, b"\0\0\0\1x"))


ATTACKS: dict[str, tuple[Attack, int]] = {
    "impersonation": (impersonation, AT_ONCE),
    "handshakes": (handshakes, AT_ONCE),
    "handshakes_begun": (handshakes_begun, 100),
    "slow_loris": (slow_loris, 100),
    "length_8_gib": (length_8_gib, AT_ONCE),
    "streams": (streams, 1),
    "window": (window, 1),
    "zero_window": (zero_window, 1),
    "replay": (replay, 4),
    "half_open": (half_open, 1),
    "giant": (giant, 1),
    "fragments": (fragments, 1),
    "bytewise": (bytewise, 1),
}
"""Each attack, and on how many connections at once."""


class Somewhere:
    """A victim in another process."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.peer = from_text(address.rpartition("/p2p/")[2])

    def addresses(self) -> list[str]:
        """Where it is."""
        return [self._address]


async def main(name: str, address: str, nice: int) -> None:
    """Strike until the input ends."""
    os.nice(nice)
    attack, at_once = ATTACKS[name]
    victim, strikes = Somewhere(address), Strikes()
    print(flush=True)
    began_s, began_cpu_s = trio.current_time(), process_time()

    async def again(n: int) -> None:
        while True:
            try:
                await attack(victim, strikes, n)
            except* LOST_TOO:
                await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        for n in range(at_once):
            nursery.start_soon(again, n)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    lasted_s = trio.current_time() - began_s
    found = {"strikes_per_s": strikes.count / lasted_s, "cpu_share": (process_time() - began_cpu_s) / lasted_s}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
