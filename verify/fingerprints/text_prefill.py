"""text.prefill: one teacher-forced pass over the claimed tokens tells whether this model would have emitted them.

`margin` sees another sampler, seed, temperature or edited tokens; `hidden` sees other weights, another precision and
another prompt. Idea: TOPLOC (arXiv 2501.16007) and Token-DiFR (arXiv 2511.20621), with our own sketch, because that
of the former is blind to signs.
"""

from __future__ import annotations

from verify.faults import Refused
from verify.fingerprints.base import Floats, bounded, claimed, computed, only, relative_l2
from wire.codec import Wire
from wire.job import Expected, Output, TextInput, Trace

ID = "text.prefill/margin+sketch8/1"

SKETCH_WIDTH = 8

RESOLUTION = {"margin": 2.0**-12, "hidden": 2.0**-23}
"""hidden: float32 rounding. margin (logits): tokens whose logits are closer than the rounding of a float32 forward pass
(some 1e-6 to 1e-5 relative, logits of order 10) change places between honest machines, but about once in 1e4 jobs: too
rarely for a calibration of some dozens of runs to see, so it is a floor and not a quantile."""


def admit(inputs: Wire, output: Output, trace: Trace) -> None:
    """Raises: Refused unless tokens i4[n], 1 <= n <= tokens_max, and finite hidden f4[n, 8] are all that is there."""
    assert isinstance(inputs, TextInput), "registered for text.generate"
    only(output.tensors, "tokens")
    only(trace.tensors, "hidden")
    tokens, _ = _claims(output, trace)
    if len(tokens) > inputs.tokens_max:
        raise Refused("length", f"{len(tokens)} tokens, at most {inputs.tokens_max} were asked for")


def compare(output: Output, trace: Trace, expected: Expected) -> dict[str, float]:
    """Distances between the claimed run and our own.

    Returns:
        margin: largest amount (logits) by which an emitted token falls short of the best allowed one.
        hidden: largest relative L2 of a token's hidden-state sketch.

    Raises:
        Refused: the claim cannot be compared. ExpectedUnusable: our own result cannot.
    """
    tokens, hidden = _claims(output, trace)
    margin = computed(expected, "margin", "f4", tokens.shape)
    own = computed(expected, "hidden", "f4", hidden.shape)
    return {"margin": bounded(float(margin.max())), "hidden": relative_l2(hidden - own, own)}


def _claims(output: Output, trace: Trace) -> tuple[Floats, Floats]:
    tokens = claimed(output.tensors, "tokens", "i4", 1)
    hidden = claimed(trace.tensors, "hidden", "f4", 2)
    if (tokens < 0).any():
        raise Refused("range", "a negative token")
    if hidden.shape != (len(tokens), SKETCH_WIDTH):
        raise Refused("shape", f"hidden of {hidden.shape}, {(len(tokens), SKETCH_WIDTH)} expected")
    return tokens, hidden
