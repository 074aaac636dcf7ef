"""Whether a batch is audited often enough: the condition of `verify.incentive` with the market's own figures.

What the market knows of a batch is what its jobs pay and which calibration judges them. The rest is stated here: a
cheat saves `saving_percent` of a job's price (and honest work costs as much), nothing is lost with a rejected batch but
its pay, detection is the lower end of what the calibration measured for its worst cheat, and a right answer is rejected
with the record's alpha / margin (beyond `margin` times an alpha-quantile, if tails fall at least like 1/x).

Two conditions must hold. No number of wrong answers pays among equal jobs (`honest_batch_is_best`); and since
jobs of a batch may differ in price, cheating on the w dearest does not pay either, for every w. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, fsum

from ledger.entry import AUDITS_MAX
from verify.calibration import Calibration
from verify.incentive import Terms, honest_batch_is_best
from verify.statistics import lower_bound
from wire.errors import LocalError

ROUNDING = 1e-9
"""What is taken off a probability before money is compared with it."""


def detection_of(record: Calibration) -> float:
    """The share of wrong answers that a jury rejects, at least: one-sided 95 % lower bound for the worst cheat.

    Jurors that look at one answer see the same distance, so a majority is not counted as better than one of them.
    """
    return min((lower_bound(cell.detected, cell.runs) for cell in record.cheats if cell.runs), default=0.0)


def false_reject_of(record: Calibration) -> float:
    """The share of right answers that a jury rejects, at most: alpha / margin."""
    return record.alpha / max(record.margin, 1.0)


def terms_of(prices_micro: Sequence[int], audits: int, record: Calibration, saving_percent: int) -> Terms:
    """What an average job of a batch is worth to its worker.

    Args:
        prices_micro: of each job.
        audits: how many jobs are drawn.
        record: the calibration that judges them.
        saving_percent: share of a price that cheating spares, 0..100.

    Raises:
        LocalError: the record does not tell wrong answers from right ones.
    """
    reward = sum(prices_micro) // len(prices_micro)
    cost = reward * saving_percent // 100
    return Terms(
        reward=reward,
        cost=cost,
        saving=cost,
        audit_rate=audits / len(prices_micro),
        detection=detection_of(record),
        false_reject=false_reject_of(record),
    )


def condemned(jobs: int, wrong: int, audits: int, detection: float, false_reject: float) -> float:
    """The probability that at least one of the drawn answers is rejected; right to about 1e-13.

    Args:
        jobs, wrong, audits: in the batch, wrong among them, drawn.
        detection, false_reject: probability that a wrong, and a right, drawn answer is rejected.
    """
    ways = comb(jobs, audits)
    hits = range(max(0, audits - (jobs - wrong)), min(wrong, audits) + 1)
    passes = (
        comb(wrong, hit) * comb(jobs - wrong, audits - hit) / ways
        * (1 - detection) ** hit * (1 - false_reject) ** (audits - hit)
        for hit in hits
    )  # fmt: skip
    return 1 - fsum(passes)


def dearest_do_not_pay(prices_micro: Sequence[int], terms: Terms, audits: int) -> bool:
    """Whether cheating on the w dearest jobs gains nothing, for every w."""
    jobs, pay, saved = len(prices_micro), sum(prices_micro), 0.0
    share = terms.saving / terms.reward if terms.reward else 0.0
    honest = condemned(jobs, 0, audits, terms.detection, terms.false_reject)
    for wrong, price in enumerate(sorted(prices_micro, reverse=True), 1):
        saved += share * price
        risk = condemned(jobs, wrong, audits, terms.detection, terms.false_reject) - honest
        if saved > pay * (risk - ROUNDING):
            return False
    return True


def deters(prices_micro: Sequence[int], audits: int, record: Calibration, saving_percent: int) -> bool:
    """Whether honest work is the best a worker can do with this batch; arguments as in `terms_of`."""
    try:
        terms = terms_of(prices_micro, audits, record, saving_percent)
    except LocalError:
        return False
    return honest_batch_is_best(terms, len(prices_micro)) and dearest_do_not_pay(prices_micro, terms, audits)


def audits_needed(prices_micro: Sequence[int], record: Calibration, saving_percent: int) -> int | None:
    """The fewest drawn jobs that deter; None if no number that a batch may have does."""
    tried = range(1, min(len(prices_micro), AUDITS_MAX) + 1)
    return next((audits for audits in tried if deters(prices_micro, audits, record, saving_percent)), None)


def worth_it(prices_micro: Sequence[int], audits: int, record: Calibration, saving_percent: int) -> bool:
    """Whether honest work on this batch is worth doing: it earns at least what wrongly rejected batches cost."""
    try:
        terms = terms_of(prices_micro, audits, record, saving_percent)
    except LocalError:
        return False
    lost = condemned(len(prices_micro), 0, audits, terms.detection, terms.false_reject)
    return terms.worth_it and sum(prices_micro) * (1 - lost) >= len(prices_micro) * terms.cost
