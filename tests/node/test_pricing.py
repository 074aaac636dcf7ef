"""Prices follow the size of a job and nothing else."""

from __future__ import annotations

import pytest

from node.market import pricing
from wire.codec import Wire
from wire.job import EmbedInput, ImageInput, TextInput


@pytest.mark.parametrize(
    ("given", "units"),
    [
        (TextInput("x", tokens_max=48), 48),
        (TextInput("x", tokens_max=10, method="beam", beams=4), 40),
        (TextInput("x", tokens_max=10, method="greedy", beams=4), 10),
        (ImageInput(3, steps=30), 30),
        (EmbedInput(["a", "b", "c"]), 3),
    ],
)
def test_units(given: Wire, units: int) -> None:
    assert pricing.units(given) == units


def test_a_percentage_of_the_reference_price_but_never_nothing() -> None:
    assert pricing.unit_price_micro("image.generate", 50) == 100
    assert pricing.unit_price_micro("text.generate", 0) == 1


def test_a_jurors_fee_is_a_fifth_but_never_nothing() -> None:
    assert (pricing.fee_micro(1000), pricing.fee_micro(1)) == (200, 1)
