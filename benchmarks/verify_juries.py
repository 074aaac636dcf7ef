"""Juries against what they should be by arithmetic: `python -m benchmarks.verify_juries [--quick] [--trials 400]`.

Every trial runs `verify.escalation` with real jurors, sealed and signed votes, and receipts; jurors collude with
probability f and err with probability 0.01, by a seeded generator. Equal signature checks are made once.

    verify.juries.<jury>.f<0,10,20,30>.<false_accept,false_reject>   share of trials; its peer is the exact value
    verify.juries. ... .<lower95,upper95>                         Clopper-Pearson bounds of that share
    verify.round_ms.<3,7,21>                                      the requester's work for one round, nothing cached
    verify.evidence_bytes.<tensors,step>                          a bundle over a real picture's trajectory
"""

from __future__ import annotations

import argparse
import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from benchmarks.line import show
from node.calibration_inputs import job_specs
from verify.bisection import StateBook, StepOpening, latent_states
from verify.calibrated import calibration_for, calibrations
from verify.commitment import commit
from verify.escalation import AtLevel, Escalation, Final, Outcome
from verify.evidence import Tensors, build, check, decode
from verify.fingerprints.registry import fingerprint_for
from verify.juror import Juror
from verify.jury import pool_hash, pool_of
from verify.ladder import LEVELS, LEVELS_STRICT, LEVELS_WITHOUT_DISPUTE, Level, build_ladder, level_secret
from verify.messages import JuryAsk
from verify.odds import ladder_odds
from verify.round import Action, AskJuror, AskReveal, Round
from verify.statistics import clopper_pearson
from verify.verdict import Finding, judge
from wire import bls, codec
from wire.envelope import Envelope, seal
from wire.hashing import digest
from wire.identity import Identity
from wire.job import Expected, ImageInput, JobSpec, Lane, Output, Receipt, Trace
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy
from workloads.catalog import built_in
from workloads.executor import NUMERICS
from workloads.image import ImageModel
from workloads.local import LocalExecutor
from workloads.variants import find, make_executor

BETA = 0.01
PEERS = 60
NONCE = bytes(16)
NOW_MS = 1
JURIES: Mapping[str, Sequence[Level]] = {
    "majority3": (Level(3, 2),),
    "majority7": (Level(7, 4),),
    "majority21": (Level(21, 11),),
    "escalate": LEVELS,
    "escalate-strict": LEVELS_STRICT,
    "escalate-without-dispute": LEVELS_WITHOUT_DISPUTE,
}


@functools.cache
def person(name: str) -> Identity:
    """The identity that everybody agrees to call `name`."""
    return Identity.from_seed(digest("bench.person", name.encode()))


class StepReferee:
    """`verify.evidence.Referee` over the models that ship."""

    def __init__(self, variant: str = "default") -> None:
        self._executor = LocalExecutor(find(variant), threads=1)

    def recheck(self, spec: JobSpec, output: Output, trace: Trace, *, steps: Sequence[int] = ()) -> Expected:
        """What a juror computes."""
        return self._executor.recheck(spec, output, trace, steps=steps)

    def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        """One DDIM step."""
        given, model = self._executor.prepare(spec)
        assert isinstance(given, ImageInput), "images have steps"
        assert isinstance(model, ImageModel), "images have steps"
        latent = state.numpy().astype(np.float32)
        return from_numpy(model.steps(latent[None], given, spec.seed, [step])[0])


@dataclass
class Stage:
    """One committed answer with a ladder, and for each peer two jurors: one that accepts, one that rejects."""

    asks: list[JuryAsk]
    jurors: dict[tuple[PeerId, str], Juror]
    findings: Mapping[str, Finding]

    def climb(self, levels: Sequence[Level], votes: Callable[[PeerId], str]) -> Outcome:
        """An escalation in which everybody answers at once."""
        machine = Escalation(self.asks, NONCE, levels=levels)
        said: dict[PeerId, str] = {}
        todo = list(machine.start(0.0))
        while todo:
            step = todo.pop(0)
            if isinstance(step, Final):
                return step.outcome
            if not isinstance(step, AtLevel):
                continue
            if isinstance(step.action, AskJuror):
                peer = step.action.peer
                said[peer] = votes(peer)
                juror = self.jurors[peer, said[peer]]
                hearing = juror.consider(person("requester").peer, self.asks[step.level], now_ms=NOW_MS)
                todo += machine.on_answer(0.0, step.level, peer, juror.rule(hearing, self.findings[said[peer]]))
            elif isinstance(step.action, AskReveal):
                peer = step.action.peer
                opened = self._reveal(self.jurors[peer, said[peer]], step.action)
                todo += machine.on_reveal(0.0, step.level, peer, opened)
        raise AssertionError("everybody answered")

    def _reveal(self, juror: Juror, action: AskReveal) -> Envelope:
        return juror.reveal(person("requester").peer, action.ask)


def picture(lane: Lane = "tolerant", cheat: str | None = None, index: int = 0) -> tuple[JobSpec, Output, Trace]:
    """A real run of the diffusion model."""
    (cid,) = [info.cid for info in built_in().capabilities().models if info.kind == "image.generate"]
    spec = job_specs("image.generate", lane, cid, NUMERICS[lane], 400 + index)[-1]
    output, trace = make_executor(cheat=cheat).run(spec, emit=lambda _: None, cancelled=lambda: False)
    record = calibration_for("image.generate", cid, lane, NUMERICS[lane])
    fingerprint = fingerprint_for("image.generate", lane)
    named = {"fingerprint": fingerprint.id, "calibration": record.hash, "requester": person("requester").peer}
    return msgspec.structs.replace(spec, deadline_ms=1 << 40, fee_micro=100, price_micro=1000, **named), output, trace


def stage(levels: Sequence[Level], spec: JobSpec, output: Output, trace: Trace) -> Stage:
    """Everything signed and ready for a jury, with 60 peers of equal weight."""
    peers = [person(f"peer-{index}") for index in range(PEERS)]
    pool = pool_of({each.peer: 1 for each in (*peers, person("requester"), person("worker"))})
    secrets = [level_secret(bytes(32), level) for level in range(len(levels))]
    specs = build_ladder(msgspec.structs.replace(spec, pool=pool_hash(pool), nonce=NONCE), levels, secrets)
    salt = digest("bench", b"salt")
    asks = [
        JuryAsk(
            spec=seal(person("requester"), "job", each),
            commitment=seal(person("worker"), "commitment", commit(each.id, output, trace, salt)),
            secret=secret,
            salt=salt,
            pool=pool,
            output=output,
            trace=trace,
        )
        for each, secret in zip(specs, secrets, strict=True)
    ]
    jurors = {(each.peer, word): Juror(each, calibrations()) for each in peers for word in ("accept", "reject")}
    findings = {"accept": Finding("accept", {"step": 1e-7}), "reject": Finding("reject", {"step": 0.5})}
    return Stage(asks, jurors, findings)


def simulate(levels: Sequence[Level], f: float, *, honest: bool, trials: int, seed: int) -> dict[str, int]:
    """How often each verdict was final ("unaudited" is what would go on to single steps)."""
    set_up = stage(levels, *picture())
    chance = random.Random(f"{seed}/{[level.size for level in levels]}/{f}/{honest}")
    right, wrong = ("accept", "reject") if honest else ("reject", "accept")
    counts = {"accept": 0, "reject": 0, "unaudited": 0}
    for _ in range(trials):
        outcome = set_up.climb(levels, lambda _: wrong if chance.random() < f + (1 - f) * BETA else right)
        counts[outcome.verdict] += 1
    return counts


def odds(trials: int) -> None:
    """False verdicts, simulated against exact."""
    for name, levels in JURIES.items():
        for f in (0.0, 0.1, 0.2, 0.3):
            exact = ladder_odds(levels, f, BETA).wrong
            for honest, word, kind in ((False, "accept", "false_accept"), (True, "reject", "false_reject")):
                hits = simulate(levels, f, honest=honest, trials=trials, seed=1)[word]
                low, high = clopper_pearson(hits, trials)
                figure = f"verify.juries.{name}.f{round(100 * f)}.{kind}"
                show(figure, hits / trials, "share", better="lower", peer="exact", peer_value=exact)
                show(f"{figure}.lower95", low, "share", better="lower")
                show(f"{figure}.upper95", high, "share", better="lower")


def memoise() -> None:
    """Check equal BLS signatures once: in a simulation the same jurors sign the same statements again and again."""
    bls.verify = functools.lru_cache(1 << 16)(bls.verify)  # type: ignore[assignment]  # the same calls, remembered


def rounds() -> None:
    """Milliseconds of the requester's state machine, jurors' own work left out."""
    for size in (3, 7, 21):
        levels = (Level(size, size // 2 + 1),)
        best = min(_round_ms(levels, *picture()) for _ in range(5))
        show(f"verify.round_ms.{size}", best, "ms", better="lower")


def _round_ms(levels: Sequence[Level], spec: JobSpec, output: Output, trace: Trace) -> float:
    set_up = stage(levels, spec, output, trace)
    spent = 0.0

    def timed(call: Callable[[], list[Action]]) -> list[Action]:
        nonlocal spent
        begun = time.perf_counter()
        found = call()
        spent += time.perf_counter() - begun
        return found

    made: list[Round] = []
    timed(lambda: made.append(Round(set_up.asks[0])) or [])  # type: ignore[func-returns-value]  # timed for its effect
    (round_,) = made
    todo = timed(lambda: round_.start(0.0))
    while todo:
        action = todo.pop(0)
        if isinstance(action, AskJuror):
            juror = set_up.jurors[action.peer, "accept"]
            hearing = juror.consider(person("requester").peer, set_up.asks[0], now_ms=NOW_MS)
            answer = juror.rule(hearing, set_up.findings["accept"])
            todo += timed(lambda peer=action.peer, answer=answer: round_.on_answer(0.0, peer, answer))  # type: ignore[misc]  # bound now
        elif isinstance(action, AskReveal):
            opened = set_up.jurors[action.peer, "accept"].reveal(person("requester").peer, action.ask)
            todo += timed(lambda peer=action.peer, opened=opened: round_.on_reveal(0.0, peer, opened))  # type: ignore[misc]  # bound now
    return 1000 * spent


def rejected(lane: Lane, cheat: str) -> tuple[Receipt, PeerId, str, StateBook, Output, Trace]:
    """A receipt in which three real jurors rejected a real cheat, the first of them, its measure, and the states."""
    spec, output, trace = picture(lane, cheat)
    set_up = stage((Level(3, 2),), spec, output, trace)
    record = calibrations()[spec.calibration]
    expected = StepReferee().recheck(spec, output, trace)
    found = judge(fingerprint_for("image.generate", lane), record.thresholds, output, trace, expected)
    set_up = Stage(set_up.asks, set_up.jurors, {"accept": found, "reject": found})
    outcome = set_up.climb((Level(3, 2),), lambda _: "reject")
    round_case = Round(set_up.asks[0]).case
    measure = "step" if lane == "tolerant" else "mismatch"
    book = StateBook.of(round_case.job, round_case.root, latent_states(trace))
    return outcome.receipts[0], outcome.receipts[0].commits[0].author, measure, book, output, trace


def step_opening(book: StateBook, step: int) -> StepOpening:
    """What the worker shows in a dispute over this step."""
    entry = book.enter(person("worker"))
    before, after = book.states[step], book.states[step + 1]
    return StepOpening(entry.states, step, before, book.open(step).proof, after, book.open(step + 1).proof)


def evidence() -> None:
    """Bytes of bundles that convict."""
    receipt, juror, measure, book, output, trace = rejected("tolerant", "int8-weights")
    shown: dict[str, Tensors | StepOpening] = {"tensors": Tensors(output, trace), "step": step_opening(book, 3)}
    for name, each in shown.items():
        raw = build(receipt, juror, measure, each)
        conviction = check(decode(raw), StepReferee(), calibrations())
        assert conviction.distance > conviction.threshold, "a bundle that convicts"
        show(f"verify.evidence_bytes.{name}", len(raw), "bytes", better="lower")
    show("verify.evidence_bytes.receipt", len(codec.encode(receipt)), "bytes", better="lower")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="twenty runs in place of --trials")
    parser.add_argument("--trials", type=int, default=400, help="simulated answers per cell")
    options = parser.parse_args()
    evidence()
    rounds()
    memoise()
    odds(20 if options.quick else options.trials)


if __name__ == "__main__":
    main()
