"""Agreeing on the protocol of a stream, within bounded time, on both sides."""

from __future__ import annotations

from collections.abc import Mapping

import trio
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable

from node.libp2p.multiselect import ProtocolRefused, Responder
from node.libp2p.muxed_stream import MuxedStream
from node.libp2p.muxer import LOST, Muxer
from wire.errors import Malformed, Unreachable
from wire.peer import PeerId, short

NEGOTIATION_S = 5
"""Seconds for the other side's part of a negotiation."""


async def open_stream(muxer: Muxer, peer: PeerId, protocol: str) -> MuxedStream:
    """A stream whose protocol the peer confirmed now or earlier on this connection.

    Raises:
        Unreachable: it does not serve `protocol`, or does not say so in time.
        LOST: the connection has ended, or nothing at all comes from the other side any more.
    """
    stream, began = muxer.open_now(), trio.current_time()
    try:
        stream.propose(protocol)
        if protocol not in muxer.confirmed:
            with trio.fail_after(NEGOTIATION_S):
                await stream.confirmed()
            muxer.confirmed.add(protocol)
    except ProtocolRefused as exc:
        raise Unreachable(f"{short(peer)} does not serve {protocol}") from exc
    except (Malformed, trio.TooSlowError) as exc:
        stream.abort("no answer to our proposal")
        if isinstance(exc, trio.TooSlowError) and muxer.heard_at < began:
            raise MuxedConnUnavailable(f"{short(peer)} has fallen silent") from exc
        raise Unreachable(f"{short(peer)} did not answer to {protocol}: {exc}") from exc
    except trio.Cancelled:
        stream.abort("cancelled while opening")
        raise
    except LOST as exc:
        if muxer.lost is None:
            raise Unreachable(f"{short(peer)} refused a stream for {protocol}: {exc}") from exc
        raise
    return stream


async def agree(stream: MuxedStream, served: Mapping[str, object]) -> str:
    """The protocol that the opener of a stream and we agree on.

    Raises:
        Malformed: it proposes nonsense.
        LOST: the stream ended, or no agreement came in time.
    """
    with trio.fail_after(NEGOTIATION_S):
        return await stream.respond(Responder(served, [name for name in served if name]))
