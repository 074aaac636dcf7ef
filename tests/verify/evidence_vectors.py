"""Writes tests/vectors/evidence-v1.json: `python -m tests.verify.evidence_vectors`.

Every vector is a bundle in hex; `expect` is the fault of the conviction where it holds, else the name of the one fault
of the bundle. The model is a toy that any language can compute: the first state is f4[4, 4] of ones, each step halves
it, and a pixel is the last state's value times 200, rounded. Keys come from seeds; a test compares.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.verify.receipt_vectors import flipped
from tests.verify.world import DEADLINE_MS, MODEL, SALT, SECRET, names, person, spec, weights
from verify.bisection import DOMAIN, StateBook, StateList, StepOpening, latent_states
from verify.calibration import Calibration, CheatRuns, Subject, calibrate
from verify.commitment import commit
from verify.evidence import VERSION, Bundle, Step, Tensors
from verify.faults import Refused
from verify.fingerprints.registry import fingerprint_for
from verify.juror import Juror
from verify.jury import pool_of
from verify.messages import JuryAsk
from verify.round import AskJuror, AskReveal, Round
from verify.verdict import Finding, judge, refused
from wire import codec
from wire.envelope import seal
from wire.hashing import digest
from wire.job import Expected, ImageInput, JobSpec, Output, Receipt, Trace
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy

PATH = Path(__file__).parents[1] / "vectors" / "evidence-v1.json"
STEPS, BAD_STEP = 8, 5
WORKER = person("worker")


@functools.cache
def record() -> Calibration:
    """What the toy's honest runs differ by; thresholds: noise and step 1e-5, pixels 1."""
    fingerprint = fingerprint_for("image.generate", "tolerant")
    subject = Subject("image.generate", MODEL, "tolerant", "f32", fingerprint.id, fingerprint.resolution)
    honest = {"a/b": [{"noise": 1e-6, "step": 1e-6, "pixels": 0.0}] * 60}
    return calibrate(subject, honest, {"other": CheatRuns([{"noise": 0.3, "step": 0.7, "pixels": 9.0}] * 20)})


class Toy:
    """The referee of the vectors."""

    def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        return from_numpy((state.numpy().astype(np.float32) / 2).astype(np.float32))

    def recheck(self, spec: JobSpec, output: Output, trace: Trace, *, steps: Sequence[int] = ()) -> Expected:
        states = latent_states(trace)
        drawn = steps or range(len(states) - 1)
        own = [self.recompute(spec, step, states[step]).numpy() for step in drawn]
        noise = np.ones((4, 4), dtype=np.float32)
        return Expected({"noise": from_numpy(noise), "steps": from_numpy(np.stack(own)), "pixels": pixels(states[-1])})


def pixels(state: Tensor) -> Tensor:
    return from_numpy(np.clip(np.rint(state.numpy().astype(np.float64) * 200), 0, 255).astype(np.uint8))


def claim(*, bad: bool, finite: bool = True) -> tuple[Output, Trace]:
    """A trajectory that follows throughout, or stays where it is at one step."""
    states = [np.ones((4, 4), dtype=np.float32)]
    for step in range(STEPS):
        states.append(states[-1] if bad and step == BAD_STEP else states[-1] / np.float32(2))
    if not finite:
        states[3] = np.full((4, 4), np.nan, dtype=np.float32)
    return Output({"pixels": pixels(from_numpy(states[-1]))}), Trace({"latents": from_numpy(np.stack(states))})


def job(nonce: int = 0, spots: int = 0) -> JobSpec:
    fingerprint = fingerprint_for("image.generate", "tolerant")
    given = codec.encode(ImageInput(3, STEPS))
    kind: dict[str, Any] = {
        "kind": "image.generate",
        "inputs": given,
        "fingerprint": fingerprint.id,
        "calibration": record().hash,
    }
    return spec(**kind, nonce=nonce.to_bytes(16, "big"), spots=spots)


class Trial:
    """One rejected answer: receipt, jurors, and what the worker signed."""

    def __init__(
        self, answer: tuple[Output, Trace], *, nonce: int = 0, spots: int = 0, finding: Finding | None = None
    ) -> None:
        self.output, self.trace = answer
        self.spec = job(nonce, spots)
        commitment = commit(self.spec.id, self.output, self.trace, SALT)
        self.ask = JuryAsk(
            spec=seal(person("requester"), "job", self.spec),
            commitment=seal(WORKER, "commitment", commitment),
            secret=SECRET,
            salt=SALT,
            pool=pool_of(weights(7)),
            output=self.output,
            trace=self.trace,
        )
        self.root = commitment.root
        self.receipt = self.held(finding)
        self.jury: list[PeerId] = [envelope.author for envelope in self.receipt.commits]

    def held(self, finding: Finding | None) -> Receipt:
        """A round in which every juror finds the same; by default what it is."""
        round_ = Round(self.ask)
        self.drawn = round_.case.drawn
        found = finding or self.honest_finding()
        jurors: dict[PeerId, Juror] = {}
        todo: list[Any] = list(round_.start(0.0))
        while todo:
            action = todo.pop(0)
            if isinstance(action, AskJuror):
                juror = jurors[action.peer] = Juror(person(names(7)[action.peer]), {record().hash: record()})
                hearing = juror.consider(self.spec.requester, self.ask, now_ms=DEADLINE_MS - 1)
                todo += round_.on_answer(0.0, action.peer, juror.rule(hearing, found))
            elif isinstance(action, AskReveal):
                todo += round_.on_reveal(0.0, action.peer, jurors[action.peer].reveal(self.spec.requester, action.ask))
        assert round_.outcome is not None, "everybody answered"
        return round_.outcome.receipt

    def honest_finding(self) -> Finding:
        fingerprint = fingerprint_for("image.generate", "tolerant")
        expected = Toy().recheck(self.spec, self.output, self.trace, steps=self.drawn)
        return judge(fingerprint, record().thresholds, self.output, self.trace, expected, self.drawn)

    def tensors(self, measure: str = "step", **changes: Any) -> Bundle:
        shown = Tensors(self.output, self.trace)
        return msgspec.structs.replace(Bundle(VERSION, self.receipt, self.jury[0], measure, shown), **changes)

    def step(self, step: int = BAD_STEP, *, listed: dict[str, Any] | None = None, **changes: Any) -> Bundle:
        """A bundle over one step; `listed` changes the signed list, other names the opening."""
        states = latent_states(self.trace)
        book = StateBook.of(self.spec.id, self.root, states)
        body = StateList(self.spec.id, self.root, book.head, len(states))
        signed = seal(WORKER, DOMAIN, msgspec.structs.replace(body, **(listed or {})))
        fields: dict[str, Any] = {"states": signed, "step": step, "before": states[step], "after": states[step + 1]}
        fields |= {"before_proof": book.open(step).proof, "after_proof": book.open(step + 1).proof}
        return self.tensors(shown=Step(StepOpening(**(fields | changes))))


def drawn(*, hit: bool) -> Trial:
    """A job of which one step was drawn: the wrong one, or another; then the jury lies to say that it found it."""
    lie = None if hit else Finding("reject", {"step": 0.9}, digest("sketch", b"x"))
    trials = (Trial(claim(bad=True), nonce=nonce, spots=1, finding=lie) for nonce in count(100))
    return next(trial for trial in trials if (trial.drawn == (BAD_STEP,)) == hit)


def holding() -> dict[str, tuple[str, Bundle]]:
    trial = Trial(claim(bad=True))
    lost = Trial(claim(bad=True, finite=False), finding=refused(Refused("nonfinite", "latents")))
    return {
        "all tensors, one step wrong": ("measure", trial.tensors()),
        "the same, from another juror of the jury": ("measure", trial.tensors(juror=trial.jury[2])),
        "one step and its audit paths": ("step", trial.step()),
        "all tensors, the wrong step drawn": ("measure", drawn(hit=True).tensors()),
        "another step was drawn, the wrong one is shown": ("step", drawn(hit=False).step()),
        "a state that is not finite": ("refused", lost.tensors("refused.nonfinite")),
    }


def broken() -> dict[str, tuple[str, Bundle]]:
    trial, other = Trial(claim(bad=True)), Trial(claim(bad=True), nonce=1)
    framed = Trial(claim(bad=False), finding=Finding("reject", {"step": 0.9, "pixels": 7.0}, digest("sketch", b"x")))
    mild = Trial(claim(bad=True), finding=Finding("reject", {"step": 1e-6, "phash64": 9.0}, digest("sketch", b"x")))
    good = trial.step()
    assert isinstance(good.shown, Step), "as built"
    opening = good.shown.opening
    accepted = Trial(claim(bad=True), finding=Finding("accept", {"step": 1e-9}, digest("sketch", b"x")))
    signed_by_other = seal(person("juror-1"), DOMAIN, StateList(trial.spec.id, trial.root, bytes(32), STEPS + 1))
    replace = msgspec.structs.replace
    return {
        "version 2": ("evidence.version", trial.tensors(version=2)),
        "a receipt with a bad signature": (
            "reveal",
            trial.tensors(receipt=replace(trial.receipt, reveals=[flipped(each) for each in trial.receipt.reveals])),
        ),
        "a juror who is not in the jury": ("evidence.juror", trial.tensors(juror=person("requester").peer)),
        "a juror who accepted": ("evidence.juror", accepted.tensors()),
        "a measure that the juror did not reveal": ("evidence.measure", trial.tensors("cosine")),
        "a measure that decides nothing": ("evidence.measure", mild.tensors("phash64")),
        "a measure within its threshold": ("evidence.measure", mild.tensors("step")),
        "a step, for a measure of the whole": ("evidence.measure", replace(good, measure="pixels")),
        "an honest worker, framed by its jury": ("evidence.innocent", framed.tensors()),
        "an honest worker, framed over a step": ("evidence.innocent", framed.step()),
        "a step that was drawn and follows": ("evidence.innocent", drawn(hit=False).tensors()),
        "a step that follows": ("evidence.innocent", trial.step(2)),
        "half of the tensors": ("evidence.opening", trial.tensors(shown=Tensors(trial.output, Trace({})))),
        "tensors of another answer": ("evidence.opening", trial.tensors(shown=Tensors(*claim(bad=False)))),
        "the step of another job": ("evidence.job", replace(other.step(), receipt=trial.receipt)),
        "states of another root": ("evidence.job", trial.step(listed={"root": bytes(32)})),
        "states signed by another": ("evidence.states", trial.step(states=signed_by_other)),
        "states with a bad signature": ("evidence.states", trial.step(states=flipped(opening.states))),
        "ten states where nine belong": ("evidence.count", trial.step(listed={"count": STEPS + 2})),
        "a step before the first": ("evidence.step", replace_step(good, step=-1)),
        "a step after the last": ("evidence.step", replace_step(good, step=STEPS)),
        "another state before": ("evidence.path", replace_step(good, before=latent_states(trial.trace)[0])),
        "another state after": ("evidence.path", replace_step(good, after=latent_states(trial.trace)[0])),
        "no audit path": ("evidence.path", replace_step(good, before_proof=[])),
        "an audit path that is too long": ("evidence.path", replace_step(good, after_proof=[bytes(32)] * 13)),
        "the step next to it": ("evidence.path", replace_step(good, step=BAD_STEP + 1)),
    }


def replace_step(bundle: Bundle, **changes: Any) -> Bundle:
    assert isinstance(bundle.shown, Step), "a step"
    return msgspec.structs.replace(bundle, shown=Step(msgspec.structs.replace(bundle.shown.opening, **changes)))


def vectors() -> list[dict[str, str]]:
    """All of them, in order."""
    found = {name: (expect, codec.encode(bundle)) for name, (expect, bundle) in (holding() | broken()).items()}
    raw = found["one step and its audit paths"][1]
    stranger = Trial(claim(bad=True))
    found |= {
        "nothing": ("evidence.encoding", b""),
        "truncated": ("evidence.encoding", raw[:-1]),
        "a trailing byte": ("evidence.encoding", raw + b"\x00"),
        "a receipt": ("evidence.encoding", codec.encode(stranger.receipt)),
    }
    return [{"name": name, "expect": expect, "hex": raw.hex()} for name, (expect, raw) in found.items()]


def document() -> str:
    """The file's text."""
    about = (
        "expect: measure, refused or step if the bundle convicts the worker, else its one fault: docs/spec/evidence.md;"
        " the toy model: first state f4[4,4] of ones, a step halves, a pixel is round(200 * value)"
    )
    thresholds = dict(record().thresholds)
    body = {"about": about, "thresholds": thresholds, "calibration": record().hash.hex(), "vectors": vectors()}
    return json.dumps(body, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(document())
