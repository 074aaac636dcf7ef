"""Noise transport messages: bytes in, plaintext out. Sans-IO.

    message = length (2 bytes, big-endian) || ciphertext with its 16-byte tag (that many bytes)

Invariant: plaintext leaves only after its tag was checked under the next nonce, so a message that was changed,
replayed, dropped or reordered ends the session. Source: Noise protocol framework, sections 5.1 and 11.4 (nonces are
little-endian and 2^64 - 1 is never used); libp2p noise specification, "Wire format".
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wire.errors import Malformed

TAG_BYTES = 16
MESSAGE_BYTES_MAX = 65535
"""Longest ciphertext, tag included."""

PLAIN_BYTES_MAX = MESSAGE_BYTES_MAX - TAG_BYTES
"""Most plaintext in one message."""

NONCE_END = 2**64 - 1
"""The nonce that may not be used; a session ends before it."""


class NoiseViolation(Malformed):
    """The stream of messages is not one that the other side sealed for us now; the session is over."""


class NoiseSealer:
    """Our direction: plaintext to messages under one key."""

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        self._encrypt = ChaCha20Poly1305(key).encrypt
        self._nonce = nonce

    def seal(self, plain: bytes) -> list[bytes]:
        """The pieces of the messages that carry `plain`, to be sent one after the other.

        Raises:
            NoiseViolation: all nonces are used.
        """
        pieces: list[bytes] = []
        if len(plain) <= PLAIN_BYTES_MAX:
            self._one(plain, pieces)
            return pieces
        view = memoryview(plain)
        for at in range(0, len(view), PLAIN_BYTES_MAX):
            self._one(view[at : at + PLAIN_BYTES_MAX], pieces)
        return pieces

    def _one(self, plain: bytes | memoryview, into: list[bytes]) -> None:
        if self._nonce >= NONCE_END:
            raise NoiseViolation("all nonces of this session are used")
        sealed = self._encrypt(b"\0\0\0\0" + self._nonce.to_bytes(8, "little"), plain, None)
        self._nonce += 1
        into.append(len(sealed).to_bytes(2, "big"))
        into.append(sealed)


class NoiseOpener:
    """The other direction: messages, cut anywhere, to plaintext. Holds less than one message."""

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        self._decrypt = ChaCha20Poly1305(key).decrypt
        self._nonce = nonce
        self._partial = b""

    @property
    def held(self) -> int:
        """Bytes of an incomplete message."""
        return len(self._partial)

    def open(self, chunk: bytes) -> bytes:
        """The plaintext of every message that `chunk` completes; may be empty.

        Raises:
            NoiseViolation: a message is too short, does not authenticate, or comes after the last nonce.
        """
        data = self._partial + chunk if self._partial else chunk
        view = memoryview(data)
        plain: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= 2:
            size = data[at] << 8 | data[at + 1]
            if size < TAG_BYTES:
                raise NoiseViolation(f"a message of {size} bytes has no tag")
            if end - at - 2 < size:
                break
            plain.append(self._one(view[at + 2 : at + 2 + size]))
            at += 2 + size
        self._partial = data[at:]
        return _joined(plain)

    def _one(self, sealed: memoryview) -> bytes:
        if self._nonce >= NONCE_END:
            raise NoiseViolation("all nonces of this session are used")
        try:
            plain = self._decrypt(b"\0\0\0\0" + self._nonce.to_bytes(8, "little"), sealed, None)
        except InvalidTag:
            raise NoiseViolation("a message does not authenticate") from None
        self._nonce += 1
        return plain


def _joined(pieces: Sequence[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
