"""Canaries: asks whose right verdict is known, so that jurors who do not look give themselves away.

A juror that says `accept` without running anything is right nearly always, and saves the work (the verifier's dilemma:
Luu et al., "Demystifying incentives in the consensus computer", CCS 2015). So a share of the asks that a requester
sends are canaries: as many with an answer that must be rejected as with one that must be accepted. Whoever does not
look fails half of them whatever it says, and `verify.eprocess` throws it out.

A canary is a real ask in every byte that a juror can see: a signed spec, a signed commitment (of a worker that lends
its name, or an identity of the requester's), opened answer and trace of the right names, types, shapes and plausible
values. What tells it apart is hidden in the spec's nonce, which is the hash of a `CanaryMark` and looks as random as
any other. Shown later, the mark proves that verdict and answer were fixed before the job was signed, so nobody can call
a real job a canary afterwards. Format: docs/spec/sampling.md, "Canaries".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from verify.commitment import commit
from verify.eprocess import audits_to_reject
from verify.faults import demand
from verify.messages import JuryAsk
from verify.receipt import Summary, check
from wire import codec
from wire.codec import Wire
from wire.envelope import Signer, seal
from wire.errors import LocalError, Malformed
from wire.hashing import digest
from wire.job import JobSpec, Kind, Output, PoolMember, Receipt, Trace
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy
from wire.text_sketch import DIMENSIONS, ROW_BYTES, rows_per_token

AskWord = Literal["real", "bad", "good"]
SHARE_ONE = 1 << 32
ASKS_MAX = 1 << 20
NUDGE = (2.0**-10, 2.0**-4)
"""Smallest and largest relative change of one vector or latent: what rounding weights to bfloat16 or int8 does."""

SKETCH_NUDGE = 6
"""Most units by which a value of a sketch is moved: some hundredths of the state's length."""

KEY_BYTES = 32


class CanaryMark(Wire, frozen=True):
    """What makes a job a canary; its hash is the job's nonce.

    Attributes:
        expected: what a juror that looks says. root: of the commitment that jurors are shown. key: 32 secret bytes.
    """

    expected: Literal["accept", "reject"]
    root: bytes
    key: bytes

    @property
    def nonce(self) -> bytes:
        """The 16 bytes for `JobSpec.nonce`."""
        return digest("canary.mark", codec.encode(self))[:16]


@dataclass(frozen=True)
class Claim:
    """An answer as a worker hands it over."""

    output: Output
    trace: Trace


@dataclass(frozen=True)
class Cast:
    """Who and what stands behind an ask: signing requester and worker, pool, and the secrets that open it.

    `salt` and `secret` have 32 bytes; `secret` is that of the spec's beacon hash. A real ask has the same parts.
    """

    requester: Signer
    worker: Signer
    pool: list[PoolMember]
    secret: bytes
    salt: bytes


def mark_for(claim: Claim, expected: Literal["accept", "reject"], salt: bytes, key: bytes) -> CanaryMark:
    """The mark of an answer under its 32-byte salt; a root does not depend on the job, so a mark can decide its nonce.

    Raises:
        LocalError: a key of another length than 32.
    """
    if len(key) != KEY_BYTES:
        raise LocalError(f"a key of {len(key)} bytes, {KEY_BYTES} expected")
    return CanaryMark(expected, commit(b"", claim.output, claim.trace, salt).root, key)


def marks_hash(marks: Sequence[CanaryMark]) -> bytes:
    """The 32 bytes that the ledger keeps of a canary's marks."""
    return digest("canary.marks", codec.encode(list(marks)))


def build(
    spec: JobSpec, claim: Claim, expected: Literal["accept", "reject"], cast: Cast, key: bytes
) -> tuple[JuryAsk, CanaryMark]:
    """A canary of a job.

    Args:
        spec: a job as the requester would ask it; its nonce is replaced. No juror may have seen its answer: jobs of a
            batch that nobody picked are a good source.
        claim: for "accept" an answer that the requester knows to be right, for "reject" one from `nudged` or `swapped`.
        expected: what must be said of it.
        cast: see `Cast`.
        key: 32 bytes from a secret source, new for each canary.

    Raises:
        LocalError: a key of another length.
    """
    mark = mark_for(claim, expected, cast.salt, key)
    marked = msgspec.structs.replace(spec, nonce=mark.nonce)
    ask = JuryAsk(
        spec=seal(cast.requester, "job", marked),
        commitment=seal(cast.worker, "commitment", commit(marked.id, claim.output, claim.trace, cast.salt)),
        secret=cast.secret,
        salt=cast.salt,
        pool=cast.pool,
        output=claim.output,
        trace=claim.trace,
    )
    return ask, mark


def nudged(kind: Kind, claim: Claim, draw: bytes) -> Claim:
    """A right answer with one vector, one latent or the sketch of one token off by a little.

    Names, types, shapes and sizes stay, and so do the length of a vector, the exponents of a sketch and the noise, last
    state and pixels of a picture: nothing short of running the model shows it.

    Args:
        kind: of the job.
        claim: a right answer.
        draw: secret bytes that decide which row, where to and how far.

    Raises:
        LocalError: nothing to change: no row, or a picture of one step.
    """
    chance = np.random.Generator(np.random.Philox(int.from_bytes(digest("canary.nudge", draw)[:16], "big")))
    if kind == "text.generate":
        return Claim(claim.output, Trace({**claim.trace.tensors, "sketch": _nudged_sketch(claim, chance)}))
    name = {"embed.text": "vectors", "image.generate": "latents"}[kind]
    part = claim.output if kind == "embed.text" else claim.trace
    rows = _rows(part.tensors.get(name), name)
    first, last = (1, len(rows) - 1) if kind == "image.generate" else (0, len(rows))
    if first >= last:
        raise LocalError(f"no row of {name} can be changed")
    at = int(chance.integers(first, last))
    rows[at] = _moved(rows[at], chance, keep_norm=kind == "embed.text")
    changed = {**part.tensors, name: from_numpy(rows)}
    if kind == "embed.text":
        return Claim(Output(changed), claim.trace)
    return Claim(claim.output, Trace(changed))


def _nudged_sketch(claim: Claim, chance: np.random.Generator) -> Tensor:
    """One token's values off by 1 to `SKETCH_NUDGE` units each, but for those that the exponent follows from."""
    tokens, sketch = claim.output.tensors.get("tokens"), claim.trace.tensors.get("sketch")
    if tokens is None or sketch is None or len(tokens.shape) != 1 or len(sketch.shape) != 2:
        raise LocalError("no tokens i4[n] and sketch u1[rows, 8] to change")
    each = rows_per_token(tokens.shape[0]) if tokens.shape[0] else 0
    if not each or sketch.dtype != "u1" or sketch.shape != [tokens.shape[0] * each, ROW_BYTES]:
        raise LocalError("no sketch u1[rows, 8] of these tokens to change")
    try:
        rows = np.array(sketch.numpy()).view(np.int8).astype(np.int64)
    except Malformed as exc:
        raise LocalError(f"sketch: {exc}") from exc
    at = int(chance.integers(tokens.shape[0])) * each
    old = rows[at : at + each, :DIMENSIONS]
    size = chance.integers(1, SKETCH_NUDGE + 1, old.shape)
    inward = np.where(old > 0, -size, size)  # towards zero, so that no value leaves its range
    largest = np.abs(old) == np.abs(old).max(axis=1, keepdims=True)
    rows[at : at + each, :DIMENSIONS] = np.where(largest, old, old + inward)
    return from_numpy(rows.astype(np.int8).view(np.uint8))


def _rows(tensor: Tensor | None, name: str) -> NDArray[np.float32]:
    if tensor is None or tensor.dtype != "f4" or len(tensor.shape) < 2:
        raise LocalError(f"no tensor {name} f4[n, ...] to change")
    try:
        return np.array(tensor.numpy(), dtype=np.float32)
    except Malformed as exc:
        raise LocalError(f"{name}: {exc}") from exc


def _moved(row: NDArray[np.float32], chance: np.random.Generator, *, keep_norm: bool) -> NDArray[np.float32]:
    """A row at a relative distance drawn log-uniformly from `NUDGE`, in a direction across its own."""
    wide = row.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    across = chance.normal(size=wide.shape)
    if norm > 0:
        across -= wide * float((across * wide).sum()) / norm**2
    across *= math.exp(chance.uniform(math.log(NUDGE[0]), math.log(NUDGE[1]))) / float(np.linalg.norm(across))
    moved = wide + across * (norm or 1.0)
    if keep_norm and norm > 0:
        moved *= norm / float(np.linalg.norm(moved))
    changed: NDArray[np.float32] = moved.astype(np.float32)
    return changed


def swapped(claim: Claim, donor: Claim) -> Claim:
    """The honest answer to another job in place of this one's: whole, consistent, and to another question.

    Args:
        claim: a right answer. donor: that of a job of the same kind and size, e.g. with another seed or other weights.

    Raises:
        LocalError: the donor's tensors have other names, types or (but for how many tokens a text has) shapes, or the
            same values.
    """
    pairs = ((claim.output.tensors, donor.output.tensors), (claim.trace.tensors, donor.trace.tensors))
    for mine, theirs in pairs:
        forms = [{name: (t.dtype, _form(name, t)) for name, t in side.items()} for side in (mine, theirs)]
        if forms[0] != forms[1]:
            raise LocalError("the donor's answer has another form")
    if claim == donor:
        raise LocalError("the donor's answer is the same")
    return donor


def _form(name: str, tensor: Tensor) -> list[int]:
    return tensor.shape[1:] if name in ("tokens", "sketch") else tensor.shape


def check_mark(spec: JobSpec, root: bytes, mark: CanaryMark) -> None:
    """Check that this job, answered under this root, was a canary from the start.

    Raises:
        Fault: canary.key, canary.root, canary.nonce.
    """
    demand(len(mark.key) == KEY_BYTES, "canary.key", f"a key of {len(mark.key)} bytes")
    demand(mark.root == root, "canary.root", "for another answer")
    demand(mark.nonce == spec.nonce, "canary.nonce", "not what the job's nonce stands for")


def score(receipt: Receipt, mark: CanaryMark) -> Mapping[PeerId, bool]:
    """Whether each juror of a canary's receipt failed, for `verify.eprocess.observe`.

    Jurors that abstained, were inconclusive or silent are left out: they did not say anything.

    Raises:
        Fault: the receipt does not hold, or the mark is not its.
    """
    summary: Summary = check(receipt)
    check_mark(summary.spec, summary.root, mark)
    voted = (juror for juror in summary.jury if juror.verdict in ("accept", "reject"))
    return {juror.peer: juror.verdict != mark.expected for juror in voted}


def pays_to_look(share: float, *, fee: int, stake: int, cost: int) -> bool:
    """e (R_v + S_v) >= c_v: whether looking is better for a juror than guessing.

    Args:
        share: e, of bad and, as much again, of good canaries among all asks.
        fee: R_v, micro-credits that a juror earns with an ask. stake: S_v, what a failed canary costs it beyond that
            (`verify.incentive.franchise_at_risk`). cost: c_v, what looking costs.
    """
    return Fraction(share) * (fee + stake) >= cost


def share_needed(*, fee: int, stake: int, cost: int) -> float:
    """The smallest share e at which `pays_to_look`.

    Raises:
        LocalError: not even if all asks were canaries, half of each sort.
    """
    if 2 * cost > fee + stake:
        raise LocalError(f"{fee + stake} at risk is less than twice the {cost} that looking costs")
    if not cost:
        return 0.0
    exact = Fraction(cost, fee + stake)
    share = float(exact)
    return share if Fraction(share) >= exact else math.nextafter(share, 1.0)


def plan(real: int, share: float, seed: bytes) -> tuple[AskWord, ...]:
    """In which order to send `real` asks and how many canaries between them.

    Each place is drawn by itself: "bad" and "good" with probability `share` each (taken up to a 2**-32th), so what a
    juror has counted so far tells it nothing. About 2 e / (1 - 2 e) canaries come with every real ask.

    Args:
        real: how many asks there are. share: e, below 1/2. seed: secret bytes.

    Raises:
        LocalError: out of range, or more than 2**20 asks in all.
    """
    size = math.ceil(Fraction(share) * SHARE_ONE) if 0 <= share < 0.5 else SHARE_ONE
    if real < 0 or 2 * size >= SHARE_ONE:
        raise LocalError(f"{real} asks with a share of {share} of each sort of canary")
    asks: list[AskWord] = []
    while real:
        if len(asks) == ASKS_MAX:
            raise LocalError(f"more than {ASKS_MAX} asks")
        ticket = int.from_bytes(digest("canary.plan", seed, len(asks).to_bytes(8, "big"))[:4], "big")
        asks.append("bad" if ticket < size else "good" if ticket < 2 * size else "real")
        real -= asks[-1] == "real"
    return tuple(asks)


def asks_to_expose(share: float, *, alpha0: float = 0.05, level: float = 1e-3) -> float:
    """An upper bound on the asks, in expectation, until a juror that never looks is out; infinite without canaries.

    It meets canaries with probability 2 e and fails half of them, whatever it says.
    """
    return audits_to_reject(0.5, alpha0=alpha0, level=level) / (2 * share) if share > 0 else math.inf
