"""Evidence convinces anybody offline, frames nobody, and each way to falsify it has a name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from tests.verify.evidence_vectors import BAD_STEP, PATH, Toy, Trial, claim, document, record
from tests.verify.world import person
from verify.evidence import EVIDENCE_BYTES_MAX, Bundle, Conviction, Step, Tensors, build, check, decode, state_count
from verify.faults import Fault
from wire import codec
from wire.errors import LocalError
from wire.job import EmbedInput, JobSpec, Output, Receipt, Trace
from wire.tensor import Tensor

VECTORS = json.loads(PATH.read_text())["vectors"]
RECORDS = {record().hash: record()}


def convicted(raw: bytes) -> Conviction:
    return check(decode(raw), Toy(), RECORDS)


def outcome(raw: bytes) -> str:
    try:
        return convicted(raw).fault
    except Fault as fault:
        return fault.code


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_evidence_vector(vector: dict[str, str]) -> None:
    """Each vector names what it convicts of, or the one reason why it must fail."""
    assert outcome(bytes.fromhex(vector["hex"])) == vector["expect"]


def test_the_vectors_are_what_the_generator_writes() -> None:
    assert PATH.read_text() == document()


def test_every_fault_of_the_specification_has_a_vector_or_a_test() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "evidence.md").read_text()
    specified = set(re.findall(r"^\| \d+ \| `([a-z.]+)`", page, flags=re.MULTILINE))
    here = {"evidence.calibration", "evidence.size", "evidence.fingerprint"}
    assert specified - here == {v["expect"] for v in VECTORS if v["expect"].startswith("evidence.")}


def test_a_conviction_names_peer_job_and_fault() -> None:
    trial = Trial(claim(bad=True))
    found = convicted(codec.encode(trial.step()))
    assert (found.peer, found.job, found.root) == (person("worker").peer, trial.spec.id, trial.root)
    assert (found.fault, found.measure, found.step, found.juror) == ("step", "step", BAD_STEP, trial.jury[0])
    assert (found.distance, found.threshold) == (1.0, record().thresholds["step"])
    assert found.claimed == 1.0


def test_what_is_built_holds_and_every_proof_of_one_cheat_has_one_name() -> None:
    """Whoever sends it, by whichever juror's word: a reader keeps one conviction per answer."""
    trial = Trial(claim(bad=True))
    step = trial.step().shown
    assert isinstance(step, Step)
    whole = Tensors(trial.output, trial.trace)
    built = [build(trial.receipt, juror, "step", shown) for juror in trial.jury for shown in (whole, step.opening)]
    assert len({convicted(raw).id for raw in built}) == 1
    other = Trial(claim(bad=True), nonce=1)
    assert convicted(codec.encode(other.tensors())).id != convicted(built[0]).id


def test_building_needs_a_rejection_and_its_measure() -> None:
    trial = Trial(claim(bad=True))
    shown = Tensors(trial.output, trial.trace)
    with pytest.raises(Fault, match=r"evidence\.juror"):
        build(trial.receipt, person("requester").peer, "step", shown)
    with pytest.raises(Fault, match=r"evidence\.measure"):
        build(trial.receipt, trial.jury[0], "cosine", shown)
    big = Tensor("u1", [EVIDENCE_BYTES_MAX // 2], bytes(EVIDENCE_BYTES_MAX // 2))
    with pytest.raises(Fault, match=r"evidence\.size"):
        build(trial.receipt, trial.jury[0], "step", Tensors(Output({"a": big, "b": big}), Trace({})))


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(Fault, match=r"evidence\.size"):
        decode(bytes(EVIDENCE_BYTES_MAX + 1))


def test_thresholds_that_we_do_not_know_convict_nobody() -> None:
    bundle = Trial(claim(bad=True)).tensors()
    unsure = msgspec.structs.replace(record(), certified=False)
    for records in ({}, {record().hash: unsure}):
        with pytest.raises(Fault, match=r"evidence\.calibration"):
            check(bundle, Toy(), records)


def test_a_referee_that_cannot_compute_says_nothing_about_the_bundle() -> None:
    class Without(Toy):
        def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
            raise LocalError("no such model here")

    with pytest.raises(LocalError, match="no such model"):
        check(Trial(claim(bad=True)).step(), Without(), RECORDS)


def test_only_kinds_with_steps_have_states() -> None:
    trial = Trial(claim(bad=True))
    assert state_count(trial.spec) == 9
    texts = msgspec.structs.replace(trial.spec, kind="embed.text", inputs=codec.encode(EmbedInput(["a"])))
    with pytest.raises(LocalError, match="no steps"):
        state_count(texts)


def test_flipping_any_single_bit_of_a_byte_is_noticed() -> None:
    """Every byte is under some check; a sample of positions, each with another bit."""
    raw = codec.encode(Trial(claim(bad=True)).step())
    good = convicted(raw)
    for at in range(0, len(raw), max(1, len(raw) // 120)):
        changed = raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :]
        try:
            assert convicted(changed).id == good.id, f"byte {at}"
        except Fault:
            continue
        raise AssertionError(f"byte {at} may be anything")


def test_a_step_is_shown_in_few_bytes() -> None:
    bundle = Trial(claim(bad=True)).step()
    beside = len(codec.encode(bundle)) - len(codec.encode(bundle.receipt))
    assert isinstance(bundle, Bundle)
    assert isinstance(bundle.receipt, Receipt)
    assert beside < 1000


def test_a_reader_without_the_fingerprint_convicts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify.evidence.FINGERPRINTS", {})
    with pytest.raises(Fault, match=r"evidence\.fingerprint"):
        check(Trial(claim(bad=True)).tensors(), Toy(), RECORDS)
