"""The calibration records that ship with this package (verify/calibrations/*.json), by hash and by subject.

The only file of `verify` that reads anything: package data, once. `benchmarks/calibrate.py` writes it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from verify.calibration import Calibration, from_json
from wire.errors import LocalError
from wire.job import Kind, Lane


@functools.cache
def calibrations() -> Mapping[bytes, Calibration]:
    """All records by hash: what `Juror` takes.

    Raises:
        Malformed: a file is damaged.
    """
    return {record.hash: record for record in _read(files("verify") / "calibrations")}


@functools.cache
def refused_calibrations() -> tuple[Calibration, ...]:
    """Records of weaker ways to compare, measured and never certified: they say what cannot be told apart.

    Raises:
        Malformed: a file is damaged.
    """
    return tuple(_read(files("verify") / "calibrations" / "refused"))


def _read(folder: Traversable) -> list[Calibration]:
    texts = [each.read_text("utf-8") for each in folder.iterdir() if each.name.endswith(".json")]
    return list(map(from_json, texts))


def calibration_for(kind: Kind, model: str, lane: Lane, numeric: str) -> Calibration:
    """The record that a requester names in its spec.

    Raises:
        LocalError: none, or only one that does not separate honest work from named cheats.
    """
    subject = (kind, model, lane, numeric)
    for record in calibrations().values():
        if (record.kind, record.model, record.lane, record.numeric) == subject:
            if not record.certified:
                raise LocalError(f"lane {lane} cannot tell {', '.join(record.inseparable)} from honest {kind} work")
            return record
    raise LocalError(f"no calibration of {model} in lane {lane}, numeric class {numeric}")
