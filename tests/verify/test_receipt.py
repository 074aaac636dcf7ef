"""Receipts hold offline, and each way to falsify one has a name."""

from __future__ import annotations

import json

import pytest

from tests.verify.receipt_vectors import PATH, Forge, document
from tests.verify.world import person, spec
from verify.faults import Fault
from verify.receipt import Summary, check, decode
from wire import codec
from wire.job import Receipt

VECTORS = json.loads(PATH.read_text())["vectors"]


def outcome(raw: bytes) -> str:
    try:
        return check(decode(raw)).verdict
    except Fault as fault:
        return fault.code


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_receipt_vector(vector: dict[str, str]) -> None:
    """Each vector names its verdict or the one reason why it must fail."""
    assert outcome(bytes.fromhex(vector["hex"])) == vector["expect"]


def test_the_vectors_are_what_the_generator_writes() -> None:
    assert PATH.read_text() == document()


def test_every_fault_of_the_specification_has_a_vector() -> None:
    from pathlib import Path

    lines = (Path(__file__).parents[2] / "docs" / "spec" / "receipt.md").read_text().splitlines()
    rows = [line.split("|") for line in lines if line.startswith("| ") and line[2].isdigit()]
    specified = {row[2].strip().strip("`") for row in rows}
    assert len(specified) == 30
    assert specified | {"accept", "reject", "unaudited"} == {vector["expect"] for vector in VECTORS}


def test_a_summary_says_who_and_what() -> None:
    forge = Forge(("accept", "reject", "accept"), (0, 2, 3))
    summary = check(forge.receipt())
    assert isinstance(summary, Summary)
    assert (summary.spec, summary.worker, summary.replaced) == (spec(), person("worker").peer, 1)
    assert [(each.rank, each.verdict) for each in summary.jury] == [(0, "accept"), (2, "reject"), (3, "accept")]
    assert summary.jury[1].distances == {"cosine": 0.5, "relative": 0.5**0.5}


def test_flipping_any_single_bit_of_a_byte_is_noticed() -> None:
    """Every byte of a receipt is under some check; a sample of 150 positions, each with another bit."""
    raw = codec.encode(Forge().receipt())
    step = max(1, len(raw) // 150)
    for at in range(0, len(raw), step):
        changed = raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :]
        assert outcome(changed) not in ("accept", "reject", "unaudited"), f"byte {at}"


def test_a_receipt_too_large_is_refused_before_it_is_read() -> None:
    assert outcome(bytes(1 << 20)) == "encoding"


def test_receipts_of_a_jury_of_three_are_small() -> None:
    raw = codec.encode(Forge().receipt())
    assert len(raw) < 6000
    assert decode(raw) == codec.decode(Receipt, raw)
