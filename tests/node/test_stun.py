"""What a relay answers to STUN: where a datagram came from, and no more often than is good for third parties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.reach.addresses import Endpoint
from node.reach.stun import ADDRESSES_MAX, ALL_BURST, BURST, PER_S, Answerer, response, transaction
from node.reach.stun_server import StunServer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "webrtc-v1.json").read_text())
REQUEST = bytes.fromhex("000100002112a442") + bytes(range(12))


@pytest.mark.parametrize("vector", VECTORS["stun"], ids=lambda vector: vector["name"])
def test_an_exchange_of_the_vectors(vector: dict[str, Any]) -> None:
    answer = Answerer(0.0).answer(bytes.fromhex(vector["request"]), vector["ip"], vector["port"], 0.0)
    assert (answer.hex() if answer is not None else None) == vector["response"]


@given(st.binary(max_size=600))
def test_whatever_else_comes_is_not_answered(datagram: bytes) -> None:
    found = transaction(datagram)
    assert found is None or datagram[8:20] == found


def test_an_address_is_answered_a_few_times_a_second() -> None:
    answerer = Answerer(0.0)
    assert sum(answerer.answer(REQUEST, "192.0.2.7", 5, 0.0) is not None for _ in range(100)) == BURST
    assert sum(answerer.answer(REQUEST, "192.0.2.7", 6, 1.0) is not None for _ in range(100)) == PER_S
    assert answerer.answer(REQUEST, "192.0.2.8", 5, 1.0) is not None
    assert answerer.refused == 200 - BURST - PER_S


def test_all_addresses_together_are_bounded_and_few_are_remembered() -> None:
    answerer = Answerer(0.0)
    answers = [answerer.answer(REQUEST, f"10.{n >> 8 & 255}.{n & 255}.1", 5, 0.0) for n in range(2 * ADDRESSES_MAX)]
    assert sum(answer is not None for answer in answers) == ALL_BURST
    assert len(answerer._of) == ADDRESSES_MAX


async def test_a_server_tells_a_socket_where_it_is() -> None:
    server = StunServer()
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as mine, trio.fail_after(10):
        await mine.bind(("127.0.0.1", 0))
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as free:
            await free.bind(("127.0.0.1", 0))
            at = Endpoint("127.0.0.1", free.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, [at, at])
            while not server.listening:
                await trio.lowlevel.checkpoint()
            await mine.sendto(b"\xff" * 20, (at.ip, at.port))
            await mine.sendto(REQUEST, (at.ip, at.port))
            answer, _ = await mine.recvfrom(100)
            port = mine.getsockname()[1]
            nursery.cancel_scope.cancel()
    assert answer == response(REQUEST[8:], "127.0.0.1", port)
    assert server.listening == [at]
