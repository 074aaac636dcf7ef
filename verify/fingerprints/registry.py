"""Which fingerprint compares which kind of job in which lane."""

from __future__ import annotations

from verify.fingerprints import embed_cosine, exact_digest, image_trajectory, text_prefill
from verify.fingerprints.base import Fingerprint
from wire.errors import LocalError
from wire.job import Kind, Lane

_TEXT, _IMAGE, _EMBED = text_prefill, image_trajectory, embed_cosine

_ALL = (
    Fingerprint(_TEXT.ID, "text.generate", "tolerant", _TEXT.RESOLUTION, _TEXT.admit, _TEXT.compare),
    Fingerprint(_IMAGE.ID, "image.generate", "tolerant", _IMAGE.RESOLUTION, _IMAGE.admit, _IMAGE.compare),
    Fingerprint(_EMBED.ID, "embed.text", "tolerant", _EMBED.RESOLUTION, _EMBED.admit, _EMBED.compare),
    Fingerprint(exact_digest.ID, "text.generate", "exact", exact_digest.RESOLUTION, _TEXT.admit, exact_digest.compare),
    Fingerprint(
        exact_digest.ID, "image.generate", "exact", exact_digest.RESOLUTION, _IMAGE.admit, exact_digest.compare
    ),
    Fingerprint(exact_digest.ID, "embed.text", "exact", exact_digest.RESOLUTION, _EMBED.admit, exact_digest.compare),
)

FINGERPRINTS: dict[tuple[Kind, Lane], Fingerprint] = {(each.kind, each.lane): each for each in _ALL}


def fingerprint_for(kind: Kind, lane: Lane) -> Fingerprint:
    """The current fingerprint of a kind and lane.

    Raises:
        LocalError: there is none.
    """
    try:
        return FINGERPRINTS[kind, lane]
    except KeyError:
        raise LocalError(f"no fingerprint for {kind} in lane {lane}") from None
