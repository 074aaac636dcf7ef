"""Which jobs a worker takes: what could not be run, judged or paid is refused at once, with a word for it."""

from __future__ import annotations

from node.market import pricing
from node.market.context import Context
from node.market.messages import Declined
from verify import jury
from verify.juror import why_unable
from wire.errors import LocalError, Malformed
from wire.job import JobSpec
from workloads.inputs import check

DEADLINE_MS_MAX = 3_660_000
"""How far away a deadline may be: an hour, and a minute for clocks that differ. Until then a job may hold a slot."""


class Refuse(Exception):
    """Why an offer is not taken; sent as `Declined`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.declined = Declined(code, reason)


def check_spec(context: Context, spec: JobSpec) -> None:
    """Raises: Refuse: unknown model, bad input, unknown thresholds, deadline, price too low."""
    if spec.model not in {model.cid for model in context.models}:
        raise Refuse("unknown_model", f"served here: {', '.join(model.name for model in context.models)}")
    try:
        given = check(spec)
        jury.check_size(spec.jury_size)
    except (LocalError, Malformed) as exc:
        raise Refuse("refused", str(exc)) from exc
    unable = why_unable(spec, context.calibrations.get(spec.calibration))
    if spec.jury_size and unable is not None:
        raise Refuse("thresholds", unable.why)
    left_ms = spec.deadline_ms - context.now_ms()
    if not 0 < left_ms <= DEADLINE_MS_MAX:
        raise Refuse("deadline", "it has passed" if left_ms <= 0 else "it is too far away")
    if spec.jury_size == 0 and not context.settings.serve_unpaid:
        raise Refuse("price", "an answer that nobody checks earns nothing; this node does not work unpaid")
    unit = pricing.unit_price_micro(spec.kind, context.settings.price_percent)
    least = unit * pricing.units(given) if spec.jury_size else 0
    if spec.price_micro < least:
        raise Refuse("price", f"{least} micro-credits wanted")
