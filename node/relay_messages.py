"""Calls between a relay and its guest about what was passed. Format: docs/spec/reach.md."""

from __future__ import annotations

from wire.codec import Wire
from wire.rpc.seam import Method


class AccountAsk(Wire, frozen=True, tag="relay-account"):
    """How do we stand? `pays`: whether the guest will acknowledge what goes beyond its free share."""

    pays: bool


class Acknowledged(Wire, frozen=True, tag="relay-acknowledged"):
    """The canonical bytes of a `relayed` entry on the guest's chain."""

    entry: bytes


class Account(Wire, frozen=True, tag="relay-account-is"):
    """How a guest stands with a relay.

    Args:
        price_micro: for one MiB beyond the free share.
        free_bytes: of the free share, left in this hour.
        unpaid_bytes: passed beyond it and not acknowledged; negative if more was acknowledged.
        credit_bytes: how many of them there may be.
    """

    price_micro: int
    free_bytes: int
    unpaid_bytes: int
    credit_bytes: int


ACCOUNT: Method[AccountAsk, Account] = Method("relay.account", AccountAsk, Account)
PAID: Method[Acknowledged, Account] = Method("relay.paid", Acknowledged, Account)
