"""The committed vectors are what the code computes, and they read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.verify.sampling_vectors import PATH, vectors
from verify import eprocess
from verify.sampling import BatchCommitment, BatchOffer, BatchOpening, check_opening, picks
from wire import codec

SAVED = json.loads(PATH.read_text())


def test_the_vectors_are_what_is_computed() -> None:
    assert vectors() == SAVED


@pytest.mark.parametrize("vector", SAVED["batches"], ids=lambda vector: vector["name"])
def test_batches_read_back(vector: dict[str, Any]) -> None:
    offer = codec.decode(BatchOffer, bytes.fromhex(vector["offer"]))
    root = bytes.fromhex(vector["root"])
    chosen = picks(offer, root, bytes.fromhex(vector["secret"]))
    assert (offer.id.hex(), list(chosen)) == (vector["batch"], vector["picks"])
    if chosen:
        opening = codec.decode(BatchOpening, bytes.fromhex(vector["opening"]))
        check_opening(offer, BatchCommitment(offer.id, root), chosen, opening)


@pytest.mark.parametrize("vector", SAVED["records"], ids=lambda vector: vector["name"])
def test_records_read_back(vector: dict[str, Any]) -> None:
    assert eprocess.decode(bytes.fromhex(vector["evidence"])).rejected == vector["rejected"]
