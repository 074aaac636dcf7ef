"""A signed record names its author, keeps its hash, and is refused if it was touched or contradicts itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.verify.world import person
from verify.calibrated import calibrations, refused_calibrations
from verify.calibration import Calibration
from verify.signed_calibration import check, load, sign
from wire import codec
from wire.envelope import seal
from wire.errors import Malformed

RECORD = next(record for record in calibrations().values() if record.lane == "tolerant")
SIGNER = person("measurer")


def changed(record: Calibration, **changes: Any) -> Calibration:
    return msgspec.structs.replace(record, **changes)


def test_a_signed_record_comes_back_with_its_author_and_its_hash() -> None:
    signed = load(sign(SIGNER, RECORD).raw, author=SIGNER.peer)
    assert (signed.record, signed.author, signed.record.hash) == (RECORD, SIGNER.peer, RECORD.hash)


def test_another_author_is_refused() -> None:
    with pytest.raises(Malformed, match="another author"):
        load(sign(SIGNER, RECORD).raw, author=person("other").peer)


def test_a_signature_of_another_domain_is_refused() -> None:
    with pytest.raises(Malformed, match="domain"):
        load(codec.encode(seal(SIGNER, "job", RECORD)))


def test_every_flipped_byte_is_refused() -> None:
    raw = sign(SIGNER, RECORD).raw
    for at in range(0, len(raw), 97):
        with pytest.raises(Malformed):
            load(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    with pytest.raises(Malformed):
        load(raw[:-1])


def test_all_records_that_ship_are_consistent() -> None:
    for record in (*calibrations().values(), *refused_calibrations()):
        check(record)


CELL, GROUP = RECORD.cheats[0], RECORD.groups[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version"),
        ({"alpha": 0.0}, "out of range"),
        ({"margin": 0.5}, "out of range"),
        ({"groups": []}, "no honest runs"),
        ({"thresholds": {}}, "no honest runs"),
        ({"thresholds": dict.fromkeys(RECORD.thresholds, float("inf"))}, "threshold"),
        ({"thresholds": dict.fromkeys(RECORD.thresholds, -1.0)}, "threshold"),
        ({"groups": [changed(GROUP, runs=0)]}, "does not fit"),  # type: ignore[arg-type]  # any struct
        ({"groups": [changed(GROUP, quantiles=dict.fromkeys(RECORD.thresholds, 1.0))]}, "beyond"),  # type: ignore[arg-type]  # any struct
        ({"cheats": [changed(CELL, detected=CELL.runs + 1)]}, "counts"),  # type: ignore[arg-type]  # any struct
        ({"cheats": [changed(CELL, score_min=0.5)]}, "contradicts"),  # type: ignore[arg-type]  # any struct
        ({"inseparable": ["x"]}, "inseparable"),
        ({"cheats": []}, "certified"),
        ({"honest_rejects": 1}, "certified"),
    ],
)
def test_a_record_that_contradicts_itself_is_not_signed_and_not_believed(changes: dict[str, Any], said: str) -> None:
    bad = changed(RECORD, **changes)
    with pytest.raises(Malformed, match=said):
        sign(SIGNER, bad)
    with pytest.raises(Malformed, match=said):
        load(codec.encode(seal(SIGNER, "calibration", bad)))
