"""Which fingerprint compares which kind of job in which lane."""

from __future__ import annotations

from verify.fingerprints import (
    embed_cosine,
    embed_planes,
    exact_digest,
    image_trajectory,
    opening,
    tensor_freivalds,
    tensor_l2,
    text_prefill,
    train_step,
)
from verify.fingerprints.base import Fingerprint
from wire.errors import LocalError
from wire.job import Kind, Lane

_TEXT, _IMAGE, _EMBED = text_prefill, image_trajectory, embed_cosine

_ALL = (
    Fingerprint(_TEXT.ID, "text.generate", "tolerant", _TEXT.RESOLUTION, _TEXT.admit, _TEXT.compare, _TEXT.compare),
    Fingerprint(
        _IMAGE.ID,
        "image.generate",
        "tolerant",
        _IMAGE.RESOLUTION,
        _IMAGE.admit,
        _IMAGE.compare,
        _IMAGE.compare_steps,
    ),
    Fingerprint(_EMBED.ID, "embed.text", "tolerant", _EMBED.RESOLUTION, _EMBED.admit, _EMBED.compare),
    Fingerprint(
        exact_digest.ID,
        "text.generate",
        "exact",
        exact_digest.RESOLUTION,
        _TEXT.admit,
        _TEXT.compare_exact,
        _TEXT.compare_exact,
    ),
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


PARTS: dict[str, str] = {
    opening.ID: "image: drawn steps of a committed run",
    tensor_l2.ID: "tensor: relative L2 of rows",
    tensor_freivalds.ID_FLOAT: "tensor: a float32 product",
    tensor_freivalds.ID_EXACT: "tensor: an int8 product",
    train_step.ID: "training: one replayed step",
    embed_planes.ID: "embedding: 256 bits for an index",
}
"""Fingerprints that judge no kind of job by themselves yet, by id (docs/spec/fingerprints.md)."""
