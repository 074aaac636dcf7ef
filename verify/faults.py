"""Named faults: a `Malformed` whose `code` is stable, so that other implementations and vectors can speak of it."""

from __future__ import annotations

from typing import TypeVar

from wire.envelope import Envelope, unseal
from wire.errors import LocalError, Malformed
from wire.peer import PeerId

T = TypeVar("T")


class Fault(Malformed):
    """Something received breaks the rule named `code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Refused(Fault):
    """Output or trace cannot even be compared (missing, another dtype or shape, empty, not finite): the worker's fault.

    Counts as `reject`; codes: missing, extra, dtype, shape, length, empty, nonfinite, range.
    """


class ExpectedUnusable(LocalError):
    """What our own executor computed cannot be compared: our fault, so the juror says `inconclusive`."""


def demand(holds: bool, code: str, detail: str) -> None:
    """Raise `Fault(code, detail)` unless `holds`."""
    if not holds:
        raise Fault(code, detail)


def unseal_as(code: str, envelope: Envelope, domain: str, kind: type[T], *, author: PeerId | None = None) -> T:
    """`wire.envelope.unseal`, failing as `Fault(code)`."""
    try:
        return unseal(envelope, domain, kind, author=author)
    except Malformed as exc:
        raise Fault(code, str(exc)) from exc
