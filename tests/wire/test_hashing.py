"""Domains never meet."""

from __future__ import annotations

import hashlib

from wire.hashing import digest


def test_the_digest_is_the_tagged_hash_of_bip_340() -> None:
    tag = hashlib.sha256(b"quorate/1/job").digest()
    assert digest("job", b"abc") == hashlib.sha256(tag + tag + b"abc").digest()


def test_several_parts_are_length_prefixed() -> None:
    tag = hashlib.sha256(b"quorate/1/leaf").digest()
    framed = (1).to_bytes(8, "big") + b"a" + (2).to_bytes(8, "big") + b"bc"
    assert digest("leaf", b"a", b"bc") == hashlib.sha256(tag + tag + framed).digest()


def test_parts_cannot_be_moved_across_their_borders() -> None:
    assert len({digest("d", *parts) for parts in ([b"ab", b"c"], [b"a", b"bc"], [b"abc", b""], [b"", b"abc"])}) == 4


def test_domains_differ() -> None:
    assert digest("job", b"x") != digest("jobs", b"x")


def test_a_cached_state_is_not_used_up() -> None:
    assert digest("again", b"x") == digest("again", b"x")
    assert digest("again", b"x", b"y") == digest("again", b"x", b"y")
