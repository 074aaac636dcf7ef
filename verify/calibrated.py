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
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".json"))
    return [from_json((folder / name).read_text("utf-8")) for name in names]


def calibration_for(
    kind: Kind, model: str, lane: Lane, numeric: str, *, records: Mapping[bytes, Calibration] | None = None
) -> Calibration:
    """The record that a requester names in its spec: the first certified one of this subject.

    Args:
        kind, model, lane, numeric: the subject.
        records: by hash, in order of preference; default those that ship.

    Raises:
        LocalError: none, or only such as do not separate honest work from named cheats.
    """
    subject = (kind, model, lane, numeric)
    known = calibrations() if records is None else records
    fitting = [each for each in known.values() if (each.kind, each.model, each.lane, each.numeric) == subject]
    for record in fitting:
        if record.certified:
            return record
    if fitting:
        raise LocalError(f"lane {lane} cannot tell {', '.join(fitting[0].inseparable)} from honest {kind} work")
    raise LocalError(f"no calibration of {model} in lane {lane}, numeric class {numeric}")
