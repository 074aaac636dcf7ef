"""Offline verification of receipts: no node, no network, only the bytes and what is in them.

The checks are those of docs/spec/receipt.md, in its order; the first that fails names the fault. Run
`python -m quorate.receipt FILE` for a plain summary.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from quorate import _bls
from quorate._canonical import (
    Envelope,
    NotCanonical,
    Struct,
    decode,
    digest,
    encode,
    included,
    open_envelope,
    peer_text,
)
from quorate._draw import draw_order
from quorate._structs import Commitment, ImageInput, JobSpec, JurorCommit, JurorReveal, KeyRecord, Statement, TextInput
from quorate._structs import Receipt as _Receipt
from quorate.errors import InvalidReceipt

RECEIPT_BYTES_MAX = 512 << 10
INPUT_BYTES_MAX = 64 << 10
STEPS_DRAWN_MAX = 4096
WINDOW_TOKENS = 32
JURY_MAX = 21
POOL_MAX = 64
DISTANCES_MAX = 16
NAME_BYTES_MAX = 64
VOTES = ("accept", "reject")

Verdict = Literal["accept", "reject", "unaudited"]
B = TypeVar("B", bound=Struct)


@dataclass(frozen=True, slots=True)
class Juror:
    """One drawn juror: its rank in the draw (0 is first), what it said (or `silent`), and what it measured."""

    peer: str
    rank: int
    verdict: str
    distances: dict[str, float]


@dataclass(frozen=True, slots=True)
class ReceiptSummary:
    """What a valid receipt proves. Peers are libp2p peer ids; hashes are in hex; amounts in micro-credits.

    Attributes:
        verdict: `unaudited` where no quorum signed.
        spots: how many drawn steps of an image's run each juror recomputed, or windows of 32 tokens up to which it read
            a text; 0 is all.
        replaced: peers that stood before a juror in the draw and were passed over.
        output: digest of the answer; `output_checked` says whether the answer itself was compared with it.
    """

    job: str
    verdict: Verdict
    kind: str
    model: str
    lane: str
    numeric: str
    fingerprint: str
    calibration: str
    requester: str
    worker: str
    jury_size: int
    spots: int
    jurors: tuple[Juror, ...]
    replaced: int
    output: str
    output_checked: bool
    price_micro: int
    fee_micro: int
    created_ms: int

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as the node handed it out: canonical bytes, not yet verified."""

    raw: bytes

    def verify(self, *, output: bytes | None = None) -> ReceiptSummary:
        """As `verify_receipt`."""
        return verify_receipt(self.raw, output=output)

    def save(self, path: str | Path) -> Path:
        """Write the bytes to a file that `python -m quorate.receipt` reads."""
        target = Path(path)
        target.write_bytes(self.raw)
        return target


def verify_receipt(raw: bytes, *, output: bytes | None = None, bls: _bls.Bls | None = None) -> ReceiptSummary:
    """Verify a receipt.

    Args:
        raw: its bytes, as `GET /api/v1/jobs/{id}/receipt` returns them.
        output: the canonical bytes of the answer (`.../output`); compared with the digest in the receipt if given.
        bls: signature backend; the fastest installed one if None.

    Raises:
        InvalidReceipt: `reason` is the name of the first fault; `answer` if only `output` is another one.
    """
    reading = _Reading(_decoded(raw), bls or _bls.best())
    reading.check_commitment()
    reading.check_jury()
    reading.check_reveals()
    reading.check_certificate()
    if output is not None:
        _require(
            digest("output", output) == reading.receipt.output, "answer", "these bytes are not what was committed to"
        )
    return reading.summary(output_checked=output is not None)


def _require(holds: bool, fault: str, detail: str = "") -> None:
    if not holds:
        raise InvalidReceipt(fault, detail)


def _decoded(raw: bytes) -> _Receipt:
    try:
        receipt = decode(_Receipt, raw, RECEIPT_BYTES_MAX)
    except NotCanonical as exc:
        raise InvalidReceipt("encoding", str(exc)) from exc
    _require(receipt.version == 1, "version", str(receipt.version))
    return receipt


def _open(fault: str, envelope: Envelope, domain: str, kind: type[B]) -> B:
    try:
        return open_envelope(envelope, domain, kind)
    except NotCanonical as exc:
        raise InvalidReceipt(fault, str(exc)) from exc


class _Reading:
    """One receipt being checked; each step relies on the steps before it."""

    def __init__(self, receipt: _Receipt, bls: _bls.Bls) -> None:
        self.receipt, self.bls = receipt, bls
        self.spec = _open("spec", receipt.spec, "job", JobSpec)
        _require(receipt.spec.author == self.spec.requester, "spec.requester")
        _require(self.spec.version == 1, "spec.version", str(self.spec.version))
        size = self.spec.jury_size
        _require(size == 0 or (0 < size <= JURY_MAX and size % 2 == 1), "spec.jury_size", str(size))
        _require(self.spec.spots == 0 or 0 < self.spec.spots <= self._parts(), "spec.spots", str(self.spec.spots))
        self.job = digest("job", receipt.spec.body)
        self.worker = receipt.commitment.author

    def _parts(self) -> int:
        """How many can be drawn: steps of an image's run in the tolerant lane, windows of a text's; else none."""
        kind, inputs = self.spec.kind, self.spec.inputs
        try:
            if kind == "embed.text":
                return 0
            if kind == "image.generate":
                steps = decode(ImageInput, inputs, INPUT_BYTES_MAX).steps
                parts = steps if self.spec.lane == "tolerant" else 0
            else:
                asked = decode(TextInput, inputs, INPUT_BYTES_MAX)
                parts = 0 if asked.method == "beam" else max(1, asked.tokens_max // WINDOW_TOKENS)
        except NotCanonical as exc:
            raise InvalidReceipt("spec.spots", str(exc)) from exc
        return parts if parts <= STEPS_DRAWN_MAX else 0

    def check_commitment(self) -> None:
        """Checks 8 to 12: the worker committed to this output, and the beacon was fixed before."""
        receipt = self.receipt
        self.promise = _open("commitment", receipt.commitment, "commitment", Commitment)
        _require(self.promise.job == self.job, "commitment.job")
        _require(self.worker != self.spec.requester, "commitment.worker")
        leaf = digest("leaf", receipt.salt, b"output", receipt.output)
        opened = included(leaf, 0, self.promise.leaves, receipt.proof, self.promise.root)
        _require(len(receipt.salt) == len(receipt.output) == 32 and opened, "output")
        fixed = digest("beacon.secret", receipt.secret) == self.spec.beacon_hash
        _require(len(receipt.secret) == 32 and fixed, "beacon")

    def check_jury(self) -> None:
        """Checks 13 to 18: the pool is the one that was fixed, the jury was drawn from it, and its keys are its own."""
        receipt = self.receipt
        self._check_pool()
        _require(len(receipt.commits) <= self.spec.jury_size, "commit", "more than the jury")
        self.commits = [self._commit(sealed) for sealed in receipt.commits]
        self.jury = [sealed.author for sealed in receipt.commits]
        beacon = digest("beacon", self.job, self.promise.root, receipt.secret)
        members = [(m.peer, m.weight) for m in receipt.pool if m.peer not in (self.spec.requester, self.worker)]
        place = {peer: rank for rank, peer in enumerate(draw_order(beacon, members))}
        self.ranks = [place.get(juror, -1) for juror in self.jury]
        ascending = all(low < high for low, high in pairwise([-1, *self.ranks]))
        _require(ascending, "jury", "not drawn in this order")
        self._check_keys()

    def _check_pool(self) -> None:
        pool = self.receipt.pool
        peers = [member.peer for member in pool]
        well_formed = (
            len(pool) <= POOL_MAX
            and all(len(peer) == 32 for peer in peers)
            and all(low < high for low, high in pairwise(peers))
            and all(1 <= member.weight < 1 << 32 for member in pool)
        )
        _require(well_formed and digest("pool", encode(pool)) == self.spec.pool, "pool")

    def _check_keys(self) -> None:
        keys = self.receipt.keys
        _require(len(keys) == len(self.jury), "key", f"{len(keys)} keys for {len(self.jury)} jurors")
        self.key_of: dict[bytes, bytes] = {}
        for juror, envelope in zip(self.jury, keys, strict=True):
            record = _open("key", envelope, "keys", KeyRecord)
            _require(envelope.author == juror, "key", "of another peer")
            _require(self.bls.possession(juror, record.bls, record.possession), "key.possession")
            self.key_of[juror] = record.bls

    def _commit(self, sealed: Envelope) -> JurorCommit:
        commit = _open("commit", sealed, "juror.commit", JurorCommit)
        _require(self._of_this_answer(commit), "commit.job")
        return commit

    def _of_this_answer(self, said: JurorCommit | JurorReveal) -> bool:
        return said.job == self.job and said.root == self.promise.root

    def check_reveals(self) -> None:
        """Checks 19 to 24: each juror opened what it had sealed, and signed its own vote."""
        seals = {juror: commit.seal for juror, commit in zip(self.jury, self.commits, strict=True)}
        self.reveals: dict[bytes, JurorReveal] = {}
        waiting = iter(self.jury)
        for opened in self.receipt.reveals:
            reveal = _open("reveal", opened, "juror.reveal", JurorReveal)
            _require(opened.author in waiting, "reveal.juror")  # the iterator moves on, so order matters
            _require(self._of_this_answer(reveal), "reveal.job")
            _require(_distances_fit(reveal.distances), "reveal.distances")
            _require(_seal(opened.author, reveal) == seals[opened.author], "reveal.seal")
            self.reveals[opened.author] = reveal
        self.jury_hash = digest("jury", encode(self.jury))
        for juror, reveal in self.reveals.items():
            self._check_vote(juror, reveal)

    def _check_vote(self, juror: bytes, reveal: JurorReveal) -> None:
        votes = reveal.verdict in VOTES
        _require(len(reveal.signature) == (96 if votes else 0), "reveal.vote", "a signature of a wrong length")
        certificate = self.receipt.certificate
        covered = certificate is not None and certificate.statement.verdict == reveal.verdict
        if votes and not covered:
            statement = Statement(self.job, self.promise.root, reveal.verdict, self.spec.lane, self.jury_hash)
            signed = self.bls.aggregate([self.key_of[juror]], _message(statement), reveal.signature)
            _require(signed, "reveal.vote", "the signature does not verify")

    def check_certificate(self) -> None:
        """Checks 25 to 30: a majority signed this verdict, or there was none to be had."""
        certificate, size = self.receipt.certificate, self.spec.jury_size
        if certificate is None:
            votes = Counter(reveal.verdict for reveal in self.reveals.values() if reveal.verdict in VOTES)
            majority = any(2 * count > size for count in votes.values())
            _require(not majority or len(self.jury) < size, "certificate.missing")
            return
        said = certificate.statement
        _require(
            said == Statement(self.job, self.promise.root, said.verdict, self.spec.lane, self.jury_hash)
            and said.verdict in VOTES,
            "certificate.statement",
        )
        _require(len(self.jury) == size > 0, "certificate.jury")
        agreeing = sorted(juror for juror, reveal in self.reveals.items() if reveal.verdict == said.verdict)
        keys = [self.key_of[juror] for juror in agreeing]
        _require(certificate.signers == agreeing and len(set(keys)) == len(keys), "certificate.signers")
        _require(2 * len(agreeing) > size, "certificate.quorum")
        _require(self.bls.aggregate(keys, _message(said), certificate.signature), "certificate.signature")

    def summary(self, *, output_checked: bool) -> ReceiptSummary:
        """What the checks have shown."""
        spec, certificate = self.spec, self.receipt.certificate
        verdict: Verdict = "unaudited"
        if certificate is not None:
            verdict = "accept" if certificate.statement.verdict == "accept" else "reject"
        return ReceiptSummary(
            job=self.job.hex(),
            verdict=verdict,
            kind=spec.kind,
            model=spec.model,
            lane=spec.lane,
            numeric=spec.numeric,
            fingerprint=spec.fingerprint,
            calibration=spec.calibration.hex(),
            requester=peer_text(spec.requester),
            worker=peer_text(self.worker),
            jury_size=spec.jury_size,
            spots=spec.spots,
            jurors=tuple(self._juror(peer, rank) for peer, rank in zip(self.jury, self.ranks, strict=True)),
            replaced=self.ranks[-1] + 1 - len(self.ranks) if self.ranks else 0,
            output=self.receipt.output.hex(),
            output_checked=output_checked,
            price_micro=spec.price_micro,
            fee_micro=spec.fee_micro,
            created_ms=spec.created_ms,
        )

    def _juror(self, peer: bytes, rank: int) -> Juror:
        reveal = self.reveals.get(peer)
        if reveal is None:
            return Juror(peer_text(peer), rank, "silent", {})
        return Juror(peer_text(peer), rank, reveal.verdict, reveal.distances)


def _message(statement: Statement) -> bytes:
    return digest("statement", encode(statement))


def _seal(juror: bytes, reveal: JurorReveal) -> bytes:
    unsigned = JurorReveal(reveal.job, reveal.root, reveal.verdict, reveal.distances, reveal.sketch, reveal.salt, b"")
    return digest("juror.seal", juror, encode(unsigned))


def _distances_fit(distances: dict[str, float]) -> bool:
    return len(distances) <= DISTANCES_MAX and all(
        len(name.encode()) <= NAME_BYTES_MAX and math.isfinite(value) and value >= 0
        for name, value in distances.items()
    )


if __name__ == "__main__":
    from quorate._receipt_cli import main

    raise SystemExit(main())
