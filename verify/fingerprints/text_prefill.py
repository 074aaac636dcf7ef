"""text.prefill: one teacher-forced pass over the claimed tokens tells whether this model would have emitted them.

`units` sees another sampler, seed, temperature or edited tokens: by how many whole units of 2**-12 logits a token falls
short of the seed's own choice. `token` and `block` see other weights, another precision and another prompt, in the
sketch of the whole hidden states. Ideas: TOPLOC (arXiv 2501.16007) and Token-DiFR (arXiv 2511.20621), with our own
sketch (`verify.fingerprints.text_sketch`), because that of the former is blind to signs, and whole units, because
replaying a float sampler refuses honest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints import exact_digest, text_sketch
from verify.fingerprints.base import Floats, bounded, claimed, computed, only
from wire import seeded
from wire.codec import Wire
from wire.job import Expected, Output, TextInput, Trace
from wire.tensor import from_numpy
from wire.text_sketch import DIMENSIONS, prefix, rows_per_token, windows

ID = "text.prefill/units-q12+signs7-i8-dither/2"

RESOLUTION = {"units": 2.0, **text_sketch.RESOLUTION}
"""units: the chosen and the best token may each lie one unit higher or lower on a host whose logits differ by less than
one unit."""


def drawn_windows(beacon: bytes, count: int, size: int) -> tuple[int, ...]:
    """Which of `count` windows of 32 tokens are drawn: `size` (at most all) of them, ascending.

    A juror reads the text up to the end of the last one (`wire.text_sketch.prefix`), so one draw finds the last b of W
    windows wrong with chance b / W, and what is wrong from the start always.
    """
    return seeded.drawn(beacon, "text.windows", count, min(size, count))


def admit(inputs: Wire, output: Output, trace: Trace) -> None:
    """Raises: Refused unless tokens i4[n], 1 <= n <= tokens_max, and their sketch u1[rows, 8] are all that is there."""
    assert isinstance(inputs, TextInput), "registered for text.generate"
    only(output.tensors, "tokens")
    only(trace.tensors, "sketch")
    tokens, _ = _claims(output, trace)
    if len(tokens) > inputs.tokens_max:
        raise Refused("length", f"{len(tokens)} tokens, at most {inputs.tokens_max} were asked for")


def compare(output: Output, trace: Trace, expected: Expected, steps: Sequence[int] = ()) -> dict[str, float]:
    """Distances between the claimed run and our own.

    Args:
        steps: the windows that were drawn: our own run then need only reach to the end of the last one.

    Returns:
        units: largest amount (2**-12 logits) by which an emitted token falls short of the best allowed one.
        token, block: largest estimate of the relative L2 of a token's, and of 32 rows' hidden states.

    Raises:
        Refused: the claim cannot be compared. ExpectedUnusable: our own result cannot.
    """
    tokens, sketch = _claims(output, trace)
    count = _computed_tokens(expected, "margin", len(tokens), steps)
    margin = computed(expected, "margin", "i8", (count,))
    sketch = sketch[: count * rows_per_token(len(tokens))]
    shape = (len(sketch), DIMENSIONS)
    values = computed(expected, "projections", "f8", shape)
    dither = computed(expected, "dither", "f8", shape)
    found = text_sketch.distance(sketch, values, dither, count)
    return {"units": bounded(float(margin.max())), **found}


def compare_exact(output: Output, trace: Trace, expected: Expected, steps: Sequence[int] = ()) -> dict[str, float]:
    """`exact_digest.compare` of all tokens, or of those up to the last drawn window; `steps` as in `compare`."""
    tokens, sketch = _claims(output, trace)
    count = _computed_tokens(expected, "tokens", len(tokens), steps)
    if count < len(tokens):
        output = Output({"tokens": from_numpy(output.tensors["tokens"].numpy()[:count])})
        trace = Trace({"sketch": from_numpy(sketch[: count * rows_per_token(len(tokens))].view(np.uint8))})
    return exact_digest.compare(output, trace, expected)


def _computed_tokens(expected: Expected, name: str, claimed_tokens: int, steps: Sequence[int]) -> int:
    """How many tokens a juror's own executor looked at: all, or those up to the last drawn window."""
    shape = expected.tensors[name].shape if name in expected.tensors else []
    if shape == [claimed_tokens]:
        return claimed_tokens
    if steps and max(steps) < windows(claimed_tokens) and shape == [prefix(claimed_tokens, steps)]:
        return shape[0]
    raise ExpectedUnusable(f"{name} of shape {shape[:9]} for {claimed_tokens} tokens")


def _claims(output: Output, trace: Trace) -> tuple[Floats, NDArray[np.int8]]:
    tokens = claimed(output.tensors, "tokens", "i4", 1)
    if (tokens < 0).any():
        raise Refused("range", "a negative token")
    if "sketch" not in trace.tensors:
        raise Refused("missing", "tensor 'sketch'")
    return tokens, text_sketch.admit(trace.tensors["sketch"], len(tokens))
