"""CIDs as the rest of IPFS spells them, and no other spelling."""

from __future__ import annotations

import hashlib

import pytest

from wire import cid
from wire.errors import Malformed

# Known from go-ipfs (`ipfs add --cid-version=1 --raw-leaves`): the empty file, and "hello world".
KNOWN = {
    b"": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    b"hello world": "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
}
GOOD = KNOWN[b"hello world"]


@pytest.mark.parametrize(("data", "text"), KNOWN.items(), ids=["empty", "hello world"])
def test_known_identifiers(data: bytes, text: str) -> None:
    assert cid.of(data) == text
    assert cid.to_digest(text) == hashlib.sha256(data).digest()
    assert cid.of_digest(hashlib.sha256(data).digest()) == text


BAD = {
    "empty": "",
    "upper case": GOOD.upper(),
    "mixed case": "b" + GOOD[1:].upper(),
    "another base": "z" + GOOD[1:],
    "too short": GOOD[:-1],
    "too long": GOOD + "a",
    "stray bits at the end": GOOD[:-1] + "f",
    "not base32": GOOD[:-1] + "1",
    "not ASCII": GOOD[:-1] + "ß",
    "dag-pb in place of raw": "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    "version 0": "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        cid.to_digest(text)
