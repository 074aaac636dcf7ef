"""Every decoder against some hundred mutated messages; `python -m tests.fuzz --cases 1000000` makes many more."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.mutation import Mutator, sample
from tests.fuzz.running import Found, chunk, try_one, watched
from tests.fuzz.samples import NEVER_DECODED, structs
from tests.fuzz.targets import TARGETS, Family, Target
from wire.codec import Wire, encode
from wire.errors import Malformed

CASES = 250


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    with watched():
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_takes_a_message_or_refuses_it_by_a_typed_error(name: str) -> None:
    found = chunk(name, 0, 0, CASES)
    assert (found.cases, found.failures) == (CASES, [])
    assert found.accepted > 0, "some cases are valid, or nothing behind the decoder is reached"
    assert found.accepted < CASES or name == "receipt, here and in the SDK"


def test_a_run_repeats_itself_on_any_number_of_cores() -> None:
    source = TARGETS["structs of wire"].cases()
    first, second = ([source.case(random) for _ in range(50)] for random in (Random(7), Random(7)))
    assert first == second
    assert chunk("jury ask", 3, 5, 40) == chunk("jury ask", 3, 5, 40)


def test_every_struct_is_read() -> None:
    """A message that somebody adds is fuzzed without a line in this folder."""
    covered = {kind for name in TARGETS if name.startswith("structs of ") for kind in Family(name.split()[-1]).kinds}
    assert covered == set(structs().values())
    assert NEVER_DECODED not in structs()


def test_what_a_target_must_not_raise_is_found() -> None:
    def fragile(raw: bytes) -> None:
        if raw[:1] == b"\x01":
            raise Malformed("typed")
        if raw[:1] == b"\x02":
            raise KeyError("untyped")

    found = Found("fragile")
    target = Target("fragile", fragile, lambda: Mutator([sample(b"\x90")]))
    assert [try_one(target, raw, found) for raw in (b"\x00", b"\x01", b"\x02")] == [True, False, False]
    assert found.failures == [("02", "KeyError('untyped')")]


class Same:
    """Makes the same case again and again."""

    def case(self, random: Random) -> bytes:
        return b"\x01"


def test_a_hang_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(raw: bytes) -> None:
        while raw:
            pass

    monkeypatch.setattr("tests.fuzz.running.HANG_S", 0.05)
    monkeypatch.setitem(TARGETS, "slow", Target("slow", endless, Same))
    assert chunk("slow", 0, 0, 1).failures == [("01", "Hang()")]


class Lossy(Wire, frozen=True):
    """Stands for a struct that would not keep what it decoded."""

    number: int


def test_a_value_that_does_not_encode_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.codec.decode", lambda *_args, **_more: Lossy(2))
    family = Family("wire")
    family.kinds = [Lossy]
    with pytest.raises(AssertionError, match="encode back"):
        family.run(b"\x00" + encode(Lossy(1)))


def test_the_command_prints_each_target_and_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--cases", "40", "--only", "peer id", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith("peer id: 40 cases, ")
