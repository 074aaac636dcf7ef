"""Writes tests/vectors/receipt-v1.json: `python -m tests.verify.receipt_vectors`.

Every vector is a receipt in hex; `expect` is the verdict of one that holds, or the name of the one fault of one that
does not. Everybody's keys come from seeds, so the file is the same each time; a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.verify.world import SALT, SECRET, ask_for, names, person, spec
from verify.case import open_draw, seal_of
from verify.jury import pool_hash
from verify.receipt import build
from wire import bls, codec
from wire.certificate import assemble
from wire.envelope import Envelope, seal
from wire.hashing import digest
from wire.identity import Identity
from wire.job import (
    ImageInput,
    JobSpec,
    JurorCommit,
    JurorReveal,
    KeyRecord,
    PoolMember,
    Receipt,
    TextInput,
    VerdictWord,
)

PATH = Path(__file__).parents[1] / "vectors" / "receipt-v1.json"
WORDS: tuple[VerdictWord, VerdictWord, VerdictWord] = ("accept", "accept", "accept")
TEXT: dict[str, Any] = {"kind": "text.generate", "inputs": codec.encode(TextInput("a", 64))}
IMAGE: dict[str, Any] = {"kind": "image.generate", "inputs": codec.encode(ImageInput(3, 30))}
S = TypeVar("S", bound=msgspec.Struct)


def replace(struct: S, **changes: Any) -> S:
    """The struct with other values in some fields."""
    return msgspec.structs.replace(struct, **changes)


class Forge:
    """A receipt under construction: its parts are right unless told otherwise."""

    def __init__(self, words: Sequence[VerdictWord] = WORDS, seats: Sequence[int] = (0, 1, 2), **changes: Any) -> None:
        self.ask = ask_for(spec(**changes))
        self.case = open_draw(spec(**changes), self.ask.commitment, SECRET, self.ask.pool)
        self.jury = [self.case.order[seat] for seat in seats]
        self.people: list[Identity] = [person(names(7)[peer]) for peer in self.jury]
        self.reveals = [self.vote(index, word) for index, word in enumerate(words)]
        self.commits = [self.sealed(index, reveal) for index, reveal in enumerate(self.reveals)]

    def vote(self, index: int, word: VerdictWord, **changes: Any) -> JurorReveal:
        """What juror `index` reveals."""
        who = self.people[index]
        salt, sketch = digest("test.salt", who.peer), digest("sketch", who.peer)
        distance = {"accept": 1e-13, "reject": 0.5}.get(word)
        distances = {} if distance is None else {"cosine": distance, "relative": distance**0.5}
        message = self.case.statement(word, self.jury).message
        signature = b"" if distance is None else who.bls_sign(message)
        reveal = JurorReveal(self.case.job, self.case.root, word, distances, sketch, salt, signature)
        return JurorReveal(**({name: getattr(reveal, name) for name in reveal.__struct_fields__} | changes))

    def sealed(self, index: int, reveal: JurorReveal) -> JurorCommit:
        """The seal of that reveal."""
        return JurorCommit(self.case.job, self.case.root, seal_of(self.jury[index], reveal))

    def receipt(self, verdict: VerdictWord | None = "accept", shown: Sequence[int] = (0, 1, 2)) -> Receipt:
        """The receipt in which the jurors `shown` have revealed; without a certificate if `verdict` is None."""
        certificate = None
        if verdict is not None:
            agreeing = [i for i in shown if self.reveals[i].verdict == verdict]
            votes = {self.jury[i]: self.people[i].bls_sign(self.message(verdict)) for i in agreeing}
            certificate = assemble(self.case.statement(verdict, self.jury), votes)
        return build(
            self.ask,
            keys=[who.key_record() for who in self.people],
            commits=[seal(who, "juror.commit", each) for who, each in zip(self.people, self.commits, strict=True)],
            reveals=[seal(self.people[i], "juror.reveal", self.reveals[i]) for i in shown],
            certificate=certificate,
        )

    def message(self, verdict: VerdictWord) -> bytes:
        """What the jurors sign."""
        return self.case.statement(verdict, self.jury).message


def flipped(envelope: Envelope) -> Envelope:
    """The envelope with another signature."""
    return Envelope(
        envelope.domain, envelope.author, envelope.body, bytes([envelope.signature[0] ^ 1]) + envelope.signature[1:]
    )


def at(items: Sequence[Any], index: int, item: Any) -> list[Any]:
    """The list with one item replaced."""
    return [*items[:index], item, *items[index + 1 :]]


def image_spec(*, steps: int = 30, **changes: Any) -> JobSpec:
    """A job whose run has steps."""
    return spec(**(IMAGE | {"inputs": codec.encode(ImageInput(3, steps))} | changes))


def holding() -> dict[str, tuple[str, Receipt]]:
    """Receipts that hold."""
    no_jury = Forge((), (), jury_size=0)
    return {
        "three jurors accept": ("accept", Forge().receipt()),
        "two accept and one dissents": ("accept", Forge(("accept", "reject", "accept")).receipt()),
        "three jurors reject": ("reject", Forge(("reject",) * 3).receipt("reject")),
        "the second in order was passed over": ("accept", Forge(seats=(0, 2, 3)).receipt()),
        "one juror sealed and fell silent": ("accept", Forge().receipt(shown=(0, 2))),
        "one juror had sealed an abstention": ("accept", Forge(("accept", "abstain", "accept")).receipt()),
        "one of each, so no quorum": ("unaudited", Forge(("accept", "reject", "inconclusive")).receipt(None)),
        "only two could be found": ("unaudited", Forge(WORDS[:2], (0, 1)).receipt(None, shown=())),
        "an image of which nine steps were drawn": ("accept", Forge(**IMAGE, spots=9).receipt()),
        "a text of which one window was drawn": ("accept", Forge(**TEXT, spots=1).receipt()),
        "no jury was asked for": ("unaudited", no_jury.receipt(None, shown=())),
    }


def broken_case() -> dict[str, tuple[str, Receipt]]:
    """Receipts whose spec, commitment, output, beacon or pool is wrong."""
    good, job = Forge().receipt(), spec()
    other = Forge(nonce=b"n" * 16).receipt()
    requester, worker = person("requester"), person("worker")

    def with_spec(changed: JobSpec, signer: Identity = requester) -> Receipt:
        return replace(good, spec=seal(signer, "job", changed))

    def with_pool(pool: list[PoolMember]) -> Receipt:
        ask = ask_for(spec(pool=pool_hash(pool)))
        return replace(good, spec=ask.spec, commitment=ask.commitment, pool=pool)

    swapped = [good.pool[1], good.pool[0], *good.pool[2:]]
    heavy = at(good.pool, 0, PoolMember(good.pool[0].peer, 2**32))
    return {
        "version 2": ("version", replace(good, version=2)),
        "spec with another signature": ("spec", replace(good, spec=flipped(good.spec))),
        "spec in another domain": ("spec", replace(good, spec=seal(requester, "offer", job))),
        "spec signed by the worker": ("spec.requester", with_spec(job, worker)),
        "spec of version 2": ("spec.version", with_spec(spec(version=2))),
        "an even jury": ("spec.jury_size", with_spec(spec(jury_size=2))),
        "a jury of 23": ("spec.jury_size", with_spec(spec(jury_size=23))),
        "drawn steps where there are none": ("spec.spots", with_spec(spec(spots=1))),
        "drawn steps in the exact lane": ("spec.spots", with_spec(image_spec(lane="exact", spots=1))),
        "more drawn windows than the text has": ("spec.spots", with_spec(spec(**TEXT, spots=3))),
        "a drawn window of a beam search": (
            "spec.spots",
            with_spec(spec(**TEXT | {"inputs": codec.encode(TextInput("a", 64, "beam"))}, spots=1)),
        ),
        "fewer than no drawn steps": ("spec.spots", with_spec(image_spec(spots=-1))),
        "more drawn steps than the run has": ("spec.spots", with_spec(image_spec(spots=31))),
        "drawn steps of an endless run": ("spec.spots", with_spec(image_spec(steps=4097, spots=1))),
        "drawn steps of an unreadable input": ("spec.spots", with_spec(image_spec(inputs=b"\x00", spots=1))),
        "commitment with another signature": ("commitment", replace(good, commitment=flipped(good.commitment))),
        "commitment to another job": ("commitment.job", replace(good, commitment=other.commitment)),
        "the requester works for itself": (
            "commitment.worker",
            replace(good, commitment=Envelope(**_resealed(good.commitment, requester))),
        ),
        "another output": ("output", replace(good, output=bytes(32))),
        "another salt": ("output", replace(good, salt=bytes(32))),
        "another audit path": ("output", replace(good, proof=[bytes(32)])),
        "a longer audit path": ("output", replace(good, proof=[*good.proof, bytes(32)])),
        "another secret": ("beacon", replace(good, secret=bytes(32))),
        "a pool member missing": ("pool", replace(good, pool=good.pool[1:])),
        "a weight changed": ("pool", replace(good, pool=at(good.pool, 0, PoolMember(good.pool[0].peer, 99)))),
        "a pool that does not ascend": ("pool", with_pool(swapped)),
        "a weight of 2^32": ("pool", with_pool(heavy)),
        "a weight of 0": ("pool", with_pool(at(good.pool, 0, PoolMember(good.pool[0].peer, 0)))),
        "a pool member twice": ("pool", with_pool([good.pool[0], *good.pool])),
    }


def _resealed(envelope: Envelope, signer: Identity) -> dict[str, Any]:
    message = digest("envelope", envelope.domain.encode(), signer.peer, envelope.body)
    return {
        "domain": envelope.domain,
        "author": signer.peer,
        "body": envelope.body,
        "signature": signer.sign(message),
    }


def broken_jury() -> dict[str, tuple[str, Receipt]]:
    """Receipts whose seals, jury or keys are wrong."""
    forge = Forge()
    good = forge.receipt()
    four = Forge(("accept",) * 4, (0, 1, 2, 3)).receipt(None, shown=())
    elsewhere = seal(forge.people[1], "juror.commit", replace(forge.commits[1], root=bytes(32)))
    worker = seal(person("worker"), "juror.commit", forge.commits[1])
    stranger = seal(person("stranger"), "juror.commit", forge.commits[1])
    record = codec.decode(KeyRecord, forge.people[0].key_record().body)
    borrowed = codec.decode(KeyRecord, forge.people[1].key_record().body)
    unproven = seal(forge.people[0], "keys", KeyRecord(record.bls, borrowed.possession))
    copied = seal(forge.people[0], "keys", borrowed)
    return {
        "a seal with another signature": (
            "commit",
            replace(good, commits=at(good.commits, 1, flipped(good.commits[1]))),
        ),
        "four seals for a jury of three": ("commit", four),
        "a seal for another root": ("commit.job", replace(good, commits=at(good.commits, 1, elsewhere))),
        "jurors out of draw order": ("jury", replace(good, commits=[good.commits[i] for i in (1, 0, 2)])),
        "one juror on two seats": ("jury", replace(good, commits=[good.commits[i] for i in (0, 1, 1)])),
        "the worker judges itself": ("jury", replace(good, commits=at(good.commits, 1, worker))),
        "a juror from outside the pool": ("jury", replace(good, commits=at(good.commits, 1, stranger))),
        "a key missing": ("key", replace(good, keys=good.keys[:2])),
        "keys swapped": ("key", replace(good, keys=[good.keys[i] for i in (1, 0, 2)])),
        "a key record with another signature": ("key", replace(good, keys=at(good.keys, 0, flipped(good.keys[0])))),
        "possession of another key proven": ("key.possession", replace(good, keys=at(good.keys, 0, unproven))),
        "another juror's key and proof": ("key.possession", replace(good, keys=at(good.keys, 0, copied))),
    }


def broken_reveals() -> dict[str, tuple[str, Receipt]]:
    """Receipts whose reveals are wrong."""
    forge = Forge()
    good = forge.receipt()

    def changed(index: int, **changes: Any) -> Receipt:
        bad = seal(forge.people[index], "juror.reveal", replace(forge.reveals[index], **changes))
        return replace(good, reveals=at(good.reveals, index, bad))

    dissent = Forge(("accept", "reject", "accept"))
    dissent.reveals[1] = replace(dissent.reveals[1], signature=dissent.people[1].bls_sign(dissent.message("accept")))
    signed = Forge(("accept", "abstain", "accept"))
    signed.reveals[1] = replace(signed.reveals[1], signature=bytes(96))
    short = Forge()
    short.reveals[0] = replace(short.reveals[0], signature=b"")
    open_vote = Forge(("accept", "reject", "inconclusive"))
    open_vote.reveals[0] = replace(open_vote.reveals[0], signature=bytes(96))
    many = {f"measure-{index}": 0.0 for index in range(17)}
    return {
        "a reveal with another signature": (
            "reveal",
            replace(good, reveals=at(good.reveals, 1, flipped(good.reveals[1]))),
        ),
        "reveals out of order": ("reveal.juror", replace(good, reveals=[good.reveals[i] for i in (1, 0, 2)])),
        "one juror reveals twice": ("reveal.juror", replace(good, reveals=[good.reveals[i] for i in (0, 1, 1)])),
        "one juror reveals twice, then for another job": (
            "reveal.juror",
            replace(good, reveals=[*good.reveals[:2], changed(1, job=bytes(32)).reveals[1]]),
        ),
        "a reveal for another job": ("reveal.job", changed(1, job=bytes(32))),
        "a distance that is no number": ("reveal.distances", changed(1, distances={"cosine": float("nan")})),
        "an infinite distance": ("reveal.distances", changed(1, distances={"cosine": float("inf")})),
        "a negative distance": ("reveal.distances", changed(1, distances={"cosine": -1.0})),
        "seventeen distances": ("reveal.distances", changed(1, distances=many)),
        "a name of 65 bytes": ("reveal.distances", changed(1, distances={"m" * 65: 0.0})),
        "another verdict than sealed": ("reveal.seal", changed(1, verdict="reject")),
        "other distances than sealed": ("reveal.seal", changed(1, distances={"cosine": 0.0})),
        "another juror's reveal under an own name": (
            "reveal.seal",
            replace(good, reveals=at(good.reveals, 1, seal(forge.people[1], "juror.reveal", forge.reveals[0]))),
        ),
        "a dissenter's vote signed for the other verdict": ("reveal.vote", dissent.receipt()),
        "an abstention with a signature": ("reveal.vote", signed.receipt()),
        "a vote without a signature": ("reveal.vote", short.receipt()),
        "without a certificate, a vote with a bad signature": ("reveal.vote", open_vote.receipt(None)),
    }


def broken_certificates() -> dict[str, tuple[str, Receipt]]:
    """Receipts whose certificate is wrong."""
    forge = Forge()
    good = forge.receipt()
    certificate = good.certificate
    assert certificate is not None

    def certified(**changes: Any) -> Receipt:
        return replace(good, certificate=replace(certificate, **changes))

    def stated(**changes: Any) -> Receipt:
        return certified(statement=replace(certificate.statement, **changes))

    two_votes = {forge.jury[i]: forge.reveals[i].signature for i in (0, 1)}
    partial = assemble(certificate.statement, two_votes)
    shared = Forge()
    twin, owner = shared.people[1], shared.people[0]
    claim = bls.prove_possession(owner._bls_secret, owner=twin.peer)
    record = KeyRecord(owner.bls_public, claim)  # one hand, two names, one key
    shared.reveals[1] = shared.vote(1, "accept", signature=shared.reveals[0].signature)
    twice = assemble(certificate.statement, {shared.jury[i]: shared.reveals[i].signature for i in range(3)})
    doubled = replace(shared.receipt(), keys=at(good.keys, 1, seal(twin, "keys", record)), certificate=twice)
    return {
        "a majority without a certificate": ("certificate.missing", replace(good, certificate=None)),
        "the certificate of another lane": ("certificate.statement", stated(lane="exact")),
        "the certificate of another root": ("certificate.statement", stated(root=bytes(32))),
        "the certificate of another jury": ("certificate.statement", stated(jury=bytes(32))),
        "a jury of two instead of three": ("certificate.jury", Forge(WORDS[:2], (0, 1)).receipt(shown=(0, 1))),
        "a signer left out": ("certificate.signers", certified(signers=certificate.signers[:2])),
        "signers in descending order": ("certificate.signers", certified(signers=certificate.signers[::-1])),
        "two signers with one BLS key": ("certificate.signers", doubled),
        "one vote of three": ("certificate.quorum", Forge(("accept", "reject", "abstain")).receipt()),
        "an aggregate of fewer votes": ("certificate.signature", certified(signature=partial.signature)),
        "an aggregate of zeros": ("certificate.signature", certified(signature=bytes(96))),
        "the point at infinity": ("certificate.signature", certified(signature=b"\xc0" + bytes(95))),
    }


def broken_bytes() -> dict[str, tuple[str, bytes]]:
    """Bytes that are no receipt at all."""
    raw = codec.encode(Forge().receipt())
    wide_version = raw[:1] + b"\xcc\x01" + raw[2:]
    assert raw[:2] == b"\x9c\x01", "twelve fields, version 1"
    return {
        "nothing": ("encoding", b""),
        "truncated": ("encoding", raw[:-1]),
        "a trailing byte": ("encoding", raw + b"\x00"),
        "a version spelled with two bytes": ("encoding", wide_version),
        "eleven fields": ("encoding", b"\x9b" + raw[1:-1]),
        "another struct": ("encoding", codec.encode(spec())),
    }


def vectors() -> list[dict[str, str]]:
    """All of them, in order."""
    found: dict[str, tuple[str, bytes]] = {}
    for part in (holding, broken_case, broken_jury, broken_reveals, broken_certificates):
        found |= {name: (expect, codec.encode(receipt)) for name, (expect, receipt) in part().items()}
    found |= broken_bytes()
    return [{"name": name, "expect": expect, "hex": raw.hex()} for name, (expect, raw) in found.items()]


def document() -> str:
    """The file's text."""
    about = "expect: accept, reject or unaudited if the receipt holds, else the one fault (docs/spec/receipt.md)"
    return json.dumps({"about": about, "salt": SALT.hex(), "vectors": vectors()}, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(document())
