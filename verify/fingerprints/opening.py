"""Spot checks: a worker commits to many rows, a beacon draws some, and only these are opened and recomputed.

Rows are the states of a diffusion run, the hidden states of a text, the tensors of a training state. Each row is a leaf
of an RFC 6962 tree under a salt of its own, so that opening some rows tells nothing about the others. The draw must
follow from something fixed after the commitment. Format: docs/spec/fingerprints.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from verify.faults import Refused
from verify.fingerprints.base import Floats, claimed, computed, relative_l2, rows
from wire import codec, seeded
from wire.codec import Wire
from wire.hashing import digest
from wire.job import Expected
from wire.merkle import inclusion_proof, tree_head, verify_inclusion
from wire.tensor import Tensor

ID = "image.spot/merkle+step-relative-l2/1"

ROWS_MAX = 1 << 16
PROOF_MAX = 17
HASH_BYTES = 32


class Rows(Wire, frozen=True):
    """A commitment to `count` rows; `root` is the 32-byte tree head."""

    root: bytes
    count: int


class Opening(Wire, frozen=True):
    """One opened row: its index, its own 32-byte salt, its values and its audit path."""

    index: int
    salt: bytes
    row: Tensor
    proof: list[bytes]


def _leaf(name: str, index: int, salt: bytes, row: Tensor) -> bytes:
    return digest("opening.leaf", name.encode(), index.to_bytes(8, "big"), salt, codec.encode(row))


def _salt(secret: bytes, name: str, index: int) -> bytes:
    return digest("opening.salt", secret, name.encode(), index.to_bytes(8, "big"))


def _leaves(name: str, values: Sequence[Tensor], secret: bytes) -> list[bytes]:
    assert len(secret) == HASH_BYTES, "a secret has 32 bytes"
    assert 0 < len(values) <= ROWS_MAX, "1 to 65,536 rows"
    return [_leaf(name, index, _salt(secret, name, index), row) for index, row in enumerate(values)]


def sketch(name: str, values: Sequence[Tensor], secret: bytes) -> Rows:
    """The commitment to `values`, in order.

    Args:
        name: what they are, e.g. "latents"; other names give other roots.
        secret: 32 bytes from which the salt of each row is derived; never handed over.
    """
    return Rows(tree_head(_leaves(name, values, secret)), len(values))


def open_rows(name: str, values: Sequence[Tensor], secret: bytes, indices: Sequence[int]) -> list[Opening]:
    """Openings of these rows, in this order."""
    leaves = _leaves(name, values, secret)
    return [Opening(at, _salt(secret, name, at), values[at], inclusion_proof(leaves, at)) for at in indices]


def check_rows(
    commitment: Rows, name: str, openings: Sequence[Opening], indices: Sequence[int], dtype: str, shape: Sequence[int]
) -> dict[int, Floats]:
    """The opened rows as float64, by index.

    Args:
        indices: those that were drawn, each once, in the order in which they must be opened.
        dtype, shape: what each row must be.

    Raises:
        Refused: `count` (absurd number of rows), `index` (others than drawn), `salt`, `proof` (does not lead to the
            root), or `dtype`, `shape`, `empty`, `nonfinite` as in every fingerprint.
    """
    if not 0 < commitment.count <= ROWS_MAX or len(commitment.root) != HASH_BYTES:
        raise Refused("count", f"{commitment.count} rows under a root of {len(commitment.root)} bytes")
    if [opening.index for opening in openings] != list(indices):
        raise Refused("index", f"{len(openings)} openings; drawn: {list(indices)[:8]}")
    return {each.index: _opened(commitment, name, each, dtype, list(shape)) for each in openings}


def _opened(commitment: Rows, name: str, opening: Opening, dtype: str, shape: list[int]) -> Floats:
    if opening.row.shape != shape:
        raise Refused("shape", f"{name} {opening.index}: {opening.row.shape[:9]}, {shape} expected")
    values = claimed({name: opening.row}, name, dtype, len(shape))
    if len(opening.salt) != HASH_BYTES:
        raise Refused("salt", f"{name} {opening.index}: {len(opening.salt)} bytes")
    if len(opening.proof) > PROOF_MAX or any(len(node) != HASH_BYTES for node in opening.proof):
        raise Refused("proof", f"{name} {opening.index}: ill-formed")
    leaf = _leaf(name, opening.index, opening.salt, opening.row)
    if not verify_inclusion(leaf, opening.index, commitment.count, opening.proof, commitment.root):
        raise Refused("proof", f"{name} {opening.index}: does not lead to the root")
    return values


def drawn_steps(beacon: bytes, steps: int, count: int) -> tuple[int, ...]:
    """Which of `steps` diffusion steps are recomputed: `count` (at most all) of them, ascending."""
    return seeded.drawn(beacon, "image.steps", steps, min(count, steps))


def states_of(steps: int, drawn: Sequence[int]) -> list[int]:
    """The states to open: the first (it must be the seed's noise), the last (it must decode), both ends of each
    step."""
    return sorted({0, steps, *drawn, *(step + 1 for step in drawn)})


class Spot:
    """A juror's view of a diffusion run of which some steps were drawn; `shape` is a state's [h, w].

    Raises:
        Refused: the openings are not those of the drawn steps, or not of this commitment.
    """

    def __init__(
        self, commitment: Rows, openings: Sequence[Opening], steps: int, drawn: Sequence[int], shape: tuple[int, int]
    ) -> None:
        if commitment.count != steps + 1:
            raise Refused("length", f"{commitment.count} states, {steps + 1} expected")
        states = check_rows(commitment, "latents", openings, states_of(steps, drawn), "f4", shape)
        self.shape, self.drawn = shape, tuple(drawn)
        self.first, self.last = states[0], states[steps]
        self.before = np.stack([states[step] for step in drawn]) if drawn else np.zeros((0, *shape))
        self.after = np.stack([states[step + 1] for step in drawn]) if drawn else np.zeros((0, *shape))

    @property
    def claims(self) -> NDArray[np.float32]:
        """f4[k, h, w]: the states from which the executor computes the drawn steps."""
        return self.before.astype(np.float32)

    def distance(self, pixels: Tensor, expected: Expected) -> dict[str, float]:
        """`noise`, `step` and `pixels` as in image.trajectory, over what was opened.

        Args:
            pixels: the claimed u1[h, w].
            expected: own `noise` f4[h, w], `steps` f4[k, h, w] from `claims`, `pixels` u1[h, w] from `last`.

        Raises:
            Refused: the picture cannot be compared. ExpectedUnusable: our own result cannot.
        """
        picture = claimed({"pixels": pixels}, "pixels", "u1", 2)
        if picture.shape != self.shape:
            raise Refused("shape", f"pixels of {picture.shape}, {self.shape} expected")
        noise = computed(expected, "noise", "f4", self.shape)
        decoded = computed(expected, "pixels", "u1", self.shape)
        found = {
            "noise": relative_l2(rows((self.first - noise)[None]), rows(noise[None])),
            "step": 0.0,
            "pixels": float(np.abs(picture - decoded).max()),
        }
        if self.drawn:
            steps = computed(expected, "steps", "f4", self.before.shape)
            found["step"] = relative_l2(rows(self.after - steps), rows(steps - self.before))
        return found


def detection(total: int, wrong: int, drawn: int) -> float:
    """Chance that at least one of `wrong` rows is among `drawn` of `total`: 1 - C(total-wrong, drawn) / C(total,
    drawn).

    Exact (hypergeometric, without replacement). A row counts as wrong if its distance is past the threshold.
    """
    assert 0 <= wrong <= total, "a part of the whole"
    assert 0 <= drawn <= total, "a part of the whole"
    missed = math.comb(total - wrong, drawn)
    whole = math.comb(total, drawn)
    return seeded.chance(whole - missed, whole)


def needed(total: int, wrong: int, least: float) -> int:
    """The smallest draw that finds `wrong` rows of `total` with at least this chance (0..1)."""
    assert 0 < wrong <= total, "nothing wrong is never found"
    assert 0.0 <= least <= 1.0, "a chance"
    return next(count for count in range(total + 1) if detection(total, wrong, count) >= least)
