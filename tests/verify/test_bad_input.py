"""Bad input, kind by kind: each is refused by the name of its fault, and earns nothing, not even in part.

Most of it is tested where it belongs; `ELSEWHERE` says where, and a test holds it to that. Here is what is left: what
becomes of a vote, a batch or a dispute *after* a refusal, and the refusals of the market.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from dht.provider import ProviderAd
from node.keys import Keyring
from node.market.context import Context
from node.market.refuse import Refuse, check_spec
from tests.dht.coreworld import an_ad
from tests.verify import climb
from tests.verify.test_round import Play, blamed
from tests.verify.test_sampling import TIMING, WORKER, code, committed
from tests.verify.world import DEADLINE_MS, HONEST, ask_for, calibration, names, person, ruled, spec
from verify.bisection import Dispute, Ruling, StateBook, Terms
from verify.calibrated import calibrations
from verify.case import jury_hash, seal_of
from verify.juror import Juror
from verify.messages import JuryAnswer
from verify.receipt import check as check_receipt
from verify.round import Blame, Outcome
from verify.sampling import Sampling
from wire.certificate import assemble
from wire.envelope import seal, unseal
from wire.errors import Malformed
from wire.job import JobSpec, JurorCommit, JurorReveal, KeyRecord, Statement
from workloads.catalog import built_in
from workloads.executor import NUMERICS

TESTS = Path(__file__).parents[1]

ELSEWHERE: dict[str, list[str]] = {
    "a proof of the wrong length": [
        "verify/test_opening.py::test_another_opening_is_refused",
        "verify/test_sampling.py::test_openings_are_refused_by_name",
        "vectors/receipt-v1.json::a longer audit path",
        "vectors/evidence-v1.json::an audit path that is too long",
        "wire/test_bls.py::test_possession_is_proven_by_the_holder_only",
    ],
    "another version": [
        "vectors/receipt-v1.json::version 2",
        "vectors/receipt-v1.json::spec of version 2",
        "vectors/evidence-v1.json::version 2",
        "vectors/entry-v1.json::version 2",
        "verify/test_signed_calibration.py::test_a_record_that_contradicts_itself_is_not_signed_and_not_believed",
        "verify/test_juror.py::test_material_that_is_not_in_order_is_refused_and_blamed_on_the_sender",
    ],
    "another model or lane": [
        "verify/test_juror.py::test_a_juror_that_cannot_judge_abstains_and_names_the_reason",
        "verify/test_evidence.py::test_thresholds_that_we_do_not_know_convict_nobody",
        "vectors/receipt-v1.json::the certificate of another lane",
    ],
    "NaN and infinity": [
        "verify/test_fingerprints.py::test_what_cannot_be_compared_is_refused_by_name",
        "verify/test_opening.py::test_another_opening_is_refused",
        "vectors/receipt-v1.json::a distance that is no number",
        "vectors/evidence-v1.json::a state that is not finite",
        "recommend/test_graph.py::test_impossible_edges_are_refused_and_nothing_is_taken",
        "node/test_intake.py::test_a_number_out_of_range_is_answered_with_the_range",
    ],
    "an opening for an index that nobody asked for": [
        "verify/test_opening.py::test_another_opening_is_refused",
        "verify/test_sampling.py::test_openings_are_refused_by_name",
        "vectors/evidence-v1.json::the step next to it",
    ],
    "a certificate with a repeated, unknown or unproven key": [
        "wire/test_certificate.py::test_a_bad_certificate_is_refused",
        "wire/test_certificate.py::test_one_key_under_two_names_counts_once_or_not_at_all",
        "wire/test_certificate.py::test_a_rogue_key_cannot_stand_without_possession",
        "vectors/receipt-v1.json::two signers with one BLS key",
        "vectors/receipt-v1.json::possession of another key proven",
        "vectors/receipt-v1.json::another juror's key and proof",
        "ledger/test_chain.py::test_a_payers_cheat_is_invalid",
        "node/test_keys.py::test_a_certificate_is_unknown_until_every_key_is_there",
    ],
    "a jury of the wrong draw": [
        "verify/test_juror.py::test_who_cannot_be_drawn_does_not_judge",
        "verify/test_juror.py::test_a_jury_out_of_order_or_counted_twice_is_refused",
        "vectors/receipt-v1.json::jurors out of draw order",
        "vectors/receipt-v1.json::a juror from outside the pool",
        "vectors/receipt-v1.json::the worker judges itself",
        "ledger/test_chain.py::test_a_stranger_cannot_take_a_share",
    ],
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_is_tested_elsewhere_is_there(kind: str) -> None:
    for place in ELSEWHERE[kind]:
        file, _, name = place.partition("::")
        text = (TESTS / file).read_text()
        if file.endswith(".json"):
            found = json.loads(text)
            known = [row["name"] for row in (found["vectors"] if isinstance(found, dict) else found)]
        else:
            known = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        assert name in known, place


# ---- votes: the others decide, and whoever broke a rule is not paid

Bad = Callable[[Play, JurorReveal], JurorReveal]


def _statement(play: Play, **changes: Any) -> Statement:
    return msgspec.structs.replace(play.round.case.statement("accept", play.round.jury), **changes)


def _signed(play: Play, reveal: JurorReveal, **changes: Any) -> JurorReveal:
    """The second juror's vote, signed for another statement than that of this case."""
    signature = person(names(7)[play.order[1]]).bls_sign(_statement(play, **changes).message)
    return msgspec.structs.replace(reveal, signature=signature)


def _replace(**changes: Any) -> Bad:
    return lambda _, reveal: msgspec.structs.replace(reveal, **changes)


VOTES: dict[str, tuple[str, Bad]] = {
    "a distance that is no number": ("reveal.distances", _replace(distances={"cosine": float("nan")})),
    "an infinite distance": ("reveal.distances", _replace(distances={"cosine": float("inf")})),
    "a vote for another job": ("reveal.job", _replace(job=bytes(32))),
    "a vote on another answer": ("reveal.job", _replace(root=bytes(32))),
    "another verdict than was sealed": ("reveal.seal", _replace(verdict="reject")),
    "a short signature": ("reveal.vote", lambda _, r: msgspec.structs.replace(r, signature=r.signature[:-1])),
    "a long signature": ("reveal.vote", lambda _, r: msgspec.structs.replace(r, signature=r.signature + b"\0")),
    "a signature for another lane": ("reveal.vote", lambda play, r: _signed(play, r, lane="exact")),
    "a signature for another verdict": ("reveal.vote", lambda play, r: _signed(play, r, verdict="reject")),
    "a signature for a jury of another draw": (
        "reveal.vote",
        lambda play, r: _signed(play, r, jury=jury_hash(play.order[1:4])),
    ),
}


def _played(bad: Bad, cheats: int) -> tuple[Outcome, list[Blame], Play]:
    """A round of three in which the last `cheats` jurors open something else."""
    play = Play()
    for index in range(3):
        play.seal(index)
    faults: list[Blame] = []
    for index in range(3):
        if index < 3 - cheats:
            play.reveal(index)
            continue
        signer = person(names(7)[play.order[index]])
        opened = bad(play, unseal(play.opened(index), "juror.reveal", JurorReveal))
        actions = play.round.on_reveal(0.0, signer.peer, seal(signer, "juror.reveal", opened))
        faults += [action for action in actions if isinstance(action, Blame)]
    return play.finish(), faults, play


@pytest.mark.parametrize("name", VOTES)
def test_a_bad_vote_is_named_and_only_the_others_are_paid(name: str) -> None:
    fault, bad = VOTES[name]
    outcome, faults, play = _played(bad, 1)
    assert [(blame.peer, blame.reason.split(":")[0]) for blame in faults] == [(play.order[2], fault)]
    assert (outcome.verdict, outcome.paid) == ("accept", tuple(play.order[:2]))
    assert outcome.receipt.certificate is not None
    assert set(outcome.receipt.certificate.signers) == set(play.order[:2])
    assert check_receipt(outcome.receipt).verdict == "accept"


@pytest.mark.parametrize("name", VOTES)
def test_without_a_majority_of_good_votes_nobody_is_paid(name: str) -> None:
    outcome, faults, _ = _played(VOTES[name][1], 2)
    assert len(faults) == 2
    assert (outcome.verdict, outcome.paid, outcome.receipt.certificate) == ("unaudited", (), None)
    assert check_receipt(outcome.receipt).verdict == "unaudited"


def test_a_seal_for_a_distance_that_is_no_number_cannot_be_opened_either() -> None:
    """The seal holds, what it hides does not."""
    play = Play()
    signer, case = person(names(7)[play.order[0]]), play.round.case
    hidden = JurorReveal(case.job, case.root, "accept", {"cosine": float("nan")}, bytes(32), bytes(32), b"")
    sealed = JurorCommit(case.job, case.root, seal_of(signer.peer, hidden))
    play.round.on_answer(0.0, signer.peer, JuryAnswer(seal(signer, "juror.commit", sealed), signer.key_record()))
    for index in (1, 2):
        play.seal(index)
    actions = play.round.on_reveal(0.0, signer.peer, seal(signer, "juror.reveal", hidden))
    assert blamed(actions) == [signer.peer]
    for index in (1, 2):
        play.reveal(index)
    assert signer.peer not in play.finish().paid


def test_an_answer_for_another_model_or_lane_earns_no_vote() -> None:
    """The thresholds are for something else, so no juror has a vote to be paid for."""
    changes: list[dict[str, Any]] = [{"model": "another"}, {"numeric": "bf16"}, {"lane": "exact"}]
    for change in changes:
        juror = Juror(person("juror-0"), {calibration().hash: calibration()})
        answered = ruled(juror, ask_for(spec(**change)), HONEST)
        reveal = unseal(answered.said, "juror.reveal", JurorReveal)
        assert (reveal.verdict, reveal.signature) == ("abstain", b"")


# ---- batches and disputes


def test_a_batch_in_which_another_job_is_opened_than_was_picked_is_not_credited() -> None:
    batch, openings = committed(Sampling("draw", 3))
    unpicked = next(index for index in range(10) if index not in batch.picked)
    for opening in openings[:2]:
        batch.on_opening(2, WORKER, opening)
        batch.on_verdict(3, opening.index, "accept")
    assert code(batch.on_opening(4, WORKER, msgspec.structs.replace(openings[2], index=unpicked))) == "opening.index"
    actions = batch.on_tick(1 + TIMING.open_s)
    assert actions
    assert batch.outcome is not None
    assert not batch.outcome.credited


def test_a_side_that_opens_another_index_than_was_asked_loses_the_dispute() -> None:
    right, wrong = climb.states_of(honest=True), climb.states_of(honest=False)
    defender, challenger = person("worker"), person("juror-0")
    for liar, honest in ((defender, challenger), (challenger, defender)):
        dispute = Dispute(Terms(bytes(32), bytes(32), defender.peer, challenger.peer, len(right), right[0], 0.0))
        dispute.start(0.0)
        books = {defender: StateBook.of(bytes(32), bytes(32), wrong)}
        books[challenger] = StateBook.of(bytes(32), bytes(32), right)
        for side in (defender, challenger):
            dispute.on_entry(0.0, side.peer, books[side].enter(side))
        (ruling,) = dispute.on_opening(0.0, liar.peer, books[liar].open(1))
        assert isinstance(ruling, Ruling)
        assert (ruling.loser, ruling.fault) == (liar.peer, "dispute.opening")
        assert dispute.on_opening(0.0, honest.peer, books[honest].open(len(right) // 2)) == []


# ---- keys without proof


def test_a_key_without_proof_does_not_make_a_certificate_known() -> None:
    """Nothing is paid on a certificate whose keys are unknown, and an unproven key stays unknown."""
    keyring, people = Keyring(), [person(f"juror-{index}") for index in range(3)]
    statement = Statement(bytes(32), bytes(32), "accept", "exact", bytes(32))
    for signer in people[:2]:
        keyring.learn(signer.key_record(), author=signer.peer)
    unproven = seal(people[2], "keys", KeyRecord(people[2].bls_public, bytes(96)))
    with pytest.raises(Malformed, match="possession"):
        keyring.learn(unproven, author=people[2].peer)
    certificate = assemble(statement, {each.peer: each.bls_sign(statement.message) for each in people})
    assert keyring.check(certificate, quorum=2) == "unknown"
    assert keyring.check(msgspec.structs.replace(certificate, signers=[people[0].peer] * 2), quorum=2) == "invalid"


# ---- what the market takes and offers

EMBEDDING = next(model for model in built_in().capabilities().models if model.kind == "embed.text")
RECORD = next(each for each in calibrations().values() if (each.kind, each.lane) == ("embed.text", "tolerant"))


def _job(**changes: Any) -> JobSpec:
    fields = {"model": EMBEDDING.cid, "numeric": NUMERICS["tolerant"], "fingerprint": RECORD.fingerprint}
    return spec(**{**fields, "calibration": RECORD.hash, "price_micro": 10**6, **changes})


def _worker() -> Context:
    settings = SimpleNamespace(serve_unpaid=False, price_percent=100)
    now = SimpleNamespace(models=[EMBEDDING], calibrations=calibrations(), settings=settings)
    now.now_ms = lambda: DEADLINE_MS - 1000
    return cast(Context, now)


def test_a_job_in_order_is_taken() -> None:
    check_spec(_worker(), _job())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model": "another"}, "unknown_model"),
        ({"numeric": "bf16"}, "refused"),
        ({"lane": "exact"}, "refused"),
        ({"fingerprint": "embed.cosine/f64/0"}, "thresholds"),
        ({"calibration": bytes(32)}, "thresholds"),
        ({"calibration": bytes(31)}, "thresholds"),
        ({"jury_size": 4}, "refused"),
        ({"jury_size": -1}, "refused"),
        ({"jury_size": 23}, "refused"),
        ({"inputs": b""}, "refused"),
        ({"deadline_ms": 0}, "deadline"),
        ({"price_micro": 0}, "price"),
    ],
)
def test_a_worker_does_not_take_what_could_not_be_run_judged_or_paid(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Refuse) as caught:
        check_spec(_worker(), _job(**changes))
    assert caught.value.declined.code == word


@pytest.mark.parametrize("load", [float("nan"), float("inf"), -1.0])
def test_an_ad_with_a_load_that_is_no_number_is_refused(load: float) -> None:
    ad = cast(ProviderAd, msgspec.structs.replace(an_ad(), load=load))
    with pytest.raises(Malformed, match="load"):
        ad.check()


def test_a_vote_that_was_never_sealed_counts_for_nothing() -> None:
    play = Play()
    for index in range(3):
        play.seal(index)
    stranger = play.order[5]
    assert blamed(play.round.on_reveal(0.0, stranger, play.opened(0))) == [stranger]
    for index in range(3):
        play.reveal(index)
    outcome = play.finish()
    assert stranger not in outcome.paid
