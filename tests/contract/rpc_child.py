"""A process that answers calls over libp2p until it is killed: python -m tests.contract.rpc_child.

Its first line says where it listens; each call of `HANG` that has begun is another line.
"""

from __future__ import annotations

import trio

from node.rpc.node import open_rpc
from node.transport_libp2p import open_transport
from wire.codec import Wire
from wire.peer import PeerId
from wire.rpc.seam import Method

SEED = b"c" * 32


class Text(Wire, frozen=True):
    """All it takes and gives."""

    text: str


ECHO = Method("child.echo", Text, Text)
HANG = Method("child.hang", Text, Text)


async def echo(_peer: PeerId, text: Text) -> Text:
    """The same again."""
    return text


async def hang(_peer: PeerId, text: Text) -> Text:
    """Nothing, for ever."""
    print(text.text, flush=True)
    await trio.sleep_forever()
    return text


async def main() -> None:
    """Serve until killed."""
    async with open_transport(SEED, blame=print) as transport, open_rpc(transport, blame=print) as rpc:
        rpc.serve(ECHO, echo)
        rpc.serve(HANG, hang)
        print(transport.addresses()[0], flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
