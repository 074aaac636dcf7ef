"""What is asked, what is answered and what must match: the messages of a job that several packages share.

A job is named by the hash of its `JobSpec`, so whatever the spec says, the worker, the jurors and the
receipt all speak of exactly that. Amounts are integer micro-credits.
"""

from __future__ import annotations

from typing import Literal

from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.hashing import digest
from wire.limits import INPUT_BYTES_MAX, STEPS_DRAWN_MAX, TENSORS_MAX, WINDOW_TOKENS
from wire.peer import PeerId
from wire.tensor import Tensor

Kind = Literal["text.generate", "image.generate", "embed.text"]
Lane = Literal["exact", "tolerant"]
VerdictWord = Literal["accept", "reject", "abstain", "inconclusive"]


class TextInput(Wire, frozen=True):
    """Input of `text.generate`; `temperature` and `top_k` apply to `sample` only, `beams` to `beam` only."""

    prompt: str
    tokens_max: int = 48
    method: Literal["greedy", "beam", "sample"] = "greedy"
    temperature: float = 1.0
    top_k: int = 0
    beams: int = 4


class ImageInput(Wire, frozen=True):
    """Input of `image.generate`: a class label and the number of DDIM steps."""

    label: int
    steps: int = 30


class EmbedInput(Wire, frozen=True):
    """Input of `embed.text`: the texts, in order."""

    texts: list[str]


INPUTS: dict[str, type[Wire]] = {"text.generate": TextInput, "image.generate": ImageInput, "embed.text": EmbedInput}


class PoolMember(Wire, frozen=True):
    """A peer that may be drawn as juror, with the requester's integer weight for it (1..2**32-1)."""

    peer: PeerId
    weight: int


class JobSpec(Wire, frozen=True):
    """Everything that decides what a right answer is, and who may judge it.

    Attributes:
        kind, model: workload and CID of the weights manifest.
        inputs: canonical bytes of the kind's input struct.
        lane: how answers are compared; `numeric` names the pinned numeric class, e.g. "f32" or "f64r32".
        fingerprint: id of the fingerprint with its version.
        calibration: 32-byte hash of the thresholds that the jury must use.
        seed: seed of the Philox generator, 0..2**64-1.
        jury_size: odd; 0 means that nobody checks and nothing is earned.
        spots: how many parts of the run (`parts`) each juror recomputes, drawn by the beacon; 0 = all.
        price_micro: what the worker earns on `accept`; `fee_micro`: what each juror earns on any verdict.
        requester: the payer.
        pool: hash of the canonical list of `PoolMember`, fixed before any work is done.
        beacon_hash: digest("beacon.secret", secret) of the requester's 32-byte secret.
        nonce: 16 bytes that make two equal requests two jobs.
        created_ms, deadline_ms: Unix time; the requester's clock.
    """

    version: int
    kind: Kind
    model: str
    inputs: bytes
    lane: Lane
    numeric: str
    fingerprint: str
    calibration: bytes
    seed: int
    jury_size: int
    spots: int
    price_micro: int
    fee_micro: int
    requester: PeerId
    pool: bytes
    beacon_hash: bytes
    nonce: bytes
    created_ms: int
    deadline_ms: int

    @property
    def id(self) -> bytes:
        """The 32-byte name of the job."""
        return digest("job", codec.encode(self))

    def input(self) -> Wire:
        """The decoded input.

        Raises:
            Malformed: the input does not fit the kind.
        """
        return codec.decode(INPUTS[self.kind], self.inputs, bytes_max=INPUT_BYTES_MAX)


def parts(lane: Lane, given: Wire) -> int:
    """Of how many parts of a run some can be drawn; 0 where it is checked whole.

    Steps of an image in lane "tolerant"; windows of 32 tokens of a text as long as was asked for, the last taking the
    rest, unless it is from a beam search.
    """
    if isinstance(given, ImageInput):
        return given.steps if lane == "tolerant" else 0
    if isinstance(given, TextInput) and given.method != "beam":
        return max(1, given.tokens_max // WINDOW_TOKENS)
    return 0


def check_spots(spec: JobSpec) -> None:
    """Check `JobSpec.spots`: at most the run's parts, and 0 where a run is checked whole.

    Raises:
        Malformed: it is out of range, or the input that says how many parts there are does not decode.
    """
    if spec.spots == 0:
        return
    most = parts(spec.lane, spec.input())
    if not 0 < spec.spots <= most <= STEPS_DRAWN_MAX:
        raise Malformed(f"spots {spec.spots}: 0 to {most}, the parts of the run that can be drawn, is allowed")


class Output(Wire, frozen=True):
    """What the requester asked for, as named tensors.

    text.generate: `tokens` i4[n] (byte-level ids). image.generate: `pixels` u1[h, w].
    embed.text: `vectors` f4[n, d].
    """

    tensors: dict[str, Tensor]

    def check(self) -> None:
        """Raises: Malformed on too many or ill-formed tensors."""
        _check(self.tensors)


class Trace(Wire, frozen=True):
    """How the output came about, as named tensors: what the jury re-checks.

    text.generate: `sketch` u1[rows, 8] (of the last hidden states, `wire.text_sketch`).
    image.generate: `latents` f4[steps + 1, h, w], initial noise first. embed.text: nothing.
    """

    tensors: dict[str, Tensor]

    def check(self) -> None:
        """Raises: Malformed on too many or ill-formed tensors."""
        _check(self.tensors)


class Expected(Wire, frozen=True):
    """What a juror computed for itself, to be compared with output and trace (`verify.fingerprints`)."""

    tensors: dict[str, Tensor]


def _check(tensors: dict[str, Tensor]) -> None:
    if len(tensors) > TENSORS_MAX:
        raise Malformed(f"{len(tensors)} tensors, at most {TENSORS_MAX}")
    for tensor in tensors.values():
        tensor.check()


class KeyRecord(Wire, frozen=True):
    """Binds a BLS key to an identity; travels in an envelope of domain "keys" signed by that identity.

    `bls` is a 48-byte compressed G1 point, `possession` its 96-byte proof of possession
    by this identity (`wire.bls.prove_possession` with the peer as owner).
    """

    bls: bytes
    possession: bytes


class Commitment(Wire, frozen=True):
    """A worker's promise before the jury exists; domain "commitment". `root` is `verify.commitment`'s Merkle root."""

    job: bytes
    root: bytes
    leaves: int


class Statement(Wire, frozen=True):
    """What a quorum certificate certifies: this verdict on this committed answer to this job, by this jury."""

    job: bytes
    root: bytes
    verdict: VerdictWord
    lane: Lane
    jury: bytes

    @property
    def message(self) -> bytes:
        """The 32 bytes that jurors sign."""
        return digest("statement", codec.encode(self))


class JurorCommit(Wire, frozen=True):
    """A juror's sealed verdict; domain "juror.commit". `seal` hides the reveal until all have committed."""

    job: bytes
    root: bytes
    seal: bytes


class JurorReveal(Wire, frozen=True):
    """A juror's opened verdict; domain "juror.reveal".

    `distances` maps the fingerprint's measures to the juror's values; `sketch` is the 32-byte hash of what it
    computed; `salt` is 32 bytes; `signature` is its 96-byte BLS signature of the statement's message, and is
    empty for `abstain` and `inconclusive`.
    """

    job: bytes
    root: bytes
    verdict: VerdictWord
    distances: dict[str, float]
    sketch: bytes
    salt: bytes
    signature: bytes


class Certificate(Wire, frozen=True):
    """A compact quorum certificate: one aggregate BLS signature of one statement.

    `signers` are the jurors' identities in ascending order; their BLS keys come from their key records.
    """

    statement: Statement
    signers: list[PeerId]
    signature: bytes


class Receipt(Wire, frozen=True):
    """Everything needed to verify an answer offline, years later.

    Attributes:
        spec: the `JobSpec` in an envelope (domain "job") signed by the requester.
        commitment: the worker's `Commitment` in an envelope.
        secret: the 32-byte beacon secret that the requester revealed after the commitment.
        salt: the 32-byte salt that opens the commitment.
        output: 32-byte digest of the output, which is a leaf of the commitment.
        proof: audit path of that leaf.
        pool: the jury pool whose hash the spec fixed.
        keys: key records of the jurors, in jury order.
        reveals: the jurors' opened verdicts, in jury order (a silent juror is replaced and does not appear).
        commits: the jurors' sealed verdicts, in jury order.
        certificate: None if no quorum was reached: the answer is then unaudited.
    """

    version: int
    spec: Envelope
    commitment: Envelope
    secret: bytes
    salt: bytes
    output: bytes
    proof: list[bytes]
    pool: list[PoolMember]
    keys: list[Envelope]
    commits: list[Envelope]
    reveals: list[Envelope]
    certificate: Certificate | None
