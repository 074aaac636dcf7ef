"""What is fuzzed: for each decoder the messages to start from, what reads them, and the errors it may raise.

`run` either returns or raises one of `errors`; anything else is a finding, and so is a value that does not encode back
to its bytes. What a target reads follows from the bytes alone, so that a case can be written down. Signatures over the
same bytes are checked once: most cases leave most of them as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random
from typing import Any, Protocol
from unittest.mock import patch

import msgspec
from nacl.exceptions import BadSignatureError

from quorate import _bls
from tests.fuzz import samples
from tests.fuzz.mutation import Mutator, Repair, Tree, canonical, encode, sample, take_apart
from wire import bls, codec, envelope
from wire.errors import Malformed
from wire.hashing import digest


class Cases(Protocol):
    """Makes one case after the other."""

    def case(self, random: Random) -> bytes: ...


@dataclass(frozen=True)
class Target:
    """One decoder, with everything that stands behind it before a message is believed."""

    name: str
    run: Callable[[bytes], object]
    cases: Callable[[], Cases]
    errors: tuple[type[Exception], ...] = (Malformed,)


TARGETS: dict[str, Target] = {}


def target(
    name: str,
    messages: Callable[[], Sequence[bytes]],
    *errors: type[Exception],
    repair: Repair | None = None,
) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    """Register a function as a target."""

    @cache
    def cases() -> Cases:
        return Mutator(take_apart(messages()), samples.signers(), repair)

    def register(run: Callable[[bytes], object]) -> Callable[[bytes], object]:
        TARGETS[name] = Target(name, run, cases, (Malformed, *errors))
        return run

    return register


def decoded(kind: Any, raw: bytes) -> Any:
    """Decode, and check that it encodes back."""
    value = codec.decode(kind, raw)
    canonical(raw, value)
    return value


class Family:
    """All structs of one package: the first byte of a case says which of them it is read as."""

    def __init__(self, package: str) -> None:
        self.kinds = [kind for name, kind in samples.structs().items() if name.split(".")[0] == package]
        assert len(self.kinds) < 256, "one byte names a struct"
        self._mutators: dict[int, Mutator] = {}

    def case(self, random: Random) -> bytes:
        index = random.randrange(len(self.kinds))
        if index not in self._mutators:
            messages = samples.values(self.kinds[index], 24)
            self._mutators[index] = Mutator(take_apart(messages), samples.signers())
        return bytes([index]) + self._mutators[index].case(random)

    def run(self, raw: bytes) -> None:
        kind = self.kinds[raw[0] % len(self.kinds)] if raw else self.kinds[0]
        value = decoded(kind, raw[1:])
        check = getattr(value, "check", None)
        if callable(check):
            check()


for _package in ("wire", "verify", "ledger", "crdt", "dht", "recommend", "workloads", "node"):
    _family = lru_cache(maxsize=1)(lambda package=_package: Family(package))
    TARGETS[f"structs of {_package}"] = Target(
        f"structs of {_package}", lambda raw, family=_family: family().run(raw), _family
    )


class Text:
    """Cases of a JSON text: the tree is changed as that of a message, and then written as JSON."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._mutator = Mutator([sample(encode(json.loads(text))) for text in texts])

    def case(self, random: Random) -> bytes:
        while True:
            raw = self._mutator.case(random)
            try:
                return json.dumps(msgspec.msgpack.decode(raw), default=repr).encode()
            except (msgspec.DecodeError, ValueError, TypeError):
                if random.random() < 0.1:
                    return raw


def text_target(name: str, texts: Callable[[], Sequence[str]], *errors: type[Exception]) -> Callable[[Any], Any]:
    """Register a function that reads JSON."""

    def register(run: Callable[[bytes], object]) -> Callable[[bytes], object]:
        TARGETS[name] = Target(name, run, cache(lambda: Text(texts())), (Malformed, *errors))
        return run

    return register


REAL_ONE_IN = 16
"""Of so many unknown BLS signatures one is really checked, in 2 ms: none can hold, for nobody signs anew."""


def _worth_checking(message: bytes, signature: bytes, known: bool) -> bool:
    return known or digest("fuzz.bls", message, signature)[0] % REAL_ONE_IN == 0


class RememberingBls:
    """The SDK's backend, with what it said before; `learning` while valid messages are read."""

    def __init__(self, inner: _bls.Bls) -> None:
        self._inner = inner
        self._check = lru_cache(1 << 14)(self._checked)

    def _checked(self, keys: tuple[bytes, ...], message: bytes, signature: bytes, owner: bytes | None) -> bool:
        if not _worth_checking(message, signature, LEARNING[0]):
            return False
        if owner is not None:
            return self._inner.possession(owner, keys[0], signature)
        return self._inner.aggregate(keys, message, signature)

    def possession(self, owner: bytes, key: bytes, proof: bytes) -> bool:
        return self._check((key,), b"", proof, owner)

    def aggregate(self, keys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
        return self._check(tuple(keys), message, signature, None)


LEARNING = [False]
SDK_BLS = RememberingBls(_bls.best())
_plain_bls, _plain_ed25519 = bls._verify, envelope.verify


@lru_cache(1 << 14)
def _bls_once(publics: tuple[bytes, ...], message: bytes, signature: bytes, tag: bytes) -> bool:
    return _worth_checking(message, signature, LEARNING[0]) and _plain_bls(publics, message, signature, tag, None)


_ed25519_once = lru_cache(1 << 14)(_plain_ed25519)


def _sdk_ed25519(message: bytes, author: bytes) -> bytes:
    if not _ed25519_once(author, message[64:], message[:64]):
        raise BadSignatureError
    return message[64:]


@contextmanager
def remembering(source: Cases, run: Callable[[bytes], object], errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Within it, equal signatures are checked once, and of forged BLS signatures one in `REAL_ONE_IN`.

    Args:
        source, run, errors: of a target, whose valid messages are read first, with every check made.
    """

    def verify(publics: Sequence[bytes], message: bytes, signature: bytes, tag: bytes, using: Any) -> bool:
        return _bls_once(tuple(publics), message, signature, tag)

    with (
        patch.object(bls, "_verify", verify),
        patch.object(envelope, "verify", _ed25519_once),
        patch("nacl.bindings.crypto_sign_open", _sdk_ed25519),
    ):
        LEARNING[0] = True
        for raw in getattr(source, "valid", list)():
            with suppress(*errors):
                run(raw)
        LEARNING[0] = False
        yield


def repaired_entry(tree: Tree, random: Random) -> Tree:
    """A ledger entry whose header names its body, signed by its author if the tests have the key."""
    try:
        header, _, body = tree
        author, raw = header[1], encode([*header[:4], digest("entry.body", encode(body)), *header[5:]])
        sign = samples.signers().get(author)
    except (TypeError, ValueError, IndexError, KeyError):
        return tree
    if sign is None:
        return tree
    return [msgspec.msgpack.decode(raw), sign(digest("entry", raw)), body]
