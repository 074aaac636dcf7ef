"""Drives `verify.escalation` over the network: juries level by level, then disputes over single steps.

As with one jury there is one task per call and one clock, and the state machine decides the rest. The referee of a
dispute is this node's own executor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from node.market.auditor import ROUND_TIMES, ask_juror, ask_reveal
from node.market.context import Context
from node.market.messages import DISPUTE_ENTRY, DISPUTE_OPENING, DISPUTE_SHOWN, DisputeAsk
from verify import bisection
from verify.bisection import AskEntry, AskOpening, AskShown, Recompute, Ruling, Terms
from verify.escalation import Action, AtLevel, Escalated, Escalation, Final, InDispute
from verify.escalation import Outcome as Ended
from verify.ladder import Level
from verify.messages import JuryAsk
from verify.round import AskJuror, AskReveal, Blame, Outcome, PassedOver, Timing
from wire.errors import Busy, LocalError, Malformed, Refused, RemoteError, TransportError
from wire.job import JobSpec
from wire.peer import PeerId, short, to_text
from workloads.executor import ExecutorCrashed

Tell = Callable[..., None]
"""Told of each event for people: its type, and what it says."""

TermsOf = Callable[[int, PeerId], Terms]
"""The terms of a dispute that a juror of this level brings."""

REFEREE_S = 60.0
"""Seconds for recomputing one step."""


@dataclass(frozen=True)
class Climbed:
    """How it ended, and what each jury that sat said."""

    ended: Ended
    rounds: tuple[Outcome, ...]


class _Driver:
    """Carries out the actions of one escalation; ends when it is final."""

    def __init__(self, context: Context, spec: JobSpec, machine: Escalation, tell: Tell) -> None:
        self._context, self._spec, self._tell = context, spec, tell
        self._machine = machine
        self._news = trio.Event()

    async def run(self) -> Climbed:
        """Until there is a final verdict."""
        machine = self._machine
        async with trio.open_nursery() as nursery:
            self._do(nursery, machine.start(trio.current_time()))
            while (deadline := machine.next_deadline()) is not None:
                self._news = trio.Event()
                with trio.move_on_at(deadline) as late:
                    await self._news.wait()
                if late.cancelled_caught:
                    self._do(nursery, machine.on_tick(trio.current_time()))
            nursery.cancel_scope.cancel()
        assert machine.outcome is not None, "an escalation without a deadline is final"
        return Climbed(machine.outcome, tuple(each.outcome for each in machine.rounds if each.outcome is not None))

    def _do(self, nursery: trio.Nursery, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case AtLevel(level, inner):
                    self._at_level(nursery, level, inner)
                case InDispute(challenger, argued):
                    self._in_dispute(nursery, challenger, argued)
                case Escalated(level, why):
                    self._tell("escalated", level=level, why=why)
                case Final(outcome):
                    self._context.log.info("escalation_ended", verdict=outcome.verdict, by=outcome.decided_by)
        opened = {step.level for step in actions if isinstance(step, AtLevel) and isinstance(step.action, AskReveal)}
        for level in opened:
            self._tell("auditing", level=level, jury=[to_text(peer) for peer in self._machine.rounds[level].jury])
        self._news.set()

    def _at_level(self, nursery: trio.Nursery, level: int, action: AskJuror | AskReveal | PassedOver | Blame) -> None:
        match action:
            case AskJuror(peer):
                nursery.start_soon(self._ask, nursery, level, peer)
            case AskReveal():
                nursery.start_soon(self._reveal, nursery, level, action)
            case PassedOver(peer, reason):
                self._context.log.info("juror_passed_over", juror=short(peer), reason=reason)
            case Blame(peer, reason, penalty):
                self._context.blame(RemoteError(peer, reason, penalty=penalty))

    async def _ask(self, nursery: trio.Nursery, level: int, peer: PeerId) -> None:
        machine = self._machine
        try:
            answer = await ask_juror(self._context, peer, machine.rounds[level].ask)
        except (RemoteError, TransportError, Busy) as exc:
            actions = machine.on_silent(trio.current_time(), level, peer, str(exc))
        else:
            actions = machine.on_answer(trio.current_time(), level, peer, answer)
        self._do(nursery, actions)

    async def _reveal(self, nursery: trio.Nursery, level: int, action: AskReveal) -> None:
        machine = self._machine
        try:
            envelope = await ask_reveal(self._context, action)
        except (RemoteError, TransportError, Busy) as exc:
            actions = machine.on_silent(trio.current_time(), level, action.peer, str(exc))
        else:
            actions = machine.on_reveal(trio.current_time(), level, action.peer, envelope)
        self._do(nursery, actions)

    def _in_dispute(self, nursery: trio.Nursery, challenger: PeerId, action: bisection.Action) -> None:
        if isinstance(action, Ruling):
            self._ruled(action)
        elif isinstance(action, Recompute):
            nursery.start_soon(self._referee, nursery, challenger, action)
        else:
            if isinstance(action, AskEntry) and action.peer == challenger:
                self._tell("dispute", challenger=to_text(challenger))
            nursery.start_soon(self._question, nursery, challenger, action)

    def _ruled(self, ruling: Ruling) -> None:
        loser = "" if ruling.loser is None else to_text(ruling.loser)
        self._tell("dispute", challenger=to_text(ruling.challenger), step=ruling.step, loser=loser, fault=ruling.fault)
        if ruling.loser is not None and ruling.fault != "dispute.silent":
            self._context.blame(RemoteError(ruling.loser, f"lost a dispute: {ruling.fault}", penalty=0.5))

    async def _question(
        self, nursery: trio.Nursery, challenger: PeerId, action: AskEntry | AskOpening | AskShown
    ) -> None:
        """Ask a side for what the search needs next."""
        machine, peer = self._machine, action.peer
        case = machine.rounds[level_of(machine, challenger)].case
        rpc, seconds = self._context.rpc, ROUND_TIMES * self._context.settings.juror_s
        job, root = case.job, case.root
        actions: list[Action]
        try:
            match action:
                case AskEntry():
                    ask = DisputeAsk(job, root, 0)
                    entry = await rpc.call(peer, DISPUTE_ENTRY, ask, timeout_s=seconds)
                    actions = machine.on_entry(trio.current_time(), challenger, peer, entry)
                case AskOpening(_, index):
                    ask = DisputeAsk(job, root, index)
                    opening = await rpc.call(peer, DISPUTE_OPENING, ask, timeout_s=seconds)
                    actions = machine.on_opening(trio.current_time(), challenger, peer, opening)
                case AskShown(_, step):
                    ask = DisputeAsk(job, root, step)
                    shown = await rpc.call(peer, DISPUTE_SHOWN, ask, timeout_s=seconds)
                    actions = machine.on_shown(trio.current_time(), challenger, peer, shown)
        except (RemoteError, TransportError, Busy) as exc:
            if isinstance(exc, RemoteError) and not isinstance(exc, Refused):
                self._context.blame(exc)
            self._context.log.info("side_silent", peer=short(peer), reason=str(exc))
            actions = machine.on_side_silent(trio.current_time(), challenger, peer)
        self._do(nursery, actions)

    async def _referee(self, nursery: trio.Nursery, challenger: PeerId, action: Recompute) -> None:
        own = None
        try:
            own = await self._context.pool.recompute(self._spec, action.step, action.state)
        except (LocalError, Malformed, Busy, ExecutorCrashed) as exc:
            self._context.log.warning("referee_failed", reason=str(exc))
        self._do(nursery, self._machine.on_recomputed(trio.current_time(), challenger, own))


def level_of(machine: Escalation, juror: PeerId) -> int:
    """The level at which a juror sat."""
    return next(level for level, each in enumerate(machine.rounds) if juror in each.jury)


async def climb(
    context: Context,
    spec: JobSpec,
    asks: Sequence[JuryAsk],
    levels: Sequence[Level],
    nonce: bytes,
    terms_of: TermsOf | None,
    tell: Tell,
) -> Climbed:
    """Have an answer judged by one jury after another until one decides, or a dispute does.

    Args:
        spec: of the first level. asks, levels, nonce: see `verify.escalation.Escalation`.
        terms_of: of disputes; None where the job has no steps.
        tell: told of juries, escalations and disputes.

    Raises:
        Fault: ladder or material are not in order.
    """
    seconds = context.settings.juror_s
    timing = Timing(answer_s=seconds, reveal_s=seconds, grace_s=seconds, round_s=ROUND_TIMES * seconds)

    def terms(challenger: PeerId) -> Terms:
        assert terms_of is not None, "asked where there are disputes"
        return terms_of(level_of(machine, challenger), challenger)

    machine = Escalation(
        asks,
        nonce,
        levels=levels,
        terms=None if terms_of is None else terms,
        timing=timing,
        answer_s=seconds,
        referee_s=REFEREE_S,
    )
    return await _Driver(context, spec, machine, tell).run()
