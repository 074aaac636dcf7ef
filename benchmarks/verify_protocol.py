"""Cheats against the protocol rather than the model: bad jurors, copied seals and commitments, aimed draws.

`python -m benchmarks.verify_protocol [trials]`. Shares are counted over juries drawn as in a real round and set beside
their exact probability; what signatures and seals rule out is tried on the real state machine. Intervals are two-sided
95 % Clopper-Pearson. `verify_detection` puts the tables into docs/reference/detection.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import msgspec

from benchmarks.line import show
from benchmarks.verify_juries import NOW_MS, PEERS, Stage, person, picture, stage
from node.detection import JURY, POOL, Judged, draw, escalated_verdict, jury_verdict, ladder_right, three_right
from verify.commitment import commit
from verify.faults import Fault
from verify.juror import Juror
from verify.ladder import LEVELS_STRICT, Level
from verify.messages import JuryAnswer, JuryAsk
from verify.odds import Finite, best_of, hypergeometric, undecided_if_withheld
from verify.round import AskJuror, AskReveal, Blame, Decide, Outcome, Round
from verify.statistics import clopper_pearson
from wire.envelope import Envelope, seal, unseal
from wire.hashing import digest
from wire.identity import Identity
from wire.job import Commitment, JurorCommit, JurorReveal, VerdictWord
from wire.peer import PeerId

TRIALS, ROUNDS = 4800, 60
SHARES = (10, 20)
KIND = "image.generate"
RIGHT, WRONG = Judged(("accept",)), Judged(("reject",))


def counted(name: str, hits: int, trials: int, exact: float) -> str:
    """A cell: count, bounds and the exact probability, in percent; and the figure on stdout."""
    low, high = clopper_pearson(hits, trials)
    show(f"verify.protocol.{name}", 100 * hits / trials, "%", better="lower", peer="exact", peer_value=100 * exact)
    return f"{100 * hits / trials:.2f} ({100 * low:.2f} to {100 * high:.2f}); {100 * exact:.3f}"


def juries(trials: int) -> list[str]:
    """What bad jurors do, by jury rule and share of the pool."""
    lines = [
        f"### Bad jurors, {POOL} peers",
        "",
        "Percent of rounds, counted (with bounds); exact.",
        "",
        "| jurors who | harm | 10 %, three | 10 %, ladder | 20 %, three | 20 %, ladder |",
        "|---|---|---|---|---|---|",
    ]
    cases: Sequence[tuple[str, str, Judged, VerdictWord, VerdictWord | None]] = (
        ("always accept", "cheat accepted", WRONG, "accept", "accept"),
        ("always reject", "honest work refused", RIGHT, "reject", "reject"),
        ("lack the model and vote reject", "honest work refused", RIGHT, "reject", "reject"),
        ("seal a vote and never open it", "unaudited", RIGHT, "abstain", None),
    )
    for who, harm, judged, lie, bad in cases:
        cells = []
        for share in SHARES:
            three = sum(jury_verdict(run, judged, share, lie) == bad for run in range(trials))
            ladder = sum(escalated_verdict(run, judged, share, lie, KIND) == bad for run in range(trials))
            exact = 1 - ladder_right(KIND, share) if bad else undecided_if_withheld(LEVELS_STRICT, Finite(POOL, share))
            name = f"{who.replace(' ', '-')}.f{share}"
            cells.append(counted(f"{name}.three", three, trials, 1 - three_right(share)))
            cells.append(counted(f"{name}.ladder", ladder, trials, exact))
        lines.append(f"| {who} | {harm} | {' | '.join(cells)} |")
    return [*lines, ""]


def grinding(trials: int) -> list[str]:
    """Draws that are thrown until all of the first jury collude."""
    size = LEVELS_STRICT[0].size
    lines = [
        "### Aimed draws",
        "",
        "Before the requester's secret is out the worker cannot compute the draw, and then it is bound: its one try is",
        "blind. Requester and worker together can try until the jury suits them.",
        "",
        "| colluding | jury | captured per draw, counted; exact, % | in 100 tries, % | in 10,000 tries, % |",
        "|---|---|---|---|---|",
    ]
    for share in SHARES:
        for name, hits, exact in (
            (
                "two of three",
                sum(sum(p < share for p in draw(i)[:JURY]) > 1 for i in range(trials)),
                1 - three_right(share),
            ),
            (
                f"all of {size}, the ladder's first",
                sum(all(p < share for p in draw(i)[:size]) for i in range(trials)),
                hypergeometric(size, POOL, share, size),
            ),
        ):
            cell = counted(f"grinding.f{share}.{name.split()[2].strip(',')}", hits, trials, exact)
            tries = [f"{100 * best_of(count, exact):.1f}" for count in (100, 10_000)]
            lines.append(f"| {share} % | {name} | {cell} | {' | '.join(tries)} |")
    return [*lines, ""]


class Table:
    """A real round over a real picture: asks, peers, and jurors of whom some lack the model."""

    def __init__(self, number: int) -> None:
        self.stage: Stage = stage((Level(JURY, 2),), *picture(index=number))
        self.ask: JuryAsk = self.stage.asks[0]
        self.requester = self.ask.spec.author

    def juror(self, peer: PeerId) -> Juror:
        """The juror that would accept."""
        return self.stage.jurors[peer, "accept"]

    def answer(self, juror: Juror) -> JuryAnswer:
        """Its sealed vote; one that lacks the calibration abstains."""
        hearing = juror.consider(self.requester, self.ask, now_ms=NOW_MS)
        return juror.rule(hearing, hearing.finding or self.stage.findings["accept"])


def play(table: Table, ignorant: int, copier: bool) -> tuple[Outcome, int]:
    """A round to its end, and how many were blamed.

    Args:
        ignorant: of every hundred peers that lack the model. copier: the second juror seals and opens what the first
            did, under its own name.
    """
    round_ = Round(table.ask)
    todo, blamed, thief = list(round_.start(0.0)), 0, None
    answers: dict[PeerId, JuryAnswer] = {}
    opened: Envelope | None = None
    while todo:
        step = todo.pop(0)
        if isinstance(step, Decide):
            return step.outcome, blamed
        blamed += isinstance(step, Blame)
        if isinstance(step, AskJuror):
            juror = table.juror(step.peer)
            lacks = digest("bench.ignorant", step.peer)[0] * 100 < ignorant * 256
            answer = table.answer(Juror(identity_of(step.peer), {}) if lacks else juror)
            if copier and len(answers) == 1:
                thief, (first,) = identity_of(step.peer), answers.values()
                sealed = unseal(first.said, "juror.commit", JurorCommit)
                answer = JuryAnswer(seal(thief, "juror.commit", sealed), answer.key)
            answers[step.peer] = answer
            todo += round_.on_answer(0.0, step.peer, answer)
        elif isinstance(step, AskReveal):
            if thief is not None and step.peer == thief.peer:
                assert opened is not None, "jurors are asked in draw order"
                reveal = seal(thief, "juror.reveal", unseal(opened, "juror.reveal", JurorReveal))
            else:
                reveal = table.juror(step.peer).reveal(table.requester, step.ask)
                opened = opened or reveal
            todo += round_.on_reveal(0.0, step.peer, reveal)
    raise AssertionError("a round ends")


@cache
def identity_of(peer: PeerId) -> Identity:
    """The keys of a peer in the pool."""
    return next(each for each in (person(f"peer-{index}") for index in range(PEERS)) if each.peer == peer)


def stolen_commitment(table: Table) -> bool:
    """Whether a round takes the commitment of a thief who signs another worker's root and has only its own answer."""
    theirs = unseal(table.ask.commitment, "commitment", Commitment)
    thief = Identity.from_seed(digest("bench.thief"))
    salt = digest("bench.thief.salt")
    own = commit(theirs.job, table.ask.output, table.ask.trace, salt)
    signed = seal(thief, "commitment", msgspec.structs.replace(own, root=theirs.root))
    try:
        Round(msgspec.structs.replace(table.ask, commitment=signed, salt=salt))
    except Fault:
        return False
    return True


def machines(rounds: int) -> list[str]:
    """What seals, salts and the rule of abstaining rule out, on real rounds."""
    tables = [Table(number) for number in range(rounds)]
    ignorant = [play(table, 20, copier=False)[0].verdict for table in tables]
    copies = [play(Table(rounds + number), 0, copier=True) for number in range(rounds)]
    counts = {
        "copied neighbour's seal counts as a vote": sum(
            any(juror.verdict == "accept" for juror in outcome.jury[1:2]) for outcome, _ in copies
        ),
        "copied neighbour's seal goes without blame": sum(blamed == 0 for _, blamed in copies),
        "copied neighbour's commitment is taken": sum(map(stolen_commitment, tables)),
        "a fifth of the peers lacks the model and says so: honest work not accepted": sum(
            verdict != "accept" for verdict in ignorant
        ),
    }
    lines = [
        "### What seals, salts and abstaining rule out",
        "",
        "| on real rounds | happened | at most % |",
        "|---|---|---|",
    ]
    for what, hits in counts.items():
        high = clopper_pearson(hits, rounds).high
        show(f"verify.protocol.{what.replace(' ', '-')}", 100 * high, "% at most", better="lower")
        lines.append(f"| {what} | {hits} of {rounds} | {100 * high:.1f} |")
    return [*lines, ""]


def protocol_tables(*, quick: bool = False, trials: int = TRIALS) -> list[str]:
    """All of it, in Markdown."""
    few = 200 if quick else trials
    return [*juries(few), *grinding(few), *machines(6 if quick else ROUNDS)]


if __name__ == "__main__":
    print("\n".join(protocol_tables(trials=int(sys.argv[1]) if sys.argv[1:] else TRIALS)), file=sys.stderr)
