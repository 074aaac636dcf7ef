"""Peer ids in text: libp2p's, in one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import Malformed
from wire.peer import PeerId, from_text, short, to_text

# The Ed25519 public key among the test vectors of the libp2p peer-ids specification.
KEY = PeerId(bytes.fromhex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"))
TEXT = to_text(KEY)


@settings(max_examples=50)
@given(st.binary(min_size=32, max_size=32))
def test_text_comes_back(raw: bytes) -> None:
    text = to_text(PeerId(raw))
    assert text.startswith("12D3KooW")
    assert from_text(text) == raw
    assert text.endswith(short(PeerId(raw)))
    assert len(short(PeerId(raw))) == 8


BAD = {
    "empty": "",
    "space after": TEXT + " ",
    "line end after": TEXT + "\n",
    "space before": " " + TEXT,
    "leading one": "1" + TEXT,
    "cut": TEXT[:-1],
    "longer": TEXT + "1",
    "not base58": TEXT[:-1] + "0",
    "not ASCII": TEXT[:-1] + "é",
    "very long": "1" * 100_000,
    "an RSA key's id": "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        from_text(text)
    assert len(str(caught.value)) < 200
