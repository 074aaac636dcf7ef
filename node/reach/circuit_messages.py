"""Messages of circuit relay v2 and of DCUtR. Sans-IO.

Source: github.com/libp2p/specs, relay/circuit-v2.md and relay/DCUtR.md; wire compatible with go, js and rust.
Addresses and peer ids stay bytes here; the shells know libp2p's types.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from node.reach import protobuf
from node.reach.protobuf import Value, number, strings
from wire.errors import Malformed

HOP = "/libp2p/circuit/relay/0.2.0/hop"
STOP = "/libp2p/circuit/relay/0.2.0/stop"
DCUTR = "/libp2p/dcutr"

MESSAGE_BYTES_MAX = 4096
"""As the specifications say."""

ADDRESSES_MAX = 16
ID_BYTES_MAX = 64
ADDRESS_BYTES_MAX = 256


class Kind(IntEnum):
    """Of a hop message; a stop message has `CONNECT` 0 and `STATUS` 1."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class Status(IntEnum):
    """How a relay, or the peer behind it, answers."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


@dataclass(frozen=True)
class Limit:
    """What one circuit may use; 0 stands for no limit."""

    duration_s: int = 0
    data_bytes: int = 0


@dataclass(frozen=True)
class Reservation:
    """A relay's promise to take in connections for us."""

    expire_s: int  # Unix time
    addresses: tuple[bytes, ...] = ()  # of the relay
    voucher: bytes = b""


@dataclass(frozen=True)
class Hop:
    """Between a peer and the relay. `status` is None outside `STATUS`; a code that we do not know stays a number."""

    kind: Kind
    peer: bytes = b""
    status: int | None = None
    reservation: Reservation | None = None
    limit: Limit | None = None

    def encode(self) -> bytes:
        """With its length in front."""
        return protobuf.delimit(protobuf.encode(_fields(self.kind, self)))

    @staticmethod
    def decode(raw: bytes) -> Hop:
        """Without its length.

        Raises:
            Malformed: not a hop message.
        """
        fields = protobuf.decode(raw)
        try:
            kind = Kind(number(fields, 1) or 0)
        except ValueError as exc:
            raise Malformed("a hop message of an unknown type") from exc
        reservation = _one(fields, 3)
        return Hop(kind, _peer(fields), number(fields, 5), _reservation(reservation), _limit(_one(fields, 4)))


@dataclass(frozen=True)
class Stop:
    """Between the relay and the peer behind it: `connect` names who wants in, otherwise it is the answer."""

    connect: bool
    peer: bytes = b""
    status: int | None = None
    limit: Limit | None = None

    def encode(self) -> bytes:
        """With its length in front."""
        fields: list[tuple[int, Value]] = [(1, 0 if self.connect else 1)]
        if self.peer:
            fields.append((2, protobuf.encode([(1, self.peer)])))
        if self.limit is not None:
            fields.append((3, _encode_limit(self.limit)))
        if self.status is not None:
            fields.append((4, self.status))
        return protobuf.delimit(protobuf.encode(fields))

    @staticmethod
    def decode(raw: bytes) -> Stop:
        """Without its length.

        Raises:
            Malformed: not a stop message.
        """
        fields = protobuf.decode(raw)
        kind = number(fields, 1) or 0
        if kind not in (0, 1):
            raise Malformed("a stop message of an unknown type")
        return Stop(kind == 0, _peer(fields), number(fields, 4), _limit(_one(fields, 3)))


@dataclass(frozen=True)
class HolePunch:
    """DCUtR: `sync` says go, otherwise it carries where the sender may be dialled."""

    sync: bool
    addresses: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """With its length in front."""
        fields: list[tuple[int, Value]] = [(1, 300 if self.sync else 100)]
        fields += [(2, address) for address in self.addresses]
        return protobuf.delimit(protobuf.encode(fields))

    @staticmethod
    def decode(raw: bytes) -> HolePunch:
        """Without its length.

        Raises:
            Malformed: not a hole-punch message.
        """
        fields = protobuf.decode(raw)
        kind = number(fields, 1)
        if kind not in (100, 300):
            raise Malformed("a hole-punch message of an unknown type")
        return HolePunch(kind == 300, _addresses(fields, 2))


def _fields(kind: Kind, hop: Hop) -> list[tuple[int, Value]]:
    fields: list[tuple[int, Value]] = [(1, int(kind))]
    if hop.peer:
        fields.append((2, protobuf.encode([(1, hop.peer)])))
    if (reservation := hop.reservation) is not None:
        inner: list[tuple[int, Value]] = [(1, reservation.expire_s)]
        inner += [(2, address) for address in reservation.addresses]
        inner += [(3, reservation.voucher)] if reservation.voucher else []
        fields.append((3, protobuf.encode(inner)))
    if hop.limit is not None:
        fields.append((4, _encode_limit(hop.limit)))
    if hop.status is not None:
        fields.append((5, hop.status))
    return fields


def _encode_limit(limit: Limit) -> bytes:
    return protobuf.encode([(1, limit.duration_s), (2, limit.data_bytes)])


def _one(fields: dict[int, list[Value]], field: int) -> bytes | None:
    found = strings(fields, field)
    return found[-1] if found else None


def _peer(fields: dict[int, list[Value]]) -> bytes:
    inner = _one(fields, 2)
    if inner is None:
        return b""
    identity = _one(protobuf.decode(inner), 1) or b""
    if len(identity) > ID_BYTES_MAX:
        raise Malformed("a peer id that goes on and on")
    return identity


def _addresses(fields: dict[int, list[Value]], field: int) -> tuple[bytes, ...]:
    """At most `ADDRESSES_MAX`; those that are too long are left out."""
    return tuple(raw for raw in strings(fields, field)[:ADDRESSES_MAX] if len(raw) <= ADDRESS_BYTES_MAX)


def _reservation(raw: bytes | None) -> Reservation | None:
    if raw is None:
        return None
    fields = protobuf.decode(raw)
    return Reservation(number(fields, 1) or 0, _addresses(fields, 2), _one(fields, 3) or b"")


def _limit(raw: bytes | None) -> Limit | None:
    if raw is None:
        return None
    fields = protobuf.decode(raw)
    return Limit(number(fields, 1) or 0, number(fields, 2) or 0)
