"""The calibrations that this node trusts: those committed in `verify/calibration/`, by subject and by hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from verify.calibration import Calibration
from wire.errors import LocalError


@dataclass(frozen=True)
class Calibrations:
    """`by_hash` is what jurors look up; `of` what the requester names in a spec."""

    by_hash: Mapping[bytes, Calibration]

    @classmethod
    def load(cls) -> Calibrations:
        """Those that ship with the node.

        Raises:
            StorageError: a record cannot be read.
        """
        from verify.records import load_all

        return cls({record.hash: record for record in load_all()})

    def of(self, kind: str, model: str, lane: str) -> Calibration:
        """The certified calibration of a model in a lane.

        Raises:
            LocalError: there is none, so answers could not be judged.
        """
        for record in self.by_hash.values():
            if (record.kind, record.model, record.lane) == (kind, model, lane) and record.certified:
                return record
        raise LocalError(f"no certified calibration for {kind} in lane {lane} with this model")
