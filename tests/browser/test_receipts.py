"""The verifier in TypeScript says of every receipt what the one in Python says: the verdict, or the first fault."""

from __future__ import annotations

import json
import subprocess
from random import Random
from typing import Any

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from quorate import InvalidReceipt, verify_receipt
from quorate._bls import Arkworks
from tests.browser import edwards
from tests.browser.built import SOURCES, built, told
from tests.fuzz.mutation import Mutator, take_apart
from tests.fuzz.samples import signers
from tests.repo.project import ROOT
from tests.sdk.receipts import ACCEPTED, ANSWER, BY_NAME, VECTORS
from tests.wire.test_bls_vectors import VECTORS as BLS_VECTORS

FUZZED = 400


def _here(raw: bytes, output: bytes | None = None) -> dict[str, Any]:
    """What Python says, in the words of the tool: numbers of 64 bits as texts."""
    try:
        summary = verify_receipt(raw, output=output, bls=Arkworks()).to_dict()
    except InvalidReceipt as exc:
        return {"fault": exc.reason}
    large = {name: str(summary[name]) for name in ("price_micro", "fee_micro", "created_ms")}
    return {**summary, "jurors": list(summary["jurors"]), **large}


def test_the_types_hold() -> None:
    built()
    done = subprocess.run(
        ["node_modules/.bin/tsc", "--noEmit"], cwd=SOURCES, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_each_vector_gives_the_same_summary_or_fault() -> None:
    said = told("verify-lines", (vector["hex"] for vector in VECTORS))
    assert said == [_here(bytes.fromhex(vector["hex"])) for vector in VECTORS]
    assert [each.get("fault", each.get("verdict")) for each in said] == [vector["expect"] for vector in VECTORS]


def test_frames_of_light_peers_are_read_as_the_vectors_say() -> None:
    vectors = json.loads((ROOT / "tests/vectors/light-v1.json").read_text())["vectors"]
    assert told("light-lines", (f"{v['from']} {v['hex']}" for v in vectors)) == [v["expect"] for v in vectors]


def test_streams_are_cut_into_frames_as_the_vectors_say() -> None:
    vectors = json.loads((ROOT / "tests/vectors/transport-frames-v1.json").read_text())
    assert told("frame-lines", (v["stream"] for v in vectors)) == [v["expect"] for v in vectors]


def test_a_receipt_is_bound_to_its_answer() -> None:
    answers = [ANSWER, ANSWER[:-1] + b"\x01"]
    said = told("verify-lines", (f"{ACCEPTED.hex()} {answer.hex()}" for answer in answers))
    assert said == [_here(ACCEPTED, answer) for answer in answers]
    assert (said[0]["output_checked"], said[1]) == (True, {"fault": "answer"})


def _tampered() -> list[bytes]:
    """Receipts changed as the fuzzer changes them, half of them signed again by who could, and single bits flipped."""
    random = Random(20)
    valid = [BY_NAME[vector["name"]] for vector in VECTORS if vector["expect"] in ("accept", "reject", "unaudited")]
    mutator = Mutator(take_apart(valid), signers())
    flipped = []
    for _ in range(FUZZED // 4):
        raw = bytearray(random.choice(valid))
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
        flipped.append(bytes(raw))
    return [mutator.case(random) for _ in range(FUZZED)] + flipped


def test_tampered_receipts_meet_the_same_fault() -> None:
    cases = _tampered()
    said = told("verify-lines", (raw.hex() for raw in cases))
    different = [
        (raw.hex(), here, there) for raw, there in zip(cases, said, strict=True) if (here := _here(raw)) != there
    ]
    assert different == []
    assert len({each.get("fault") for each in said}) > 10, "the cases reach many checks"


def _sodium(author: bytes, message: bytes, signature: bytes) -> bool:
    try:
        crypto_sign_open(signature + message, author)
    except (BadSignatureError, ValueError):
        return False
    return True


def test_ed25519_says_what_libsodium_says_to_what_only_an_attacker_would_make() -> None:
    cases = edwards.cases(Random(25519))
    said = told("signature-lines", (json.dumps({"ed25519": [part.hex() for part in case]}) for case in cases))
    assert said == [_sodium(*case) for case in cases]
    assert set(said) == {True, False}


def test_bls_says_what_the_vectors_of_ethereum_say() -> None:
    cases = [vector for vector in BLS_VECTORS if vector["handler"] in ("verify", "fast_aggregate_verify")]
    asked = []
    for vector in cases:
        given = vector["input"]
        keys = [given["pubkey"]] if vector["handler"] == "verify" else given["pubkeys"]
        texts = [keys, given["message"], given["signature"]]
        asked.append(json.dumps({"bls": texts}).replace("0x", ""))
    assert told("signature-lines", asked) == [vector["output"] for vector in cases]
