"""The calibration records that this node offers, works and judges by: shipped ones, its own, those of authors it names.

Records that users made lie in `<home>/calibrations/*.calibration`, each the canonical bytes of a signed envelope. They
travel as files: whoever trusts another's measurement copies its file and names its author in `calibration_authors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from node.config import Settings
from verify.calibrated import calibrations
from verify.calibration import Calibration
from verify.signed_calibration import SignedCalibration, load
from wire.errors import Malformed, StorageError
from wire.peer import PeerId, from_text, to_text

FOLDER = "calibrations"
SUFFIX = ".calibration"


def files(home: Path) -> list[Path]:
    """The signed records in a node's folder, by name."""
    return sorted((home / FOLDER).glob("*" + SUFFIX))


def read_signed(path: Path) -> SignedCalibration:
    """One signed file.

    Raises:
        StorageError: it cannot be read. Malformed: it is damaged, badly signed or contradicts itself.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise StorageError(f"cannot read {path}: {exc.strerror}") from exc
    return load(raw)


def usable(settings: Settings, me: PeerId, log: structlog.typing.FilteringBoundLogger) -> Mapping[bytes, Calibration]:
    """Every record that counts here, by hash, in the order in which a requester prefers them.

    First those that ship, because every node has them; then our own; then those of the authors that the settings name,
    in the order given there; within one author by file name. A file that cannot be used is left out and logged.
    """
    authors = [me, *map(from_text, settings.calibration_authors)]
    found: dict[PeerId, list[Calibration]] = {author: [] for author in authors}
    for path in files(settings.home):
        try:
            signed = read_signed(path)
        except (StorageError, Malformed) as exc:
            log.warning("calibration_skipped", file=path.name, reason=str(exc))
            continue
        if signed.author not in found:
            reason = f"its author {to_text(signed.author)} is not among calibration_authors"
            log.warning("calibration_skipped", file=path.name, reason=reason)
            continue
        found[signed.author].append(signed.record)
    records = dict(calibrations())
    for author in authors:
        for record in found[author]:
            records.setdefault(record.hash, record)
    return records
