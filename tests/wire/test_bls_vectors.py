"""Ethereum's BLS vectors (ethereum/bls12-381-tests), on both backends where that is quick enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wire import bls
from wire.errors import LocalError, Malformed

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bls-ethereum.json").read_text())["vectors"]
QUICK = {"deserialization_G1", "deserialization_G2", "aggregate"}
"""Handlers that the reference runs too; the others take it a third of a second a case."""

CASES = [
    pytest.param(vector, name, id=f"{name}-{vector['name']}")
    for vector in VECTORS
    for name in ("fast", "reference")
    if name == "fast" or vector["handler"] in QUICK
]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _outcome(handler: str, given: Any, using: bls.Backend) -> object:
    """What our scheme says to a vector, in the vector's terms."""
    match handler:
        case "sign":
            try:
                return "0x" + bls.sign(int(given["privkey"], 16), _bytes(given["message"]), using=using).hex()
            except LocalError:
                return None
        case "verify":
            return bls.verify(*(_bytes(given[key]) for key in ("pubkey", "message", "signature")), using=using)
        case "aggregate":
            try:
                return "0x" + bls.aggregate([_bytes(signature) for signature in given], using=using).hex()
            except Malformed:
                return None
        case "fast_aggregate_verify":
            publics = [_bytes(public) for public in given["pubkeys"]]
            return bls.fast_aggregate_verify(publics, _bytes(given["message"]), _bytes(given["signature"]), using=using)
        case "deserialization_G1":
            return bls.valid_public(_bytes(given["pubkey"]), using=using)
        case "deserialization_G2":
            point = _bytes(given["signature"])
            try:
                return bls.aggregate([point], using=using) == point
            except Malformed:
                return False
        case _:
            raise AssertionError(handler)


@pytest.mark.parametrize(("vector", "name"), CASES)
def test_vector(vector: dict[str, Any], name: str) -> None:
    expected = vector["output"]
    if vector["name"] == "deserialization_G1/deserialization_succeeds_infinity_with_true_b_flag":
        expected = False  # a point, but never a key (draft, section 2.5)
    assert expected == _outcome(vector["handler"], vector["input"], bls.backend(name))
