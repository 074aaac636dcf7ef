"""Noise messages: whatever is sealed opens again however the stream is cut, and nothing else opens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.libp2p.noise_frames import NONCE_END, PLAIN_BYTES_MAX, TAG_BYTES, NoiseOpener, NoiseSealer, NoiseViolation
from tests.node.cutting import cuts

KEY = bytes(range(32))


def sealed(*plain: bytes, nonce: int = 0) -> bytes:
    """The stream of messages that carry each of `plain`."""
    sealer = NoiseSealer(KEY, nonce)
    return b"".join(piece for text in plain for piece in sealer.seal(text))


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 70), min_size=1))
def test_what_is_sealed_opens_however_it_is_cut(plain: list[bytes], sizes: list[int]) -> None:
    opener = NoiseOpener(KEY)
    assert b"".join(opener.open(chunk) for chunk in cuts(sealed(*plain), sizes)) == b"".join(plain)
    assert opener.held == 0


@pytest.mark.parametrize("size", [0, 1, PLAIN_BYTES_MAX, PLAIN_BYTES_MAX + 1, 256 << 10])
def test_long_plaintext_takes_several_messages(size: int) -> None:
    stream = sealed(bytes(size))
    messages = max(1, -(-size // PLAIN_BYTES_MAX))
    assert len(stream) == size + messages * (2 + TAG_BYTES)
    assert NoiseOpener(KEY).open(stream) == bytes(size)


@given(st.binary(min_size=1, max_size=100), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_bit_ends_the_session_or_waits_for_bytes_that_never_come(plain: bytes, at: int, flip: int) -> None:
    stream = bytearray(sealed(plain))
    stream[at % len(stream)] ^= flip
    try:
        assert NoiseOpener(KEY).open(bytes(stream)) == b""
    except NoiseViolation:
        return
    assert int.from_bytes(stream[:2], "big") > len(stream) - 2, "only a longer length is still waited for"


def test_a_replayed_message_does_not_open() -> None:
    opener, message = NoiseOpener(KEY), sealed(b"pay me")
    assert opener.open(message) == b"pay me"
    with pytest.raises(NoiseViolation, match="authenticate"):
        opener.open(message)


def test_messages_open_in_their_order_only() -> None:
    sealer = NoiseSealer(KEY)
    first, second = (b"".join(sealer.seal(text)) for text in (b"first", b"second"))
    with pytest.raises(NoiseViolation, match="authenticate"):
        NoiseOpener(KEY).open(second + first)


def test_a_message_without_room_for_a_tag_is_refused_by_its_length() -> None:
    with pytest.raises(NoiseViolation, match="no tag"):
        NoiseOpener(KEY).open((TAG_BYTES - 1).to_bytes(2, "big"))


def test_the_last_nonce_is_never_used() -> None:
    stream = sealed(b"last", nonce=NONCE_END - 1)
    assert NoiseOpener(KEY, NONCE_END - 1).open(stream) == b"last"
    sealer = NoiseSealer(KEY, NONCE_END - 1)
    sealer.seal(b"last")
    with pytest.raises(NoiseViolation, match="nonces"):
        sealer.seal(b"one more")
    with pytest.raises(NoiseViolation, match="nonces"):
        NoiseOpener(KEY, NONCE_END).open(stream)


@given(st.binary(max_size=400))
def test_noise_is_held_up_to_one_message(raw: bytes) -> None:
    opener = NoiseOpener(KEY)
    try:
        assert opener.open(raw) == b""
    except NoiseViolation:
        return
    assert opener.held == len(raw) < 2 + 65535
