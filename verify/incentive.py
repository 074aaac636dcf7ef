"""When honest work pays better than cheating: the conditions that a market needs to set audit rates and stakes.

For one job: R is what it earns, c what honest work costs, `saving` what cheating spares, q the probability of an audit,
d that an audit sees a wrong answer, a that it condemns a right one, S what a condemned worker loses beyond R.

    honest work earns   R - c - q a (R + S)
    cheating earns      R - c + saving - q d (R + S)

So honesty is the best choice exactly if q (d - a) (R + S) >= saving, and taking part is worth it exactly if
R - c >= q a (R + S). Both are linear in how often one cheats, so mixing cheating with honesty is no way around them.

What S may be. `deposit`: what each failure really costs (a deposit, trust that brings work, the pay of the rest of a
batch). `franchise`: all earnings to come, lost once, at ejection; spread over the failures that lead to it. The second
holds only against a cheater that is ejected: whoever fails no more often than `verify.eprocess` tolerates never is, and
must be deterred by the deposit alone.

Amounts are integer micro-credits; probabilities are floats. Conditions are decided in exact arithmetic on them, and
what is solved for is rounded to the safe side, so the condition holds for the solution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from verify.eprocess import audits_to_reject
from wire.errors import LocalError

AMOUNT_MAX = 1 << 62


@dataclass(frozen=True)
class Terms:
    """What a job is worth to whoever does it.

    Attributes:
        reward: R, micro-credits paid for an answer that is not condemned.
        cost: c, micro-credits that honest work costs.
        saving: micro-credits of `cost` that cheating spares, 0..cost.
        audit_rate: q. detection: d. false_reject: a. Probabilities, a < d.
        stake: S, micro-credits lost with every condemned answer, beyond the reward.

    Raises:
        LocalError: out of range.
    """

    reward: int
    cost: int
    saving: int
    audit_rate: float
    detection: float = 1.0
    false_reject: float = 0.0
    stake: int = 0

    def __post_init__(self) -> None:
        amounts = (self.reward, self.cost, self.saving, self.stake)
        if not all(0 <= amount <= AMOUNT_MAX for amount in amounts) or self.saving > self.cost:
            raise LocalError(f"amounts {amounts}: not negative, and no more is saved than work costs")
        if not 0 <= self.audit_rate <= 1 or not 0 <= self.false_reject < self.detection <= 1:
            raise LocalError(
                f"q {self.audit_rate}, d {self.detection}, a {self.false_reject}: 0 <= a < d <= 1 expected"
            )

    @property
    def honest_micro(self) -> float:
        """Expected gain of an honest job."""
        return self.reward - self.cost - self.audit_rate * self.false_reject * (self.reward + self.stake)

    @property
    def cheat_micro(self) -> float:
        """Expected gain of a job on which the worker cheats."""
        lost = self.audit_rate * self.detection * (self.reward + self.stake)
        return self.reward - self.cost + self.saving - lost

    @property
    def honest_is_best(self) -> bool:
        """q (d - a) (R + S) >= saving."""
        return Fraction(self.audit_rate) * self._gap * (self.reward + self.stake) >= self.saving

    @property
    def _gap(self) -> Fraction:
        return Fraction(self.detection) - Fraction(self.false_reject)

    @property
    def worth_it(self) -> bool:
        """R - c >= q a (R + S)."""
        expected = Fraction(self.audit_rate) * Fraction(self.false_reject) * (self.reward + self.stake)
        return self.reward - self.cost >= expected


def audit_rate_needed(terms: Terms) -> float:
    """The smallest q at which honesty is best; `terms.audit_rate` plays no part.

    Raises:
        LocalError: even auditing every job is not enough.
    """
    at_risk = (Fraction(terms.detection) - Fraction(terms.false_reject)) * (terms.reward + terms.stake)
    if terms.saving > at_risk:
        raise LocalError(f"auditing every job risks {float(at_risk):.0f}, less than the {terms.saving} that is saved")
    return min(_up(terms.saving / at_risk), 1.0) if terms.saving else 0.0


def audit_rate_max(terms: Terms) -> float:
    """The largest q at which honest work is worth it; below `audit_rate_needed`, no q will do.

    Raises:
        LocalError: work is not worth its cost even without audits.
    """
    if terms.reward < terms.cost:
        raise LocalError("the reward is below the cost")
    expected = Fraction(terms.false_reject) * (terms.reward + terms.stake)
    return 1.0 if terms.reward - terms.cost >= expected else _down((terms.reward - terms.cost) / expected)


def detection_needed(terms: Terms) -> float:
    """The smallest d at which honesty is best; `terms.detection` plays no part.

    Raises:
        LocalError: even certain detection is not enough.
    """
    at_risk = Fraction(terms.audit_rate) * (terms.reward + terms.stake)
    if terms.saving > at_risk * (1 - Fraction(terms.false_reject)):
        raise LocalError(f"{float(at_risk):.0f} at risk in a job, too little for the {terms.saving} that is saved")
    return min(_up(Fraction(terms.false_reject) + terms.saving / at_risk), 1.0) if at_risk else terms.false_reject


def stake_needed(terms: Terms) -> int:
    """The smallest S at which honesty is best; `terms.stake` plays no part.

    Raises:
        LocalError: nothing is audited, or the stake would be beyond all amounts.
    """
    if not terms.saving:
        return 0
    share = Fraction(terms.audit_rate) * (Fraction(terms.detection) - Fraction(terms.false_reject))
    needed = math.ceil(terms.saving / share) - terms.reward if share else AMOUNT_MAX + 1
    if needed > AMOUNT_MAX:
        raise LocalError("audits are too rare for any stake to deter")
    return max(needed, 0)


def stake_max(terms: Terms) -> int:
    """The largest S at which honest work is worth it.

    Raises:
        LocalError: work is not worth it even with no stake.
    """
    share = Fraction(terms.audit_rate) * Fraction(terms.false_reject)
    margin = terms.reward - terms.cost - share * terms.reward
    if margin < 0:
        raise LocalError("work is not worth it even with no stake")
    return min(math.floor(margin / share), AMOUNT_MAX) if share else AMOUNT_MAX


def franchise(margin_micro: float, patience: float) -> int:
    """Worth of all jobs after this one: margin * patience / (1 - patience).

    Args:
        margin_micro: what an honest job earns, `Terms.honest_micro`.
        patience: what a job from now is worth against the same job now, times the probability that it comes; 0..1.

    Raises:
        LocalError: patience out of range.
    """
    if not 0 <= patience < 1:
        raise LocalError(f"patience {patience}: at least 0 and below 1 expected")
    return min(max(math.floor(margin_micro * patience / (1 - patience)), 0), AMOUNT_MAX)


def franchise_at_risk(franchise_micro: int, failing: float, *, alpha0: float = 0.05, level: float = 1e-3) -> int:
    """The part of a franchise that each failure costs a peer whose audits fail with this probability.

    It is lost once, after `verify.eprocess.audits_to_reject` audits at most, of which the share `failing` fail. Who has
    little patience values it less, since ejection is still to come. 0 for a peer that fails no more often than is
    tolerated.

    Args:
        franchise_micro: from `franchise`.
        failing: probability that an audit fails, of honest and wrong answers together.
        alpha0, level: of the record, as in `verify.eprocess.fresh`.
    """
    audits = audits_to_reject(failing, alpha0=alpha0, level=level)
    return 0 if math.isinf(audits) else math.floor(franchise_micro / (failing * audits))


def batch_gain(terms: Terms, jobs: int, wrong: int) -> float:
    """Expected gain, in micro-credits, of a batch under `sample:q` in which `wrong` of `jobs` answers are wrong.

    One condemned answer costs the pay of the whole batch, and S once.

    Raises:
        LocalError: not 0 <= wrong <= jobs, or no job.
    """
    if not 0 <= wrong <= jobs or jobs < 1:
        raise LocalError(f"{wrong} wrong answers of {jobs}")
    right_passes = 1 - terms.audit_rate * terms.false_reject
    wrong_passes = 1 - terms.audit_rate * terms.detection
    condemned = 1 - right_passes ** (jobs - wrong) * wrong_passes**wrong
    earned = jobs * (terms.reward - terms.cost) + wrong * terms.saving
    return earned - condemned * (jobs * terms.reward + terms.stake)


def honest_batch_is_best(terms: Terms, jobs: int) -> bool:
    """Whether no number of wrong answers pays better than none.

    The chance to be condemned grows ever more slowly with each wrong answer, so the gain is convex in their number: it
    is enough that a batch that is wrong throughout does not pay.
    """
    return batch_gain(terms, jobs, jobs) <= batch_gain(terms, jobs, 0)


def _up(exact: Fraction) -> float:
    """The smallest double that is not less."""
    value = float(exact)
    return value if Fraction(value) >= exact else math.nextafter(value, math.inf)


def _down(exact: Fraction) -> float:
    value = float(exact)
    return value if Fraction(value) <= exact else math.nextafter(value, -math.inf)
