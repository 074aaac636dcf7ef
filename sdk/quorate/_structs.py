"""The structs inside a receipt, field for field as docs/spec/receipt.md lists them."""

from __future__ import annotations

from typing import Literal

from quorate._canonical import Envelope, Struct

Word = Literal["accept", "reject", "abstain", "inconclusive"]
Lane = Literal["exact", "tolerant"]
Kind = Literal["text.generate", "image.generate", "embed.text"]


class PoolMember(Struct, frozen=True):
    peer: bytes
    weight: int


class JobSpec(Struct, frozen=True):
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
    requester: bytes
    pool: bytes
    beacon_hash: bytes
    nonce: bytes
    created_ms: int
    deadline_ms: int


class TextInput(Struct, frozen=True):
    prompt: str
    tokens_max: int
    method: Literal["greedy", "beam", "sample"]
    temperature: float
    top_k: int
    beams: int


class ImageInput(Struct, frozen=True):
    label: int
    steps: int


class Commitment(Struct, frozen=True):
    job: bytes
    root: bytes
    leaves: int


class KeyRecord(Struct, frozen=True):
    bls: bytes
    possession: bytes


class JurorCommit(Struct, frozen=True):
    job: bytes
    root: bytes
    seal: bytes


class JurorReveal(Struct, frozen=True):
    job: bytes
    root: bytes
    verdict: Word
    distances: dict[str, float]
    sketch: bytes
    salt: bytes
    signature: bytes


class Statement(Struct, frozen=True):
    job: bytes
    root: bytes
    verdict: Word
    lane: Lane
    jury: bytes


class Certificate(Struct, frozen=True):
    statement: Statement
    signers: list[bytes]
    signature: bytes


class Receipt(Struct, frozen=True):
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
