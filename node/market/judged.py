"""What became of one attempt: what its juries said, how it ended, and what of it the job shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.jobs import Board, Job
from verify.escalation import Outcome as Ended
from verify.receipt import OutcomeWord
from verify.round import Outcome
from wire import codec
from wire.peer import to_text


@dataclass(frozen=True)
class Judged:
    """How an answer was judged.

    Attributes:
        rounds: of the juries that sat, in order; the last one decided, unless a dispute or nobody did.
        verdict: the final one. ended: how the policy `escalate` ended; None where one jury decides.
        proof: the bundle that convicts the worker (`node.market.proof`), if the answer was rejected.
    """

    rounds: tuple[Outcome, ...]
    verdict: OutcomeWord
    ended: Ended | None = None
    proof: bytes | None = None


def record(
    board: Board, job: Job, judged: Judged, verdict: OutcomeWord, cost_micro: int, thresholds: Mapping[str, float]
) -> None:
    """Show it in the job; `verdict` is the one on the ledger."""
    last, ended = judged.rounds[-1], judged.ended
    board.update(
        job,
        verdict=verdict,
        jury=_members(last),
        thresholds=dict(thresholds),
        cost_micro=cost_micro,
        receipt=codec.encode(last.receipt),
        evidence=judged.proof or job.evidence,
        escalation=None if ended is None else _escalation(judged, ended),
    )


def _members(outcome: Outcome) -> list[dict[str, object]]:
    return [
        {"peer": to_text(juror.peer), "verdict": juror.verdict, "distances": dict(juror.distances)}
        for juror in outcome.jury
    ]


def _escalation(judged: Judged, ended: Ended) -> dict[str, object]:
    disputes = [
        {
            "challenger": to_text(ruling.challenger),
            "loser": None if ruling.loser is None else to_text(ruling.loser),
            "fault": ruling.fault,
            "step": ruling.step,
        }
        for ruling in ended.rulings
    ]
    levels = [{"verdict": each.verdict, "jury": _members(each)} for each in judged.rounds]
    return {"decided_by": ended.decided_by, "levels": levels, "disputes": disputes}
