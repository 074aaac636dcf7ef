"""Turns what a user typed into a checked batch, and refuses one that is audited too rarely to keep a worker honest.

`sample:q` on n jobs means that the draw takes m = max(1, ceil(q n)) of them, so that no batch is credited without an
audit. `sample:auto` takes the smallest m at which honest work is the best that a worker can do
(`node.market.incentives`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from ledger.entry import AUDITS_MAX
from node import intake
from node.intake import Refused
from node.jobs import Item, Request
from node.market import pricing
from node.market.batch_messages import BATCH_JOBS_MAX
from node.market.incentives import audits_needed
from verify.calibrated import calibration_for
from verify.calibration import Calibration
from verify.sampling import sampling_of
from wire import codec
from wire.errors import LocalError
from wire.job import INPUTS
from workloads.executor import NUMERICS, ModelInfo

FIELDS = ("kind", "model", "jobs", "lane", "policy", "budget_micro", "timeout_s", "retries", "calibration")
JOB_FIELDS = ("input", "seed")
POLICIES = ["sample:q with 0 < q <= 1", "sample:auto"]
SAMPLE = re.compile(r"sample:[0-9]{1,12}((\.[0-9]{1,12})|(/[0-9]{1,12}))?")
"""No exponents: what a number may cost to read is bounded by its length."""

TIMEOUT_S = 600.0


def parse_batch(
    body: Any,
    models: Sequence[ModelInfo],
    *,
    draw_seed: Callable[[], int],
    calibrations: Mapping[bytes, Calibration],
    saving_percent: int,
) -> Request:
    """Check the body of a batch submission.

    Args:
        body: decoded JSON.
        models: what can be named.
        draw_seed: gives the seed of a job for which the user gave none, 0..2**63-1.
        calibrations: records that can be named, by hash.
        saving_percent: share of a price that a cheat is assumed to save.

    Raises:
        Refused: with a machine-readable code and what would do; `too_few_audits` names the rate that is needed.
    """
    if not isinstance(body, dict):
        raise Refused("bad_request", "the body must be a JSON object", list(FIELDS))
    if unknown := sorted(set(body) - set(FIELDS)):
        raise Refused("unknown_field", f"unknown field {unknown[0]!r}", list(FIELDS))
    jobs = body.get("jobs")
    if not isinstance(jobs, list) or not 1 <= len(jobs) <= BATCH_JOBS_MAX:
        raise Refused("bad_request", f"jobs must be a list of 1 to {BATCH_JOBS_MAX} jobs")
    share = _share(body.get("policy", "sample:auto"))
    common = {name: body[name] for name in FIELDS if name in body and name not in ("jobs", "policy")}
    common.setdefault("timeout_s", TIMEOUT_S)
    parsed = [_job(index, job, common, models, draw_seed(), calibrations) for index, job in enumerate(jobs)]
    first = parsed[0]
    return Request(
        kind=first.kind,
        model=first.model,
        inputs=b"",
        lane=first.lane,
        policy=first.policy,
        jury_size=first.jury_size,
        seed=0,
        budget_micro=first.budget_micro,
        timeout_s=first.timeout_s,
        retries=first.retries,
        calibration=first.calibration,
        items=[Item(each.inputs, each.seed) for each in parsed],
        audits=_audits(first, [each.inputs for each in parsed], share, calibrations, saving_percent),
    )


def _share(policy: Any) -> Fraction | None:
    """q of `sample:q`; None for `sample:auto`."""
    if policy == "sample:auto":
        return None
    if not isinstance(policy, str) or SAMPLE.fullmatch(policy) is None:
        raise Refused("bad_request", f"policy {policy!r} is not known for a batch", POLICIES)
    try:
        sampling_of(policy)
    except LocalError as exc:
        raise Refused("bad_request", str(exc), POLICIES) from exc
    return Fraction(policy.partition(":")[2])


def _job(
    index: int,
    job: Any,
    common: dict[str, Any],
    models: Sequence[ModelInfo],
    seed: int,
    calibrations: Mapping[bytes, Calibration],
) -> Request:
    if not isinstance(job, dict):
        raise Refused("bad_request", f"job {index} must be a JSON object", list(JOB_FIELDS))
    if unknown := sorted(set(job) - set(JOB_FIELDS)):
        raise Refused("unknown_field", f"job {index}: unknown field {unknown[0]!r}", list(JOB_FIELDS))
    try:
        return intake.parse({**common, **job}, models, random_seed=seed, calibrations=calibrations)
    except Refused as exc:
        raise Refused(exc.code, f"job {index}: {exc.message}", exc.known, exc.status) from exc


def _audits(
    first: Request,
    inputs: Sequence[bytes],
    share: Fraction | None,
    calibrations: Mapping[bytes, Calibration],
    saving_percent: int,
) -> int:
    """How many are drawn.

    Raises:
        Refused: fewer than keep a worker honest, or more than one batch may have.
    """
    jobs = len(inputs)
    if first.calibration is not None:
        record = calibrations[first.calibration]
    else:
        try:
            record = calibration_for(first.kind, first.model, first.lane, NUMERICS[first.lane], records=calibrations)
        except LocalError as exc:
            raise Refused("not_calibrated", str(exc)) from exc
    units = pricing.UNIT_MICRO[first.kind]
    prices = [units * pricing.units(codec.decode(INPUTS[first.kind], raw)) for raw in inputs]
    needed = audits_needed(prices, record, saving_percent)
    if needed is None:
        message = f"no number of audits of these {jobs} jobs would keep a worker honest: use quorum:3 for each"
        raise Refused("too_few_audits", message)
    asked = needed if share is None else max(1, ceil(share * jobs))
    if max(asked, needed) > AUDITS_MAX:
        most = Fraction(AUDITS_MAX, jobs)
        message = f"{max(asked, needed)} audits, at most {AUDITS_MAX} (sample:{most}) in a batch; use smaller batches"
        raise Refused("bad_request", message)
    if asked < needed:
        rate = f"sample:{needed}/{jobs}"
        message = f"{asked} of {jobs} audited would make cheating pay: {rate} is needed (or sample:auto)"
        raise Refused("too_few_audits", message, [rate, "sample:auto"])
    return asked
