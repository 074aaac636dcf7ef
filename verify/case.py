"""The facts of a case: what requester, juror and any later reader must find in order before a vote means anything.

Each function checks one part, in the order of docs/spec/receipt.md, and fails as `Fault` with that document's name
for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from verify.commitment import check_opening
from verify.faults import Fault, demand, unseal_as
from verify.fingerprints.opening import drawn_steps
from verify.fingerprints.text_prefill import drawn_windows
from verify.jury import beacon, check_pool, check_secret, check_size, draw_order, jury_hash
from wire import bls, codec
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.hashing import digest
from wire.identity import check_key_record
from wire.job import (
    Commitment,
    JobSpec,
    JurorCommit,
    JurorReveal,
    KeyRecord,
    Output,
    PoolMember,
    Statement,
    Trace,
    VerdictWord,
    check_spots,
    parts,
)
from wire.peer import PeerId

VERSION = 1
VOTES: tuple[VerdictWord, ...] = ("accept", "reject")
DISTANCES_MAX = 16
DISTANCE_NAME_BYTES_MAX = 64


@dataclass(frozen=True)
class Case:
    """One committed answer to one job, the order in which its jurors are drawn, and which steps they recompute.

    `drawn` is the same for every juror, else a lone finder would be outvoted; empty where all steps are looked at.
    """

    spec: JobSpec
    job: bytes
    root: bytes
    worker: PeerId
    commitment: Commitment
    order: tuple[PeerId, ...]
    drawn: tuple[int, ...] = ()

    def statement(self, verdict: VerdictWord, jury: Sequence[PeerId]) -> Statement:
        """What the jurors of `jury` (in draw order) sign if they vote `verdict`."""
        return Statement(self.job, self.root, verdict, self.spec.lane, jury_hash(jury))


def open_spec(envelope: Envelope) -> JobSpec:
    """Raises: Fault spec, spec.requester, spec.version, spec.jury_size, spec.spots."""
    spec = unseal_as("spec", envelope, "job", JobSpec)
    demand(envelope.author == spec.requester, "spec.requester", "signed by another than its requester")
    demand(spec.version == VERSION, "spec.version", f"version {spec.version}")
    try:
        check_size(spec.jury_size)
    except Malformed as exc:
        raise Fault("spec.jury_size", str(exc)) from exc
    try:
        check_spots(spec)
    except Malformed as exc:
        raise Fault("spec.spots", str(exc)) from exc
    return spec


def open_commitment(envelope: Envelope, spec: JobSpec) -> Commitment:
    """Raises: Fault commitment, commitment.job, commitment.worker."""
    commitment = unseal_as("commitment", envelope, "commitment", Commitment)
    demand(commitment.job == spec.id, "commitment.job", "for another job")
    demand(envelope.author != spec.requester, "commitment.worker", "the requester's own")
    return commitment


def open_draw(spec: JobSpec, commitment: Envelope, secret: bytes, pool: Sequence[PoolMember]) -> Case:
    """The case, from a spec and a commitment that have been checked.

    Raises:
        Fault: beacon, pool.
    """
    try:
        check_secret(spec, secret)
    except Malformed as exc:
        raise Fault("beacon", str(exc)) from exc
    try:
        check_pool(spec, pool)
    except Malformed as exc:
        raise Fault("pool", str(exc)) from exc
    body = codec.decode(Commitment, commitment.body)
    exclude = frozenset((spec.requester, commitment.author))
    lot = beacon(body.job, body.root, secret)
    order = draw_order(lot, pool, exclude)
    return Case(spec, body.job, body.root, commitment.author, body, tuple(order), _drawn(spec, lot))


def _drawn(spec: JobSpec, lot: bytes) -> tuple[int, ...]:
    if spec.spots == 0:
        return ()
    draw = drawn_windows if spec.kind == "text.generate" else drawn_steps
    return draw(lot, parts(spec.lane, spec.input()), spec.spots)


def open_answer(case: Case, output: Output, trace: Trace, salt: bytes) -> None:
    """Raises: Fault opening unless exactly this output and trace were committed."""
    try:
        check_opening(case.commitment, output, trace, salt)
    except Malformed as exc:
        raise Fault("opening", str(exc)) from exc


def seal_of(author: PeerId, reveal: JurorReveal) -> bytes:
    """The seal that commits `author`, and nobody else, to this reveal; its BLS signature is left out."""
    unsigned = JurorReveal(
        reveal.job, reveal.root, reveal.verdict, reveal.distances, reveal.sketch, reveal.salt, signature=b""
    )
    return digest("juror.seal", author, codec.encode(unsigned))


def open_commit(case: Case, envelope: Envelope, *, author: PeerId | None = None) -> JurorCommit:
    """Raises: Fault commit, commit.job."""
    commit = unseal_as("commit", envelope, "juror.commit", JurorCommit, author=author)
    demand((commit.job, commit.root) == (case.job, case.root), "commit.job", "for another job or root")
    return commit


def open_commits(case: Case, envelopes: Sequence[Envelope]) -> dict[PeerId, JurorCommit]:
    """Sealed votes by juror, in jury order.

    Raises:
        Fault: commit, commit.job, jury.
    """
    demand(len(envelopes) <= case.spec.jury_size, "commit", f"{len(envelopes)} for a jury of {case.spec.jury_size}")
    opened = [open_commit(case, envelope) for envelope in envelopes]
    jury = [envelope.author for envelope in envelopes]
    rank = {peer: index for index, peer in enumerate(case.order)}
    demand(all(peer in rank for peer in jury), "jury", "a juror who could not be drawn")
    ascending = all(rank[a] < rank[b] for a, b in pairwise(jury))
    demand(ascending, "jury", "jurors out of draw order")
    return dict(zip(jury, opened, strict=True))


def open_key(envelope: Envelope, juror: PeerId) -> bytes:
    """The juror's 48-byte BLS key.

    Raises:
        Fault: key, key.possession.
    """
    record = unseal_as("key", envelope, "keys", KeyRecord, author=juror)
    try:
        check_key_record(envelope)  # cached: a juror's record is checked once, not once per round
    except Malformed as exc:
        raise Fault("key.possession", str(exc)) from exc
    return record.bls


def open_reveal(case: Case, envelope: Envelope, *, author: PeerId | None = None) -> JurorReveal:
    """A reveal whose form is right; its seal and vote are checked by `check_seal` and `check_vote`.

    Raises:
        Fault: reveal, reveal.job, reveal.distances.
    """
    reveal = unseal_as("reveal", envelope, "juror.reveal", JurorReveal, author=author)
    check_reveal(case, reveal)
    return reveal


def check_reveal(case: Case, reveal: JurorReveal) -> None:
    """Raises: Fault reveal.job, reveal.distances."""
    demand((reveal.job, reveal.root) == (case.job, case.root), "reveal.job", "for another job or root")
    check_distances(reveal.distances)


def check_distances(distances: dict[str, float]) -> None:
    """Raises: Fault reveal.distances."""
    demand(len(distances) <= DISTANCES_MAX, "reveal.distances", f"{len(distances)} distances")
    for name, value in distances.items():
        demand(len(name.encode()) <= DISTANCE_NAME_BYTES_MAX, "reveal.distances", f"name {name[:80]!r}")
        demand(math.isfinite(value) and value >= 0, "reveal.distances", f"{name} is {value}")


def check_seal(author: PeerId, commit: JurorCommit, reveal: JurorReveal) -> None:
    """Raises: Fault reveal.seal."""
    demand(seal_of(author, reveal) == commit.seal, "reveal.seal", "not what was committed")


def check_vote(case: Case, jury: Sequence[PeerId], reveal: JurorReveal, key: bytes) -> None:
    """Check the BLS signature of a vote, or its absence where there is no vote.

    Raises:
        Fault: reveal.vote.
    """
    check_vote_form(reveal)
    if reveal.verdict in VOTES:
        message = case.statement(reveal.verdict, jury).message
        demand(bls.verify(key, message, reveal.signature), "reveal.vote", "the vote's signature does not verify")


def check_vote_form(reveal: JurorReveal) -> None:
    """Raises: Fault reveal.vote if a vote has no signature's length, or no vote has a signature."""
    length = bls.SIGNATURE_BYTES if reveal.verdict in VOTES else 0
    demand(len(reveal.signature) == length, "reveal.vote", f"a signature of {len(reveal.signature)} bytes")
