"""The targets: everything that reads what a peer or a user hands in; importing this registers them in `TARGETS`."""

from __future__ import annotations

import json
import math
from typing import Any, cast

from crdt.op import parse
from dht import messages as dht_messages
from dht import relay
from dht.provider import RULES
from dht.record import DOMAIN as DHT_DOMAIN
from dht.record import Equivocation, Record, validate
from ledger.certificates import decode_certificates
from ledger.entry import InvalidEntry, Receipt, check_entry, decode_entry
from ledger.fork import ForkProof
from ledger.fork import check as check_fork
from ledger.sync import Fetch, Page, check_page
from node.intake import Refused as NotServed
from node.intake import parse as parse_job
from node.light.messages import decode_reply as decode_light_reply
from node.light.messages import decode_request as decode_light_request
from node.market.material import Answered, Inline
from node.market.messages import HIRE, Committed, Declined, Delivered, Hire, Hired, Paid, Working
from quorate.errors import InvalidReceipt
from quorate.receipt import verify_receipt
from tests.crdt import op_vectors
from tests.dht import make_vectors as dht_vectors
from tests.dht.coreworld import START_MS
from tests.fuzz.mutation import canonical
from tests.fuzz.samples import values, vectors
from tests.fuzz.targets import SDK_BLS, decoded, repaired_entry, target, text_target
from tests.ledger import make_vectors
from tests.ledger.parties import Key
from tests.node import light_vectors
from tests.verify.world import answer, names, person, spec
from tests.wire.test_two_keys import ALICE, second_record
from verify.calibrated import calibrations
from verify.calibration import from_json, to_json
from verify.ladder import LEVELS, check_ladder
from verify.signed_calibration import load, sign
from wire import codec
from wire.certificate import assemble, check
from wire.cid import to_digest
from wire.envelope import Envelope, seal, unseal
from wire.errors import LocalError, RemoteError
from wire.identity import check_key_record
from wire.job import Certificate, Commitment, JobSpec, KeyRecord, Output, Statement
from wire.peer import from_text, to_text
from wire.two_keys import TwoKeys, prove
from wire.two_keys import check as check_two_keys
from workloads.catalog import built_in
from workloads.inputs import check as check_input

PEOPLE = [person(name) for name in names(3).values()]
MODELS = built_in().capabilities().models


def _envelopes() -> list[bytes]:
    """One of each domain that a struct of `wire.job` travels in."""
    record = codec.decode(KeyRecord, person("worker").key_record().body)
    sealed = [seal(person("requester"), "job", spec()), seal(person("worker"), "keys", record)]
    return [
        codec.encode(each)
        for each in [*sealed, seal(person("worker"), "commitment", Commitment(bytes(32), bytes(32), 2))]
    ]


@target("envelope", _envelopes)
def _envelope(raw: bytes) -> None:
    envelope = decoded(Envelope, raw)
    kinds: dict[str, Any] = {"job": JobSpec, "keys": KeyRecord, "commitment": Commitment}
    unseal(envelope, envelope.domain, kinds.get(envelope.domain, Statement))


@target(
    "job spec",
    lambda: [codec.encode(spec(model=MODELS[at % 3].cid, kind=MODELS[at % 3].kind)) for at in range(3)],
    LocalError,
)
def _job_spec(raw: bytes) -> None:
    job = decoded(JobSpec, raw)
    assert len(job.id) == 32
    check_input(job)


@target("key record", lambda: [codec.encode(each.key_record()) for each in PEOPLE])
def _key_record(raw: bytes) -> None:
    check_key_record(decoded(Envelope, raw))


def _two_keys() -> list[bytes]:
    proof = prove(ALICE.key_record(), second_record(ALICE))
    return [codec.encode(proof)]


@target("two keys", _two_keys)
def _two(raw: bytes) -> None:
    assert check_two_keys(decoded(TwoKeys, raw)) == ALICE.peer


SMALL = [each for each in calibrations().values() if len(each.groups) < 10]
"""Records of few backends: the others are the same at greater length."""

STATEMENT = Statement(bytes(32), bytes(32), "accept", "exact", bytes(32))
KEYS = {each.peer: each.bls_public for each in PEOPLE}


def _certificates() -> list[bytes]:
    votes = {each.peer: each.bls_sign(STATEMENT.message) for each in PEOPLE}
    return [codec.encode(assemble(STATEMENT, votes)), codec.encode(assemble(STATEMENT, dict(list(votes.items())[:2])))]


@target("certificate", _certificates)
def _certificate(raw: bytes) -> None:
    check(decoded(Certificate, raw), KEYS, quorum=2)


@text_target("calibration, JSON", lambda: [to_json(each) for each in SMALL])
def _calibration_text(raw: bytes) -> None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    record = from_json(text)
    assert from_json(to_json(record)).hash == record.hash


@target("calibration, signed", lambda: [sign(person("worker"), each).raw for each in SMALL])
def _calibration(raw: bytes) -> None:
    signed = load(raw)
    assert signed.raw == raw
    assert all(math.isfinite(limit) for limit in signed.record.thresholds.values())


@target("ledger entry", lambda: vectors("entry-v1.json")[:6], InvalidEntry, repair=repaired_entry)
def _entry(raw: bytes) -> None:
    entry = decode_entry(raw)
    assert codec.encode(entry) == raw
    check_entry(entry)
    if isinstance(entry.body, Receipt):
        decode_certificates(entry.body)


def _forks() -> list[bytes]:
    from ledger.entry import Release, sign_entry
    from ledger.fork import prove as prove_fork

    one, other = (
        sign_entry(Key(1), 3, bytes(32), Release(bytes(32), bytes(32), word), 5) for word in ("cancelled", "expired")
    )
    return [codec.encode(prove_fork(one, other))]


@target("fork proof", _forks, InvalidEntry)
def _fork(raw: bytes) -> None:
    check_fork(decoded(ForkProof, raw))


def _pages() -> list[bytes]:
    entries = list(make_vectors.good().values())
    own = [each for each in entries if each.header.author == Key(1).peer]
    return [codec.encode(Page(own[:count], len(own), [])) for count in range(len(own) + 1)]


@target("ledger page", _pages, RemoteError)
def _page(raw: bytes) -> None:
    check_page(Key(2).peer, Fetch(Key(1).peer, 0, 8), decoded(Page, raw))


@target("shared operation", lambda: list(op_vectors.accepted().values()))
def _operation(raw: bytes) -> None:
    assert parse(raw).verify().raw == raw


@target("DHT record", lambda: vectors("dht-record-v1.json")[:3])
def _record(raw: bytes) -> None:
    validate(decoded(Envelope, raw), RULES, START_MS)


def _relay_ads() -> list[bytes]:
    name = to_text(PEOPLE[0].peer)
    several = [f"/ip4/203.0.113.{number}/tcp/4001/p2p/{name}" for number in range(8)]
    return [codec.encode(relay.RelayAd(several[:count], load)) for count, load in ((1, 0.0), (2, 0.5), (8, 1.0))]


@target("relay ad", _relay_ads)
def _relay_ad(raw: bytes) -> None:
    record = Record(relay.NAMESPACE, relay.KEY, 1, START_MS, START_MS + 1000, raw)
    ad = relay.parse(record, PEOPLE[0].peer)
    assert all(address.endswith(to_text(PEOPLE[0].peer)) for address in ad.addresses)
    assert 0 <= ad.load <= 1


def _equivocations() -> list[bytes]:
    signer = person("worker")
    records = [dht_vectors.value(body=body) for body in (b"one", b"two")]
    one, two = sorted((seal(signer, DHT_DOMAIN, each) for each in records), key=lambda envelope: envelope.id)
    return [codec.encode(Equivocation(one, two))]


@target("DHT equivocation", _equivocations)
def _equivocation(raw: bytes) -> None:
    decoded(Equivocation, raw).author()


@target("DHT request", lambda: values(dht_messages.Request, 64))
def _request(raw: bytes) -> None:
    decoded(dht_messages.Request, raw).check()


@target("DHT reply", lambda: values(dht_messages.Reply, 64))
def _reply(raw: bytes) -> None:
    decoded(dht_messages.Reply, raw).check()


def _from_worker() -> list[bytes]:
    from tests.verify.world import SALT
    from verify.commitment import commit

    output, trace = answer()
    promise = seal(person("worker"), "commitment", commit(spec().id, output, trace, SALT))
    frames: list[Any] = [Committed([promise, promise]), Delivered(Inline(codec.encode(Answered(output, trace))), SALT)]
    return [codec.encode(each) for each in frames] + [
        raw for kind in (Hired, Declined, Working) for raw in values(kind, 8)
    ]


@target("market frame of a worker", _from_worker)
def _worker_frame(raw: bytes) -> None:
    frame = decoded(HIRE.answer, raw)
    if isinstance(frame, Committed):
        for promise in frame.commitments:
            unseal(promise, "commitment", Commitment, author=person("worker").peer)
    elif isinstance(frame, Delivered) and isinstance(frame.answer, Inline):
        answered = decoded(Answered, frame.answer.content)
        answered.output.check()
        answered.trace.check()


def _hires() -> list[bytes]:
    from tests.verify.climb import NONCE, asks_for

    offer = vectors("entry-v1.json")[0]
    first, *above = [ask.spec for ask in asks_for(LEVELS[:2], peers=3)]
    alone = Hire(seal(person("requester"), "job", spec()), offer, [], b"")
    return [codec.encode(alone), codec.encode(Hire(first, offer, above, NONCE))]


@target("market frame: hire", _hires, LocalError, InvalidEntry)
def _hire(raw: bytes) -> None:
    hire = decoded(Hire, raw)
    specs = [unseal(each, "job", JobSpec, author=person("requester").peer) for each in (hire.spec, *hire.above)]
    check_input(specs[0])
    check_entry(decode_entry(hire.offer))
    if hire.nonce:
        check_ladder(specs, LEVELS[:2], hire.nonce)


@target("market frame: paid", lambda: [codec.encode(Paid(bytes(32), [each.key_record() for each in PEOPLE]))])
def _paid(raw: bytes) -> None:
    for record in decoded(Paid, raw).keys:
        check_key_record(record)


@target("tensors", lambda: [codec.encode(answer()[0]), *values(Output, 16)])
def _tensors(raw: bytes) -> None:
    output = decoded(Output, raw)
    output.check()
    for tensor in output.tensors.values():
        assert tensor.numpy().shape == tuple(tensor.shape)


@target("receipt, here and in the SDK", lambda: vectors("receipt-v1.json"))
def _receipt(raw: bytes) -> None:
    """Both readers say the same: the verdict, or the name of the first fault."""
    from verify.faults import Fault
    from verify.receipt import check as check_receipt
    from verify.receipt import decode

    try:
        here = check_receipt(decode(raw)).verdict
    except Fault as exc:
        here = cast(Any, exc.code)
    try:
        there = verify_receipt(raw, bls=SDK_BLS).verdict
    except InvalidReceipt as exc:
        there = exc.reason
    assert here == there, f"{here} here, {there} in the SDK"


def _bodies() -> list[str]:
    inputs: list[dict[str, Any]] = [{"prompt": "x", "tokens_max": 4}, {"label": 3, "steps": 4}, {"texts": ["a", "b"]}]
    kinds = [("text.generate", "bytes-gpt"), ("image.generate", "digits-ddim"), ("embed.text", "ngram-embed")]
    options = {"lane": "exact", "policy": "quorum:3", "seed": 7, "budget_micro": 20, "timeout_s": 6.0, "retries": 2}
    named = {"calibration": next(iter(calibrations())).hex()}
    return [
        json.dumps({"kind": kind, "model": model, "input": given, **options, **extra})
        for (kind, model), given in zip(kinds, inputs, strict=True)
        for extra in ({}, named)
    ]


@target("light peers: request", lambda: light_vectors.good(light_vectors.REQUESTS))
def _light_request(raw: bytes) -> None:
    canonical(raw, decode_light_request(raw))


@target("light peers: reply", lambda: light_vectors.good(light_vectors.REPLIES))
def _light_reply(raw: bytes) -> None:
    canonical(raw, decode_light_reply(raw))


@text_target("job of a user, JSON", _bodies, NotServed)
def _body(raw: bytes) -> None:
    try:
        body = json.loads(raw)
    except ValueError:
        return
    parse_job(body, MODELS, random_seed=1)


@text_target("peer id", lambda: [json.dumps([to_text(each.peer), MODELS[0].cid]) for each in PEOPLE])
def _peer_id(raw: bytes) -> None:
    try:
        found = json.loads(raw)
    except ValueError:
        return
    texts = found if isinstance(found, list) else [found]
    for at, read in enumerate((lambda text: to_text(from_text(text)) == text, lambda text: len(to_digest(text)) == 32)):
        if at < len(texts) and isinstance(texts[at], str):
            assert read(texts[at])
