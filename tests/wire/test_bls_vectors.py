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
        case _:
            raise AssertionError(handler)


def _decodes(handler: str, given: Any, using: bls.Backend) -> bool:
    """Whether a point is taken at all: shown by an aggregate of one, or by a key that fails only in the pairing."""
    if handler == "deserialization_G2":
        try:
            return bls.aggregate([_bytes(given["signature"])], using=using) == _bytes(given["signature"])
        except Malformed:
            return False
    return bls.valid_public(_bytes(given["pubkey"]), using=using)


@pytest.mark.parametrize(("vector", "name"), CASES)
def test_vector(vector: dict[str, Any], name: str) -> None:
    using, handler = bls.backend(name), vector["handler"]
    if handler.startswith("deserialization"):
        infinite_key = handler == "deserialization_G1" and vector["input"]["pubkey"].startswith("c0" + "00" * 47)
        expected = vector["output"] and not infinite_key  # a point, but never a key (draft, section 2.5)
        assert expected == _decodes(handler, vector["input"], using)
    else:
        assert vector["output"] == _outcome(handler, vector["input"], using)
