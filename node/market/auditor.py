"""Drives `verify.round` over the network: one task per juror and call, one clock, and the round decides the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from node.keys import SecondKey
from node.market.context import Context
from node.market.material import Answered
from node.market.messages import AUDIT, REVEAL, AuditAsk
from verify.messages import JuryAnswer, JuryAsk
from verify.round import Action, AskJuror, AskReveal, Blame, Decide, Outcome, PassedOver, Round, Timing
from wire.envelope import Envelope
from wire.errors import Busy, Malformed, RemoteError, TransportError
from wire.peer import PeerId, short

ROUND_TIMES = 4
"""A round takes at most so many times `juror_s`, the time for one answer; after that nobody waits for an answer."""


class _Driver:
    """Carries out the actions of one round; ends when it has decided."""

    def __init__(self, context: Context, machine: Round, show: Callable[[Sequence[PeerId]], None]) -> None:
        self._context = context
        self._round = machine
        self._show = show
        self._news = trio.Event()

    async def run(self) -> Outcome:
        """Ask, wait, reveal, decide."""
        async with trio.open_nursery() as nursery:
            self._do(nursery, self._round.start(trio.current_time()))
            while (deadline := self._round.next_deadline()) is not None:
                self._news = trio.Event()
                with trio.move_on_at(deadline) as late:
                    await self._news.wait()
                if late.cancelled_caught:
                    self._do(nursery, self._round.on_tick(trio.current_time()))
            nursery.cancel_scope.cancel()
        assert self._round.outcome is not None, "a round without a deadline has decided"
        return self._round.outcome

    def _do(self, nursery: trio.Nursery, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case AskJuror(peer):
                    nursery.start_soon(self._ask, nursery, peer)
                case AskReveal():
                    nursery.start_soon(self._reveal, nursery, action)
                case PassedOver(peer, reason):
                    self._context.log.info("juror_passed_over", juror=short(peer), reason=reason)
                case Blame(peer, reason, penalty):
                    self._context.blame(RemoteError(peer, reason, penalty=penalty))
                case Decide(outcome):
                    self._context.log.info("round_decided", verdict=outcome.verdict)
        if any(isinstance(action, AskReveal) for action in actions):
            self._show(self._round.jury)
        self._news.set()

    async def _ask(self, nursery: trio.Nursery, peer: PeerId) -> None:
        try:
            answer = await ask_juror(self._context, peer, self._round.ask)
        except (RemoteError, TransportError, Busy) as exc:
            actions = self._round.on_silent(trio.current_time(), peer, str(exc))
        else:
            actions = self._round.on_answer(trio.current_time(), peer, answer)
        self._do(nursery, actions)

    async def _reveal(self, nursery: trio.Nursery, action: AskReveal) -> None:
        try:
            envelope = await ask_reveal(self._context, action)
        except (RemoteError, TransportError, Busy) as exc:
            actions = self._round.on_silent(trio.current_time(), action.peer, str(exc))
        else:
            actions = self._round.on_reveal(trio.current_time(), action.peer, envelope)
        self._do(nursery, actions)


async def ask_juror(context: Context, peer: PeerId, ask: JuryAsk) -> JuryAnswer:
    """A juror's sealed vote.

    A vote counts under the BLS key that the juror has announced to everybody: a certificate under another one would
    hold for us and not for those who know the announced one, and they would refuse our chain for it.

    Raises:
        RemoteError: it refused, or votes under another key: the two records together prove it, and the juror is not
            drawn again. TransportError: it cannot be reached. Busy: it has too much to do.
    """
    with context.shelf.lend(Answered(ask.output, ask.trace), [peer]) as carried:
        sent = AuditAsk(ask.spec, ask.commitment, ask.secret, ask.salt, ask.pool, carried)
        answer = await context.rpc.call(peer, AUDIT, sent, timeout_s=ROUND_TIMES * context.settings.juror_s)
    try:
        context.keyring.learn(answer.key, author=peer)
    except SecondKey as exc:
        error = RemoteError(peer, "votes under another key than it announced", penalty=0.5)
        context.blame(error)
        raise error from exc
    except Malformed:
        return answer  # the round names the fault
    return answer


async def ask_reveal(context: Context, action: AskReveal) -> Envelope:
    """A juror's opened vote.

    Raises:
        RemoteError: it refused. TransportError: it cannot be reached. Busy: it has too much to do.
    """
    timeout_s = ROUND_TIMES * context.settings.juror_s
    return await context.rpc.call(action.peer, REVEAL, action.ask, timeout_s=timeout_s)


async def audit(context: Context, ask: JuryAsk, show: Callable[[Sequence[PeerId]], None]) -> Outcome:
    """Have an answer judged by a drawn jury.

    Args:
        ask: what each juror is shown.
        show: told who sits on the jury once that is known.

    Raises:
        Fault: the material is not in order.
    """
    seconds = context.settings.juror_s
    timing = Timing(answer_s=seconds, reveal_s=seconds, round_s=ROUND_TIMES * seconds)
    return await _Driver(context, Round(ask, timing=timing), show).run()
