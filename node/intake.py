"""Turns what a user typed into a checked `Request`, or says what is wrong and what is known.

Everything is refused here, at once, before any peer is asked: unknown fields, models, kinds and lanes,
values out of range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from node.jobs import Policy, Request
from verify.calibrated import calibrations as shipped
from verify.calibration import Calibration
from verify.ladder import LEVELS
from wire import codec
from wire.codec import Wire
from wire.errors import LocalError
from wire.job import INPUTS
from wire.limits import INPUT_BYTES_MAX, JURY_MAX
from workloads.executor import NUMERICS, ModelInfo
from workloads.inputs import check_input

FIELDS = ("kind", "model", "input", "lane", "policy", "seed", "budget_micro", "timeout_s", "retries", "calibration")
TIMEOUT_S_MAX = 3600.0
RETRIES_MAX = 5


@dataclass
class Refused(LocalError):
    """A request that cannot be served; `code` and `known` go to the user as they are."""

    code: str
    message: str
    known: list[str] = field(default_factory=list)
    status: int = 400

    def __str__(self) -> str:
        return self.message + (f"; known: {', '.join(self.known)}" if self.known else "")


def parse(
    body: Any, models: Sequence[ModelInfo], *, random_seed: int, calibrations: Mapping[bytes, Calibration] | None = None
) -> Request:
    """Check the body of a job submission.

    Args:
        body: decoded JSON.
        models: what can be named.
        random_seed: the seed where the user gave none, 0..2**63-1.
        calibrations: records that can be named, by hash; default those that ship.

    Raises:
        Refused: with a machine-readable code and the known alternatives.
    """
    if not isinstance(body, dict):
        raise Refused("bad_request", "the body must be a JSON object", list(FIELDS))
    _only(body, FIELDS, "field")
    kind = _one_of(body, "kind", list(INPUTS))
    model = _model(body, kind, models)
    lane = _one_of({"lane": "tolerant", **body}, "lane", sorted(model.lanes))
    given = _input(kind, body.get("input"))
    try:
        check_input(given)
    except LocalError as exc:
        raise Refused("bad_request", f"input: {exc}") from exc
    raw = codec.encode(given)
    if len(raw) > INPUT_BYTES_MAX:
        raise Refused("bad_request", f"input of {len(raw)} bytes, at most {INPUT_BYTES_MAX}")
    budget = body.get("budget_micro")
    policy, jury_size = _policy(body.get("policy", "quorum:3"))
    return Request(
        kind=kind,  # type: ignore[arg-type]  # one of INPUTS, checked above
        model=model.cid,
        inputs=raw,
        lane=lane,  # type: ignore[arg-type]  # one of the model's lanes, checked above
        policy=policy,
        jury_size=jury_size,
        seed=_number(body, "seed", int, 0, 2**63 - 1, random_seed),
        budget_micro=None if budget is None else _number(body, "budget_micro", int, 0, 2**53, 0),
        timeout_s=_number(body, "timeout_s", float, 0.1, TIMEOUT_S_MAX, 120.0),
        retries=_number(body, "retries", int, 0, RETRIES_MAX, 2),
        calibration=_calibration(body, kind, model.cid, lane, shipped() if calibrations is None else calibrations),
    )


def _calibration(
    body: Mapping[str, Any], kind: str, cid: str, lane: str, known: Mapping[bytes, Calibration]
) -> bytes | None:
    """The hash of the one certified record of this subject that begins as the user wrote it, in hexadecimal."""
    wanted = body.get("calibration")
    if wanted is None:
        return None
    subject = (kind, cid, lane, NUMERICS[lane])  # type: ignore[index]  # one of the model's lanes, checked by `parse`
    fitting = [
        hash_.hex()
        for hash_, each in known.items()
        if each.certified and (each.kind, each.model, each.lane, each.numeric) == subject
    ]
    named = [text for text in fitting if isinstance(wanted, str) and wanted and text.startswith(wanted)]
    if len(named) != 1:
        what = f"{wanted!r} is the beginning of {len(named)} certified calibrations of this model and lane, not of one"
        raise Refused("bad_request", f"calibration {what}", fitting)
    return bytes.fromhex(named[0])


def _only(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise Refused("unknown_field", f"unknown {what} {unknown[0]!r}", list(known))


def _one_of(body: Mapping[str, Any], name: str, known: list[str]) -> str:
    value = body.get(name)
    if not isinstance(value, str) or value not in known:
        raise Refused("bad_request", f"{name} {value!r} is not known", known)
    return value


def _model(body: Mapping[str, Any], kind: str, models: Sequence[ModelInfo]) -> ModelInfo:
    fitting = [model for model in models if model.kind == kind]
    wanted = body.get("model")
    for model in fitting:
        if wanted in (model.name, model.cid):
            return model
    known = sorted({model.name for model in fitting})
    raise Refused("unknown_model", f"no model {wanted!r} for {kind}", known, status=404)


def _input(kind: str, given: Any) -> Wire:
    struct = INPUTS[kind]
    fields = msgspec.structs.fields(struct)
    if not isinstance(given, dict):
        raise Refused("bad_request", "input must be a JSON object", [f.name for f in fields])
    _only(given, [f.name for f in fields], f"input field of {kind}")
    values = []
    for f in fields:
        if f.name not in given and f.required:
            raise Refused("bad_request", f"input.{f.name} is missing", [g.name for g in fields])
        values.append(given.get(f.name, None if f.required else f.default))
    try:
        codec.prepare(struct)
        return msgspec.convert(values, struct)
    except msgspec.ValidationError as exc:
        raise Refused(
            "bad_request", f"input{_fault(str(exc), [f.name for f in fields])}", _choices(struct, exc)
        ) from exc


def _fault(said: str, names: list[str]) -> str:
    """msgspec counts the fields of an array struct; people know their names."""
    place = re.search(r" - at `\$\[(\d+)\](.*)`$", said)
    return f".{names[int(place[1])]}{place[2]}: {said[: place.start()]}" if place else f": {said}"


def _choices(struct: type[Wire], exc: msgspec.ValidationError) -> list[str]:
    """What the field at fault may be, where that is one of a few words; else the fields that there are."""
    names = [f.name for f in msgspec.structs.fields(struct)]
    place = re.search(r"\$\[(\d+)\]`$", str(exc))
    expected = get_type_hints(struct)[names[int(place[1])]] if place else None
    return [str(word) for word in get_args(expected)] if get_origin(expected) is Literal else names


def _policy(policy: Any) -> tuple[Policy, int]:
    """The policy and the size of its jury; of `escalate` the size of the smallest."""
    known = ["none", *(f"quorum:{size}" for size in range(3, JURY_MAX + 1, 2)), "escalate"]
    if policy not in known:
        raise Refused("bad_request", f"policy {policy!r} is not known", known)
    if policy == "escalate":
        return "escalate", LEVELS[0].size
    return ("none", 0) if policy == "none" else ("quorum", int(policy.split(":")[1]))


def _number(
    body: Mapping[str, Any], name: str, kind: type[int] | type[float], least: float, most: float, default: Any
) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not least <= value <= most:
        what = "a whole number" if kind is int else "a number"
        raise Refused("bad_request", f"{name} must be {what} from {least} to {most}, not {value!r}")
    return kind(value)
