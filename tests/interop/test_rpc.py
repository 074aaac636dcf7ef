"""Calls with a js-libp2p node whose calls are written from docs/spec/rpc.md alone, in both directions."""

from __future__ import annotations

import pytest
import trio

from node.rpc.node import open_rpc
from node.transport_libp2p import open_transport
from tests.interop.js import running
from wire.codec import Wire
from wire.errors import RemoteError
from wire.peer import PeerId, from_text
from wire.rpc.seam import Method

LIMIT_S = 120.0
INSTALL_S = 300.0


class Text(Wire, frozen=True):
    """All that is said."""

    text: str


REVERSE = Method("py.reverse", Text, Text)
ZIPPED = Method("py.zipped", Text, Text, compress=True)
UPPER = Method("js.upper", Text, Text)
TEXTS = ["short", "x" * 40, "y" * 1000, "zebra" * 60_000, ""]


def nobody(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def reverse(_peer: PeerId, text: Text) -> Text:
    """The other way round."""
    return Text(text.text[::-1])


async def test_it_calls_us() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("rpc.mjs") as js,
            open_transport(b"i" * 32, blame=nobody) as transport,
            open_rpc(transport, blame=nobody) as rpc,
        ):
            rpc.serve(REVERSE, reverse)
            rpc.serve(ZIPPED, reverse)
            await js.heard("peer")
            await js.tell(call=transport.addresses()[0], method="py.reverse", texts=TEXTS)
            answers = (await js.heard("answers"))["answers"]
            assert answers == [{"text": text[::-1]} for text in TEXTS]
            await js.tell(call=transport.addresses()[0], method="py.zipped", texts=["a" * 300_000])
            assert (await js.heard("answers"))["answers"] == [{"text": "a" * 300_000, "zipped": True}]
            await js.tell(call=transport.addresses()[0], method="py.nothing", texts=["x", "y"])
            assert (await js.heard("answers"))["answers"] == [{"error": "unknown"}] * 2


async def test_we_call_it() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("rpc.mjs") as js,
            open_transport(b"i" * 32, listen=[], blame=nobody) as transport,
            open_rpc(transport, blame=nobody) as rpc,
        ):
            hello = await js.heard("peer")
            peer = from_text(hello["peer"])
            transport.learn(peer, hello["addresses"])
            for text in TEXTS:
                assert await rpc.call(peer, UPPER, Text(text), timeout_s=LIMIT_S) == Text(text.upper())
            with pytest.raises(RemoteError, match="unknown"):
                await rpc.call(peer, REVERSE, Text("?"), timeout_s=LIMIT_S)
            assert rpc.under_way() == (0, 0)
