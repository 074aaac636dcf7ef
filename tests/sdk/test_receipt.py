"""Receipts verified by code that shares nothing with the node's but the specification and its vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wire.job
from quorate import InvalidReceipt, Receipt, verify_receipt
from quorate import _structs as ours
from quorate._bls import Arkworks, Bls, Reference
from quorate._canonical import Envelope, digest, included, peer_text
from quorate._draw import draw_order, log2_fixed
from tests.sdk.receipts import ACCEPTED, ANSWER, BY_NAME, VECTORS
from verify import jury, receipt
from wire import hashing, merkle, peer
from wire.envelope import Envelope as WireEnvelope

ROOT = Path(__file__).parents[2]
INFINITY_KEY, INFINITY_SIGNATURE = b"\xc0" + bytes(47), b"\xc0" + bytes(95)


def outcome(raw: bytes, bls: Bls) -> str:
    try:
        return verify_receipt(raw, bls=bls).verdict
    except InvalidReceipt as exc:
        return exc.reason


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_each_vector_gives_its_verdict_or_its_one_fault(vector: dict[str, str]) -> None:
    assert outcome(bytes.fromhex(vector["hex"]), Arkworks()) == vector["expect"]


@pytest.mark.parametrize(
    "name",
    [
        "three jurors accept",
        "possession of another key proven",
        "another juror's key and proof",
        "an aggregate of fewer votes",
        "the point at infinity",
    ],
)
def test_the_reference_backend_says_the_same(name: str) -> None:
    assert outcome(BY_NAME[name], Reference()) == outcome(BY_NAME[name], Arkworks())


@pytest.mark.parametrize("bls", [Reference(), Arkworks()], ids=["py-ecc", "arkworks"])
def test_backends_refuse_what_is_no_point(bls: Bls) -> None:
    key = msgspec.msgpack.decode(msgspec.msgpack.decode(ACCEPTED)[8][0][2])[0]
    for bad in (b"", key[:47], bytes(48), b"\xff" * 48, INFINITY_KEY):
        assert not bls.possession(b"", bad, INFINITY_SIGNATURE)
        assert not bls.aggregate([bad], b"message", INFINITY_SIGNATURE)
    assert not bls.aggregate([], b"message", INFINITY_SIGNATURE)
    for bad in (b"", bytes(96), b"\xff" * 96, INFINITY_SIGNATURE):
        assert not bls.possession(bytes(32), key, bad)
        assert not bls.aggregate([key], b"message", bad)


@settings(max_examples=150)
@given(st.integers(0, len(ACCEPTED) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, flip: int) -> None:
    forged = ACCEPTED[:at] + bytes([ACCEPTED[at] ^ flip]) + ACCEPTED[at + 1 :]
    with pytest.raises(InvalidReceipt):
        verify_receipt(forged, bls=Arkworks())


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_noise_is_no_receipt(raw: bytes) -> None:
    assert outcome(raw, Arkworks()) == "encoding"


def test_a_receipt_may_be_bound_to_the_answer() -> None:
    assert verify_receipt(ACCEPTED, output=ANSWER).output_checked
    assert not verify_receipt(ACCEPTED).output_checked
    with pytest.raises(InvalidReceipt) as other:
        verify_receipt(ACCEPTED, output=ANSWER[:-1] + b"\x01")
    assert other.value.reason == "answer"


@pytest.mark.parametrize(
    "name", ["three jurors accept", "the second in order was passed over", "one juror sealed and fell silent"]
)
def test_the_summary_says_what_the_node_says(name: str) -> None:
    mine, theirs = verify_receipt(BY_NAME[name]), receipt.check(receipt.decode(BY_NAME[name]))
    assert mine.verdict == theirs.verdict
    assert mine.replaced == theirs.replaced
    assert [(j.peer, j.verdict) for j in mine.jurors] == [(peer.to_text(j.peer), j.verdict) for j in theirs.jury]
    assert (mine.price_micro, mine.fee_micro, mine.jury_size, mine.lane) == (1000, 100, 3, "tolerant")


def test_structs_have_the_fields_of_the_protocol() -> None:
    pairs: list[tuple[Any, Any]] = [(Envelope, WireEnvelope)]
    names = [
        "PoolMember",
        "JobSpec",
        "Commitment",
        "KeyRecord",
        "JurorCommit",
        "JurorReveal",
        "Statement",
        "Certificate",
        "Receipt",
    ]
    pairs += [(getattr(ours, name), getattr(wire.job, name)) for name in names]
    for mine, theirs in pairs:
        assert mine.__struct_fields__ == theirs.__struct_fields__


@given(st.binary(min_size=32, max_size=32))
def test_peers_are_written_as_the_node_writes_them(key: bytes) -> None:
    assert peer_text(key) == peer.to_text(peer.PeerId(key))


@given(st.text(max_size=12), st.lists(st.binary(max_size=40), max_size=4))
def test_hashes_are_those_of_the_node(domain: str, parts: list[bytes]) -> None:
    assert digest(domain, *parts) == hashing.digest(domain, *parts)


@given(st.integers(1, 40), st.data())
def test_audit_paths_hold_for_their_leaf_only(size: int, data: st.DataObject) -> None:
    leaves = [bytes([at]) for at in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(leaves, index)
    head = merkle.tree_head(leaves)
    claims = [(i, leaf) for i in range(-1, size + 1) for leaf in leaves if included(leaf, i, size, path, head)]
    assert claims == [(index, leaves[index])]


@given(st.integers(1, 2**64 - 1))
def test_logarithms_are_those_of_the_node(x: int) -> None:
    assert log2_fixed(x) == jury.log2_fixed(x)


@given(
    st.binary(min_size=32, max_size=32),
    st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(1, 2**32 - 1), max_size=12),
)
def test_draws_are_those_of_the_node(beacon: bytes, weights: dict[bytes, int]) -> None:
    pool = jury.pool_of({peer.PeerId(who): weight for who, weight in weights.items()})
    assert draw_order(beacon, weights.items()) == jury.draw_order(beacon, pool, frozenset())


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process that cannot make a socket."""
    code = (
        "import runpy, socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('a socket was opened')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
        "sys.argv[0] = 'quorate.receipt'\n"
        "runpy.run_module('quorate.receipt', run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], cwd=ROOT / "sdk", capture_output=True, text=True
    )


def test_the_command_line_says_what_a_receipt_proves(tmp_path: Path) -> None:
    file = Receipt(ACCEPTED).save(tmp_path / "a.receipt")
    answer = tmp_path / "answer"
    answer.write_bytes(ANSWER)
    told = run_cli(str(file), "--output", str(answer))
    assert told.returncode == 0, told.stderr
    assert "accepted by its jury" in told.stdout
    assert "the answer at hand is the one committed to" in told.stdout
    assert told.stdout.count("juror  ") == 3


def test_the_command_line_speaks_json(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(BY_NAME["three jurors reject"])
    bad.write_bytes(BY_NAME["another secret"])
    told = json.loads(run_cli("--json", str(good)).stdout)
    assert (told["valid"], told["verdict"], len(told["jurors"])) == (True, "reject", 3)
    refused = run_cli("--json", str(bad))
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["reason"] == "beacon"


def test_the_command_line_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    missing = run_cli(str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert "cannot read" in missing.stderr
    (tmp_path / "noise").write_bytes(b"noise")
    assert run_cli(str(tmp_path / "noise")).stdout.startswith("NOT VALID: encoding")
