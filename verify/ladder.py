"""The jobs that one answer may be judged under: a small jury, larger ones if it does not agree, all fixed at once.

A ladder is one `JobSpec` per level, equal but for jury size, spots, beacon hash and nonce. The first one's nonce
commits to the beacon hashes of all levels above, theirs to the first one's id, so whoever accepts the first job has
accepted the ladder, and the worker signs the same root for every level before it learns any secret. Hence every draw
at every level is a function of values fixed before anyone knew any jury: no vote, silence or outcome below enters a
draw above. Were the outcome an input, each of m dissenters could choose between two draws, and the requester
among 2**m (`verify.odds.best_of`). Were the next jury drawn further down the first order, the whole ladder would be
known, and could be bribed, from the first secret on; here a level's jury is unknown to all but the requester
until its own secret is out. Format: docs/spec/escalation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import msgspec

from verify.case import Case, open_answer, open_commitment, open_draw, open_spec
from verify.faults import demand
from verify.jury import beacon_hash
from verify.messages import JuryAsk
from wire import codec
from wire.hashing import digest
from wire.job import Commitment, JobSpec

LEVELS_MAX = 4
NONCE_BYTES = 16

SPOTS_SECOND = 9
"""Drawn steps of an image that the second jury looks at."""


@dataclass(frozen=True)
class Level:
    """A jury of `size` (odd), of which `needed` equal votes, more than half, end the matter.

    `spots` is how many drawn steps it recomputes (0 = all); None leaves that to the job.
    """

    size: int
    needed: int
    spots: int | None = None

    def of(self, spec: JobSpec) -> JobSpec:
        """The job with this level's jury size and spots."""
        spots = spec.spots if self.spots is None else self.spots
        return msgspec.structs.replace(spec, jury_size=self.size, spots=spots)

    def __post_init__(self) -> None:
        assert self.size % 2 == 1, "an even jury can tie"
        assert self.size < 2 * self.needed <= 2 * self.size, "more than half, at most all"


LEVELS = (Level(3, 3), Level(7, 6), Level(21, 14))
"""Where a dispute over single steps can follow: a level decides only if it is nearly of one mind."""

LEVELS_STRICT = (Level(5, 5), Level(7, 6), Level(21, 14))
"""What the first jury agrees on nobody looks at again, so its size bounds what colluders gain: here f**5, not f**3."""

LEVELS_WITHOUT_DISPUTE = (Level(3, 3), Level(7, 6), Level(21, 11))
"""Where none can follow, as with embeddings: the last jury decides by majority."""

LEVELS_STRICT_WITHOUT_DISPUTE = (Level(5, 5), Level(7, 6), Level(21, 11))
"""Both."""


def levels_for(jurors: int, *, disputes: bool) -> tuple[Level, ...]:
    """The levels that this many possible jurors can fill, each with jurors who have not sat before.

    `LEVELS_STRICT`, unless `LEVELS`, which begin with fewer, reach higher; empty for fewer than three. Without disputes
    the last level has nothing above it, and decides by majority.
    """
    reached = [_filled(levels, jurors) for levels in (LEVELS_STRICT, LEVELS)]
    levels = max(reached, key=len)
    if disputes or not levels:
        return levels
    return (*levels[:-1], Level(levels[-1].size, levels[-1].size // 2 + 1))


def with_spots(levels: Sequence[Level], spots: int, parts: int) -> tuple[Level, ...]:
    """Levels that look at ever more of a run's `parts` (`wire.job.parts`): at `spots` drawn ones, then nine, then all.

    A jury that called a larger one has shown that there is something to look for; 0 spots are all steps at every level.
    """
    drawn = [spots, min(parts, max(spots, SPOTS_SECOND)) if spots else 0]
    return tuple(replace(level, spots=drawn[index] if index < 2 else 0) for index, level in enumerate(levels))


def _filled(levels: Sequence[Level], jurors: int) -> tuple[Level, ...]:
    needed = accumulate(level.size for level in levels)
    return tuple(level for level, total in zip(levels, needed, strict=True) if total <= jurors)


def level_secret(seed: bytes, level: int) -> bytes:
    """The beacon secret of a level, from the requester's 32 secret bytes; one says nothing about another."""
    return digest("escalation.secret", seed, bytes([level]))


def build_ladder(spec: JobSpec, levels: Sequence[Level], secrets: Sequence[bytes]) -> list[JobSpec]:
    """The specs of all levels.

    Args:
        spec: the job; its nonce is the requester's randomness, its jury size, spots and beacon hash are replaced.
        levels: smallest first. secrets: the beacon secret of each level, 32 bytes.
    """
    assert 0 < len(levels) == len(secrets) <= LEVELS_MAX, "a secret for every level"
    hashes = [beacon_hash(secret) for secret in secrets]
    first = msgspec.structs.replace(
        levels[0].of(spec), beacon_hash=hashes[0], nonce=first_nonce(spec.nonce, hashes[1:])
    )
    above = [
        msgspec.structs.replace(level.of(first), beacon_hash=hashed, nonce=level_nonce(first.id, index))
        for index, (level, hashed) in enumerate(zip(levels[1:], hashes[1:], strict=True), 1)
    ]
    return [first, *above]


def first_nonce(nonce: bytes, hashes_above: Sequence[bytes]) -> bytes:
    """The 16-byte nonce of the first level, from the requester's 16 random bytes and the beacon hashes above."""
    return digest("escalation.nonce", nonce, codec.encode(list(hashes_above)))[:NONCE_BYTES]


def level_nonce(first: bytes, level: int) -> bytes:
    """The 16-byte nonce of a level above the first, from the first one's job id."""
    return digest("escalation.level", first, bytes([level]))[:NONCE_BYTES]


def check_ladder(specs: Sequence[JobSpec], levels: Sequence[Level], nonce: bytes) -> None:
    """What a worker checks before it accepts, and any reader after.

    Args:
        specs: one per level, as signed. levels: those agreed. nonce: the requester's random bytes, 16.

    Raises:
        Fault: ladder.levels, ladder.nonce, ladder.spec.
    """
    demand(0 < len(specs) <= LEVELS_MAX, "ladder.levels", f"{len(specs)} levels")
    sizes = [spec.jury_size for spec in specs]
    demand(sizes == [level.size for level in levels], "ladder.levels", f"juries of {sizes}")
    first = specs[0]
    demand(len(nonce) == NONCE_BYTES, "ladder.nonce", f"{len(nonce)} bytes")
    expected = first_nonce(nonce, [spec.beacon_hash for spec in specs[1:]])
    demand(first.nonce == expected, "ladder.nonce", "the first level does not commit to those above")
    for index, spec in enumerate(specs[1:], 1):
        like = msgspec.structs.replace(
            levels[index].of(first), beacon_hash=spec.beacon_hash, nonce=level_nonce(first.id, index)
        )
        demand(spec == like, "ladder.spec", f"level {index} differs from the first in more than its jury")


def check_commitments(commitments: Sequence[Commitment], specs: Sequence[JobSpec]) -> None:
    """What a requester checks before it reveals a secret.

    Raises:
        Fault: ladder.root unless there is a commitment to the same root for each level's job.
    """
    demand(len(commitments) == len(specs), "ladder.root", f"{len(commitments)} commitments for {len(specs)} levels")
    for commitment, spec in zip(commitments, specs, strict=True):
        same = (commitment.root, commitment.leaves) == (commitments[0].root, commitments[0].leaves)
        demand(same and commitment.job == spec.id, "ladder.root", "another root or job than the first level's")


def open_ladder(asks: Sequence[JuryAsk], levels: Sequence[Level], nonce: bytes) -> list[Case]:
    """The case of every level, all checked.

    Raises:
        Fault: as `verify.case` and `check_ladder`; ladder.root, ladder.worker, ladder.answer.
    """
    specs = [open_spec(ask.spec) for ask in asks]
    check_ladder(specs, levels, nonce)
    commitments = [open_commitment(ask.commitment, spec) for ask, spec in zip(asks, specs, strict=True)]
    check_commitments(commitments, specs)
    worker = asks[0].commitment.author
    cases = []
    for ask, spec in zip(asks, specs, strict=True):
        demand(ask.commitment.author == worker, "ladder.worker", "another worker than the first level's")
        same = (ask.output, ask.trace, ask.salt, ask.pool) == tuple(
            getattr(asks[0], name) for name in ("output", "trace", "salt", "pool")
        )
        demand(same, "ladder.answer", "another answer than the first level's")
        cases.append(open_draw(spec, ask.commitment, ask.secret, ask.pool))
    open_answer(cases[0], asks[0].output, asks[0].trace, asks[0].salt)
    return cases
