"""A calibration record that says who measured it: an envelope of domain `calibration` over the canonical record.

The record's own hash is what job specs name, so signing changes nothing there; the signature says whose measurement
it is. A record is believed only if it is consistent with itself: `certified` must follow from its own cells.
Format: docs/spec/verify.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from verify.calibration import VERSION, Calibration
from wire import codec
from wire.envelope import Envelope, Signer, seal, unseal
from wire.errors import Malformed
from wire.peer import PeerId

DOMAIN = "calibration"


@dataclass(frozen=True)
class SignedCalibration:
    """Made by `sign` or `load`: `record` is what `envelope` holds, and `author` measured it."""

    envelope: Envelope
    record: Calibration

    @property
    def author(self) -> PeerId:
        """The 32-byte identity that signed."""
        return self.envelope.author

    @property
    def raw(self) -> bytes:
        """The canonical bytes of the envelope: what a file holds."""
        return codec.encode(self.envelope)


def sign(signer: Signer, record: Calibration) -> SignedCalibration:
    """Put a signature under a record.

    Raises:
        Malformed: the record contradicts itself.
    """
    check(record)
    return SignedCalibration(seal(signer, DOMAIN, record), record)


def load(raw: bytes, *, author: PeerId | None = None) -> SignedCalibration:
    """The record in a file.

    Args:
        raw: as `SignedCalibration.raw`.
        author: if given, the only author accepted.

    Raises:
        Malformed: not an envelope, another domain or author, a bad signature, or a record that contradicts itself.
    """
    envelope = codec.decode(Envelope, raw)
    record = unseal(envelope, DOMAIN, Calibration, author=author)
    check(record)
    return SignedCalibration(envelope, record)


def check(record: Calibration) -> None:
    """Whether a record follows from its own cells.

    Raises:
        Malformed: another version, numbers that are none, counts that cannot be, or a verdict that the cells do not
            give.
    """
    _demand(record.version == VERSION, f"version {record.version}")
    _demand(0 < record.alpha < 1 and record.margin >= 1 and record.gap >= 1, "alpha, margin or gap out of range")
    _demand(bool(record.groups) and bool(record.thresholds), "no honest runs or no threshold")
    measures = set(record.thresholds)
    for name, limit in record.thresholds.items():
        _demand(math.isfinite(limit) and limit >= 0, f"threshold {name} is {limit}")
    for group in record.groups:
        _demand(group.runs > 0 and set(group.quantiles) == measures, f"group {group.backend} does not fit")
        if record.lane == "tolerant":
            narrow = [
                m for m in measures if not group.quantiles[m] * record.margin <= record.thresholds[m] * (1 + 1e-9)
            ]
            _demand(not narrow, f"group {group.backend} lies beyond the thresholds")
    for cell in record.cheats:
        _demand(0 <= cell.refused <= cell.detected <= cell.runs, f"cell {cell.name}: counts that cannot be")
        _demand(
            cell.separates == (cell.runs > 0 and cell.score_min >= record.gap), f"cell {cell.name} contradicts itself"
        )
    inseparable = [cell.name for cell in record.cheats if not cell.separates]
    _demand(record.inseparable == inseparable, "the list of inseparable cheats is not that of its cells")
    certified = bool(record.cheats) and not inseparable and record.honest_rejects == 0
    _demand(record.certified == certified, "certified, but its cells do not bear it out")


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise Malformed(f"calibration record: {what}")
