"""Refusals name the field and what it may be, in a user's words."""

from __future__ import annotations

from typing import Any

import pytest

from node.intake import Refused, parse
from workloads.catalog import built_in

MODELS = built_in().capabilities().models


def _refusal(**change: Any) -> Refused:
    body = {"kind": "text.generate", "model": "bytes-gpt", "input": {"prompt": "x"}, **change}
    with pytest.raises(Refused) as caught:
        parse(body, MODELS, random_seed=1)
    return caught.value


def test_a_word_that_is_not_one_of_a_few_is_answered_with_the_few() -> None:
    refused = _refusal(input={"prompt": "x", "method": "divine"})
    assert refused.message == "input.method: Invalid enum value 'divine'"
    assert refused.known == ["greedy", "beam", "sample"]


def test_a_value_of_the_wrong_type_is_named_by_its_field() -> None:
    assert _refusal(input={"prompt": 3}).message == "input.prompt: Expected `str`, got `int`"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": -1}, "seed must be a whole number from 0 to 9223372036854775807, not -1"),
        ({"timeout_s": -1.0}, "timeout_s must be a number from 0.1 to 3600.0, not -1.0"),
        ({"timeout_s": float("nan")}, "timeout_s must be a number from 0.1 to 3600.0, not nan"),
    ],
)
def test_a_number_out_of_range_is_answered_with_the_range(change: dict[str, Any], said: str) -> None:
    assert _refusal(**change).message == said
