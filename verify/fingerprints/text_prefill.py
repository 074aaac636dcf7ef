"""text.prefill: one teacher-forced pass over the claimed tokens tells whether this model would have emitted them.

`units` sees another sampler, seed, temperature or edited tokens: by how many whole units of 2**-12 logits a token falls
short of the seed's own choice. `token` and `block` see other weights, another precision and another prompt, in the
sketch of the whole hidden states. Ideas: TOPLOC (arXiv 2501.16007) and Token-DiFR (arXiv 2511.20621), with our own
sketch (`verify.fingerprints.text_sketch`), because that of the former is blind to signs, and whole units, because
replaying a float sampler refuses honest tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verify.faults import Refused
from verify.fingerprints import text_sketch
from verify.fingerprints.base import Floats, bounded, claimed, computed, only
from wire.codec import Wire
from wire.job import Expected, Output, TextInput, Trace
from wire.text_sketch import DIMENSIONS

ID = "text.prefill/units-q12+signs7-i8-dither/2"

RESOLUTION = {"units": 2.0, **text_sketch.RESOLUTION}
"""units: the chosen and the best token may each lie one unit higher or lower on a host whose logits differ by less than
one unit."""


def admit(inputs: Wire, output: Output, trace: Trace) -> None:
    """Raises: Refused unless tokens i4[n], 1 <= n <= tokens_max, and their sketch u1[rows, 8] are all that is there."""
    assert isinstance(inputs, TextInput), "registered for text.generate"
    only(output.tensors, "tokens")
    only(trace.tensors, "sketch")
    tokens, _ = _claims(output, trace)
    if len(tokens) > inputs.tokens_max:
        raise Refused("length", f"{len(tokens)} tokens, at most {inputs.tokens_max} were asked for")


def compare(output: Output, trace: Trace, expected: Expected) -> dict[str, float]:
    """Distances between the claimed run and our own.

    Returns:
        units: largest amount (2**-12 logits) by which an emitted token falls short of the best allowed one.
        token, block: largest estimate of the relative L2 of a token's, and of 32 rows' hidden states.

    Raises:
        Refused: the claim cannot be compared. ExpectedUnusable: our own result cannot.
    """
    tokens, sketch = _claims(output, trace)
    margin = computed(expected, "margin", "i8", tokens.shape)
    shape = (len(sketch), DIMENSIONS)
    values = computed(expected, "projections", "f8", shape)
    dither = computed(expected, "dither", "f8", shape)
    found = text_sketch.distance(sketch, values, dither, len(tokens))
    return {"units": bounded(float(margin.max())), **found}


def _claims(output: Output, trace: Trace) -> tuple[Floats, NDArray[np.int8]]:
    tokens = claimed(output.tensors, "tokens", "i4", 1)
    if (tokens < 0).any():
        raise Refused("range", "a negative token")
    if "sketch" not in trace.tensors:
        raise Refused("missing", "tensor 'sketch'")
    return tokens, text_sketch.admit(trace.tensors["sketch"], len(tokens))
