"""A juror votes once, in the dark, and opens its vote only to a full jury."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.verify.world import (
    ACCEPTED,
    DEADLINE_MS,
    HONEST,
    REJECTED,
    SALT,
    ask_for,
    calibration,
    juror_name,
    jurors,
    names,
    person,
    ruled,
    spec,
    started,
)
from verify.case import seal_of
from verify.juror import CASES_PER_REQUESTER_MAX, CLOCK_SKEW_MS, AskRefused, Juror
from verify.messages import JuryAsk, RevealAsk
from verify.round import Round
from verify.verdict import abstain, inconclusive
from wire import bls, codec
from wire.envelope import Envelope, seal, unseal
from wire.errors import Busy
from wire.hashing import digest
from wire.job import EmbedInput, JobSpec, JurorCommit, JurorReveal, KeyRecord, Output
from wire.tensor import from_numpy

NOW_MS = DEADLINE_MS - 1000
REQUESTER = person("requester").peer


def full_jury(job: JobSpec | None = None) -> tuple[list[Juror], RevealAsk, JuryAsk]:
    """Three jurors in draw order that have sealed `accept`, and the request to reveal."""
    ask = ask_for(job or spec())
    round_, order = started()
    cast = jurors()
    three = [cast[peer] for peer in order[:3]]
    commits = [ruled(juror, ask, HONEST).said for juror in three]
    return three, RevealAsk(round_.case.job, round_.case.root, commits), ask


def test_an_honest_answer_is_accepted_in_secret_then_in_the_open() -> None:
    three, reveal_ask, _ = full_jury()
    sealed = unseal(reveal_ask.commits[0], "juror.commit", JurorCommit)
    opened = unseal(three[0].reveal(REQUESTER, reveal_ask), "juror.reveal", JurorReveal)
    assert opened.verdict == "accept"
    assert opened.distances == {"cosine": 0.0, "relative": 0.0}
    assert sealed.seal == seal_of(reveal_ask.commits[0].author, opened)


def test_the_vote_is_signed_for_this_jury_and_no_other() -> None:
    three, reveal_ask, _ = full_jury()
    round_, order = started()
    opened = unseal(three[0].reveal(REQUESTER, reveal_ask), "juror.reveal", JurorReveal)
    key = unseal(person(names(7)[order[0]]).key_record(), "keys", KeyRecord).bls
    assert bls.verify(key, round_.case.statement("accept", order[:3]).message, opened.signature)
    assert not bls.verify(key, round_.case.statement("accept", order[1:4]).message, opened.signature)
    assert not bls.verify(key, round_.case.statement("reject", order[:3]).message, opened.signature)


def test_asking_again_yields_the_same_bytes_even_after_losing_all_memory() -> None:
    ask = ask_for(spec())
    name = juror_name(0)
    known = {calibration().hash: calibration()}
    first, reborn = Juror(person(name), known), Juror(person(name), known)
    assert ruled(first, ask, HONEST) == ruled(first, ask, REJECTED) == ruled(reborn, ask, HONEST)


def test_salts_differ_between_jurors_and_cases() -> None:
    """So equal verdicts have different seals, and a seal tells nothing before it is opened."""
    ask, other = ask_for(spec()), ask_for(spec(nonce=b"n" * 16))
    seals = set()
    for index in range(3):
        juror = Juror(person(juror_name(index)), {calibration().hash: calibration()})
        for each in (ask, other):
            seals.add(unseal(ruled(juror, each, HONEST).said, "juror.commit", JurorCommit).seal)
    assert len(seals) == 6


def test_a_copied_seal_cannot_be_opened_by_the_copier() -> None:
    """The seal is bound to its author, so a juror that repeats another's seal and later its reveal is caught."""
    three, reveal_ask, _ = full_jury()
    opened = unseal(three[0].reveal(REQUESTER, reveal_ask), "juror.reveal", JurorReveal)
    copied = unseal(reveal_ask.commits[0], "juror.commit", JurorCommit).seal
    copier = reveal_ask.commits[1].author
    assert seal_of(copier, opened) != copied


@pytest.mark.parametrize(
    "finding", [abstain("model", "no such model"), inconclusive("the run failed")], ids=lambda f: f.verdict
)
def test_having_no_vote_is_said_openly_at_once(finding: object) -> None:
    """Then the juror can be replaced before anybody has revealed a vote."""
    from verify.verdict import Finding

    assert isinstance(finding, Finding)
    answer = ruled(Juror(person("juror-0"), {calibration().hash: calibration()}), ask_for(spec()), finding)
    reveal = unseal(answer.said, "juror.reveal", JurorReveal)
    assert (reveal.verdict, reveal.signature) == (finding.verdict, b"")


@pytest.mark.parametrize(
    ("changes", "known", "code"),
    [
        ({}, False, "calibration.unknown"),
        ({"fingerprint": "embed.cosine/f64/0"}, True, "fingerprint"),
        ({"numeric": "bf16"}, True, "calibration.subject"),
        ({"lane": "exact"}, True, "fingerprint"),
    ],
    ids=["unknown calibration", "other fingerprint version", "other numeric class", "other lane"],
)
def test_a_juror_that_cannot_judge_abstains_and_names_the_reason(
    changes: dict[str, Any], known: bool, code: str
) -> None:
    juror = Juror(person("juror-0"), {calibration().hash: calibration()} if known else {})
    hearing = juror.consider(REQUESTER, ask_for(spec(**changes)), now_ms=NOW_MS)
    reveal = unseal(juror.rule(hearing).said, "juror.reveal", JurorReveal)
    assert (reveal.verdict, reveal.distances) == ("abstain", {f"abstain.{code}": 1.0})


def test_a_calibration_that_does_not_separate_is_not_used() -> None:
    uncertified = msgspec.structs.replace(calibration(), certified=False, inseparable=["int8"])
    juror = Juror(person("juror-0"), {uncertified.hash: uncertified})
    hearing = juror.consider(REQUESTER, ask_for(spec(calibration=uncertified.hash)), now_ms=NOW_MS)
    assert hearing.finding is not None
    assert "separate" in hearing.finding.why


def test_a_claim_that_cannot_be_compared_is_rejected_without_running_anything() -> None:
    job = spec(inputs=codec.encode(EmbedInput(["only one text"])))
    juror = Juror(person("juror-0"), {calibration().hash: calibration()})
    hearing = juror.consider(REQUESTER, ask_for(job), now_ms=NOW_MS)
    assert hearing.finding is not None
    assert (hearing.finding.verdict, dict(hearing.finding.distances)) == ("reject", {"refused.length": 1.0})
    assert not hearing.needs_run
    assert juror.rule(hearing).said.domain == "juror.commit"


def tampered(ask: JuryAsk, **changes: object) -> JuryAsk:
    return msgspec.structs.replace(ask, **changes)


def other_output() -> Output:
    import numpy as np

    return Output({"vectors": from_numpy(np.ones((3, 8), np.float32))})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"secret": bytes(32)}, "beacon"),
        ({"pool": []}, "pool"),
        ({"salt": bytes(32)}, "opening"),
        ({"output": other_output()}, "opening"),
        ({"commitment": seal(person("worker"), "job", spec())}, "commitment"),
        ({"spec": Envelope("job", REQUESTER, codec.encode(spec()), bytes(64))}, "spec"),
        ({"spec": seal(person("worker"), "job", spec())}, "spec.requester"),
        ({"spec": seal(person("requester"), "job", spec(jury_size=2))}, "spec.jury_size"),
        ({"spec": seal(person("requester"), "job", spec(nonce=b"n" * 16))}, "commitment.job"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_material_that_is_not_in_order_is_refused_and_blamed_on_the_sender(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(AskRefused) as caught:
        jurors()[person("juror-0").peer].consider(REQUESTER, tampered(ask_for(spec()), **changes), now_ms=NOW_MS)
    assert (caught.value.code, caught.value.peer) == (code, REQUESTER)


def test_only_the_requester_may_ask() -> None:
    stranger = person("stranger").peer
    with pytest.raises(AskRefused) as caught:
        jurors()[person("juror-0").peer].consider(stranger, ask_for(spec()), now_ms=NOW_MS)
    assert (caught.value.code, caught.value.peer) == ("sender", stranger)


def test_a_stale_job_is_refused() -> None:
    with pytest.raises(AskRefused, match="stale"):
        jurors()[person("juror-0").peer].consider(REQUESTER, ask_for(spec()), now_ms=DEADLINE_MS + CLOCK_SKEW_MS + 1)


@pytest.mark.parametrize("name", ["worker", "requester", "stranger"])
def test_who_cannot_be_drawn_does_not_judge(name: str) -> None:
    with pytest.raises(AskRefused, match="drawn"):
        Juror(person(name), {}).consider(REQUESTER, ask_for(spec()), now_ms=NOW_MS)


def test_an_early_reveal_is_refused() -> None:
    three, reveal_ask, _ = full_jury()
    for commits in (reveal_ask.commits[:2], []):
        with pytest.raises(AskRefused, match="sealed votes"):
            three[0].reveal(REQUESTER, RevealAsk(reveal_ask.job, reveal_ask.root, commits))


def test_a_jury_without_our_own_seal_is_refused() -> None:
    ask = ask_for(spec())
    round_, order = started()
    cast = jurors()
    commits = [ruled(cast[peer], ask, HONEST).said for peer in order[:4]]
    with pytest.raises(AskRefused, match="not among"):
        cast[order[0]].reveal(REQUESTER, RevealAsk(round_.case.job, round_.case.root, commits[1:]))


def test_our_seat_with_another_seal_is_refused() -> None:
    three, reveal_ask, _ = full_jury()
    forged = seal(
        person(names(7)[reveal_ask.commits[0].author]),
        "juror.commit",
        JurorCommit(reveal_ask.job, reveal_ask.root, bytes(32)),
    )
    with pytest.raises(AskRefused, match="not among"):
        three[0].reveal(REQUESTER, RevealAsk(reveal_ask.job, reveal_ask.root, [forged, *reveal_ask.commits[1:]]))


def test_a_jury_out_of_order_or_counted_twice_is_refused() -> None:
    three, reveal_ask, _ = full_jury()
    one, two, _ = reveal_ask.commits
    for commits in (reveal_ask.commits[::-1], [one, two, two], [one, one, two]):
        with pytest.raises(AskRefused, match="jury"):
            three[0].reveal(REQUESTER, RevealAsk(reveal_ask.job, reveal_ask.root, commits))


def test_seals_of_another_answer_are_refused() -> None:
    three, reveal_ask, _ = full_jury()
    two = person(names(7)[reveal_ask.commits[1].author])
    stale = seal(two, "juror.commit", JurorCommit(reveal_ask.job, bytes(32), bytes(32)))
    with pytest.raises(AskRefused) as caught:
        three[0].reveal(
            REQUESTER,
            RevealAsk(reveal_ask.job, reveal_ask.root, [reveal_ask.commits[0], stale, reveal_ask.commits[2]]),
        )
    assert caught.value.code == "commit.job"


def test_a_forged_seal_is_refused() -> None:
    three, reveal_ask, _ = full_jury()
    two = reveal_ask.commits[1]
    forged = Envelope(two.domain, two.author, two.body, bytes(64))
    with pytest.raises(AskRefused) as caught:
        three[0].reveal(
            REQUESTER,
            RevealAsk(reveal_ask.job, reveal_ask.root, [reveal_ask.commits[0], forged, reveal_ask.commits[2]]),
        )
    assert caught.value.code == "commit"


def test_revealing_again_to_the_same_jury_repeats_and_to_another_is_refused() -> None:
    ask = ask_for(spec())
    round_, order = started()
    cast = jurors()
    commits = {peer: ruled(cast[peer], ask, HONEST).said for peer in order[:4]}
    first = RevealAsk(round_.case.job, round_.case.root, [commits[peer] for peer in order[:3]])
    second = RevealAsk(round_.case.job, round_.case.root, [commits[order[i]] for i in (0, 1, 3)])
    assert cast[order[0]].reveal(REQUESTER, first) == cast[order[0]].reveal(REQUESTER, first)
    with pytest.raises(AskRefused, match="another jury"):
        cast[order[0]].reveal(REQUESTER, second)


def test_a_reveal_of_nothing_is_refused() -> None:
    juror = jurors()[person("juror-0").peer]
    with pytest.raises(AskRefused, match="sealed no vote"):
        juror.reveal(REQUESTER, RevealAsk(bytes(32), bytes(32), []))


def test_cases_per_requester_are_bounded_and_expire() -> None:
    juror = jurors()[person("juror-0").peer]
    for index in range(CASES_PER_REQUESTER_MAX):
        juror.consider(REQUESTER, ask_for(spec(nonce=index.to_bytes(16, "big"))), now_ms=NOW_MS)
    extra = ask_for(spec(nonce=b"x" * 16, deadline_ms=DEADLINE_MS * 2))
    with pytest.raises(Busy):
        juror.consider(REQUESTER, extra, now_ms=NOW_MS)
    juror.consider(REQUESTER, extra, now_ms=DEADLINE_MS + CLOCK_SKEW_MS + 1)


def test_a_closed_case_makes_room_and_keeps_its_one_vote() -> None:
    """A requester may have many answers judged one after another, and still nobody votes in two juries for one."""
    cast = jurors()
    shown = []
    for index in range(CASES_PER_REQUESTER_MAX + 1):
        ask = ask_for(spec(nonce=index.to_bytes(16, "big")))
        case = Round(ask).case
        said = [ruled(cast[peer], ask, HONEST).said for peer in case.order[:3]]
        show = RevealAsk(case.job, case.root, said)
        shown.append((ask, cast[case.order[0]], show, [cast[peer].reveal(REQUESTER, show) for peer in case.order[:3]]))
    ask, juror, show, votes = shown[0]
    assert juror.reveal(REQUESTER, show) == votes[0]
    assert ruled(juror, ask, HONEST).said == show.commits[0]


def test_two_roots_of_one_job_are_two_cases() -> None:
    juror = jurors()[person("juror-0").peer]
    job = spec()
    one = juror.rule(juror.consider(REQUESTER, ask_for(job, salt=SALT), now_ms=NOW_MS), ACCEPTED)
    two = juror.rule(juror.consider(REQUESTER, ask_for(job, salt=digest("test", b"2")), now_ms=NOW_MS), ACCEPTED)
    assert one.said.body != two.said.body
