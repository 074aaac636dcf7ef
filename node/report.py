"""A job as lines for people: what came out, who did it, what each juror measured, and why it counts or not.

Pure; `quorate job` and `quorate demo` print what stands here. Numbers come from the job's view (docs/reference/api.md).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Name = Callable[[str], str]
"""A peer id as people should read it."""

MEASURES = {
    "block": "the model's inner states over 32 tokens, against the juror's own",
    "cosine": "angle between the vectors, the juror's own and the worker's",
    "mismatch": "bytes of answer and trace that differ from the juror's own",
    "noise": "the noise that the picture starts from, against that of the seed",
    "pixels": "grey levels by which the picture differs from the juror's own",
    "relative": "largest difference between the vectors, relative to their length",
    "step": "each denoising step that was recomputed, against the juror's own from the same point",
    "token": "the model's inner state at each token, against the juror's own",
    "units": "how far each token lies below the one that the juror's own run prefers",
}


@dataclass(frozen=True)
class Line:
    """One line; `tone` is good, bad, doubtful or nothing."""

    text: str
    tone: str = ""


INDENT = " " * 12


def wrapped(text: str, width: int) -> str:
    """A line broken at spaces to `width` characters, what follows indented like the values above it."""
    if len(text) <= width:
        return text
    lead = text[: len(text) - len(text.lstrip())]
    lines = textwrap.wrap(
        text.lstrip(), width, initial_indent=lead, subsequent_indent=INDENT, break_long_words=False,
        break_on_hyphens=False, drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip
    return "\n".join(lines)


def tone(verdict: str | None) -> str:
    """How a verdict reads."""
    return {"accept": "good", "reject": "bad"}.get(verdict or "", "doubtful")


def headline(view: Mapping[str, Any]) -> Line:
    """Kind, lane, state and seconds."""
    state = view["state"] if view["verdict"] is None else f"{view['state']}: {view['verdict']}"
    return Line(f"{view['kind']}  {state}  lane {view['lane']}  {view['seconds']:.2f} s", tone(view["verdict"]))


def attempts(view: Mapping[str, Any], name: Name) -> Iterator[Line]:
    """Each worker that tried: the verdict on it and why, why it was chosen, and what its jurors measured."""
    for attempt in view["attempts"]:
        jury = attempt.get("jury", [])
        why = _why(attempt["verdict"], jury, view["thresholds"])
        yield Line(f"  {attempt['verdict']:<9} worker {name(attempt['worker'])}{why}", tone(attempt["verdict"]))
        yield Line(f"            chosen: {attempt['reason']}")
        for juror in jury:
            measured = "  ".join(f"{key} {value:.3g}" for key, value in sorted(juror["distances"].items()))
            yield Line(f"            juror {name(juror['peer']):<5} {juror['verdict']:<7} {measured}")
    if view["attempts"] and view["thresholds"]:
        allowed = "  ".join(f"{key} {value:.3g}" for key, value in sorted(view["thresholds"].items()))
        yield Line(f"  allowed   {allowed}")


def _why(verdict: str, jury: list[dict[str, Any]], thresholds: Mapping[str, float]) -> str:
    if verdict != "reject":
        return ""
    worst = {
        key: max(juror["distances"][key] for juror in jury if key in juror["distances"])
        for key in sorted({key for juror in jury for key in juror["distances"]} & set(thresholds))
    }
    beyond = [
        f"{key} {worst[key]:.3g}, {_times(worst[key], thresholds[key])} ({MEASURES.get(key, key)})"
        for key in worst
        if worst[key] > thresholds[key]
    ]
    return f": {'; '.join(beyond)}" if beyond else ""


def _times(value: float, allowed: float) -> str:
    return f"{value / allowed:,.0f} times what is allowed" if allowed else "where none is allowed"


def job(view: Mapping[str, Any], name: Name) -> Iterator[Line]:
    """Everything about a job."""
    yield headline(view)
    yield Line(f"  job       {view['id']}")
    if view["error"]:
        yield Line(f"  error     {view['error']['code']}: {view['error']['message']}", "bad")
    yield from escalation(view.get("escalation"), name)
    yield from attempts(view, name)
    yield from answer(view["output"])
    if view["cost_micro"]:
        yield Line(f"  cost      {view['cost_micro']:,} micro-credits, jurors included")


def batch(view: Mapping[str, Any], name: Name) -> Iterator[Line]:
    """Everything about a batch: a line for each answer, which says whether anybody looked at it."""
    yield headline(view)
    yield Line(f"  batch     {view['id']}")
    if view["error"]:
        yield Line(f"  error     {view['error']['code']}: {view['error']['message']}", "bad")
    for attempt in view["attempts"]:
        yield Line(f"  {attempt['verdict']:<9} worker {name(attempt['worker'])}", tone(attempt["verdict"]))
        yield Line(f"            chosen: {attempt['reason']}")
    for item in view["items"]:
        lines = [line.text.strip() for line in answer(item["output"])]
        told = f": {lines[0]}" if lines else ""
        yield Line(f"  {item['index']:>4}  {item['checked']}{told}", tone(item["verdict"]))
    yield Line(f"  audited   {view['rate']}")
    if view["cost_micro"]:
        yield Line(f"  cost      {view['cost_micro']:,} micro-credits, jurors included")


def escalation(climbed: Mapping[str, Any] | None, name: Name) -> Iterator[Line]:
    """What each jury said on the way up, how disputes ended, and what decided."""
    if not climbed:
        return
    for level, sat in enumerate(climbed["levels"]):
        said = [juror["verdict"] for juror in sat["jury"]]
        counts = ", ".join(f"{said.count(word)} {word}" for word in sorted(set(said)))
        yield Line(f"  level {level}   {len(said)} jurors: {counts or 'no jury'}")
    for dispute in climbed["disputes"]:
        where = "" if dispute["step"] is None else f" over step {dispute['step']}"
        loser = "nobody" if dispute["loser"] is None else name(dispute["loser"])
        yield Line(f"  dispute   by {name(dispute['challenger'])}{where}: {loser} lost, {dispute['fault']}")
    by = climbed["decided_by"]
    yield Line(f"  decided   by {f'level {by}' if isinstance(by, int) else by}")


def answer(output: Mapping[str, Any] | None) -> Iterator[Line]:
    """The output, or what can be said of it in a line."""
    if not output:
        return
    if "text" in output:
        first, *rest = output["text"].splitlines() or [""]
        yield Line(f"  text      {first}")
        yield from (Line(f"            {more}") for more in rest)
    if "image" in output:
        yield Line(f"  picture   {output['image']['width']} x {output['image']['height']} pixels")
    if "embeddings" in output:
        vectors = output["embeddings"]
        yield Line(f"  vectors   {len(vectors)} of {len(vectors[0])} numbers")
