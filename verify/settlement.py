"""Who pays for a matter that was judged: the side that lost, in integer micro-credits, and none appears or vanishes.

A matter is a set of votes on one answer, from one jury or several, and of disputes. Whoever voted as the matter ended
earns the fee. Whoever voted otherwise, or sealed a vote and withheld it, forfeits its bond, and so does a rejected
worker. Forfeits pay the fees; what they lack the requester pays, up to its reservation; what they exceed is burned,
since whoever got it would profit from convictions. A matter that ends unaudited moves nothing.

A juror that lost a dispute voted to reject: it forfeits its bond where the answer stands, and earns its fee where
another juror proved what it could not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verify.receipt import JurorWord, OutcomeWord
from wire.peer import PeerId


@dataclass(frozen=True)
class Stakes:
    """What the parties put up, each at least 0, in micro-credits.

    Attributes:
        price: for an accepted answer. fee: for a vote. referee_fee: for each dispute.
        worker_bond, juror_bond: what a worker and each juror stand to forfeit.
    """

    price: int
    fee: int
    referee_fee: int = 0
    worker_bond: int = 0
    juror_bond: int = 0

    def __post_init__(self) -> None:
        amounts = (self.price, self.fee, self.referee_fee, self.worker_bond, self.juror_bond)
        assert all(amount >= 0 for amount in amounts), "amounts are not negative"

    def reservation(self, sizes: Sequence[int]) -> int:
        """The most that the requester can come to pay, with juries of these sizes; reserved when the job is offered."""
        return self.price + sum(sizes) * (self.fee + self.referee_fee)


@dataclass(frozen=True)
class Settlement:
    """Transfers by peer, and what is burned; their sum is 0."""

    transfers: Mapping[PeerId, int]
    burned: int


@dataclass(frozen=True)
class Matter:
    """What happened.

    Attributes:
        verdict: the final one. votes: of all juries, each juror once; "silent" is a vote sealed and withheld.
        disputes: loser of each dispute, None where there was none. referee: who recomputed, None if the requester did.
    """

    requester: PeerId
    worker: PeerId
    verdict: OutcomeWord
    votes: Mapping[PeerId, JurorWord]
    disputes: Sequence[PeerId | None] = ()
    referee: PeerId | None = None


def settle(stakes: Stakes, matter: Matter) -> Settlement:
    """Who gets and gives what.

    Returns:
        Transfers: positive is earned. No juror loses more than its bond, the worker none beyond its own, the
        requester none beyond its reservation.
    """
    if matter.verdict == "unaudited":
        return Settlement({}, 0)
    moved: dict[PeerId, int] = {}

    def move(peer: PeerId, amount: int) -> None:
        moved[peer] = moved.get(peer, 0) + amount

    right = [peer for peer, word in matter.votes.items() if word == matter.verdict]
    wrong = [peer for peer, word in matter.votes.items() if word not in (matter.verdict, "abstain", "inconclusive")]
    for peer in right:
        move(peer, stakes.fee)
    if matter.referee is not None:
        move(matter.referee, stakes.referee_fee * len(matter.disputes))
    owed = sum(moved.values())
    for peer in wrong:
        move(peer, -stakes.juror_bond)
    pot = stakes.juror_bond * len(wrong)
    if matter.verdict == "reject":
        move(matter.worker, -stakes.worker_bond)
        pot += stakes.worker_bond
    else:
        move(matter.worker, stakes.price)
        move(matter.requester, -stakes.price)
    move(matter.requester, -max(0, owed - pot))
    return Settlement({peer: amount for peer, amount in moved.items() if amount}, max(0, pot - owed))
