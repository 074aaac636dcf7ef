"""image.trajectory: the noise is the seed's, every diffusion step follows, and the last latent decodes to the picture.

The juror starts each step from the *claimed* previous state, so numeric differences do not accumulate and all steps, or
those that were drawn, run in one batch. The step's error is measured against the step's own length: a run that skips,
repeats or interpolates steps is off by the length of a step, an honest one by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verify.faults import Refused
from verify.fingerprints.base import Floats, bounded, claimed, computed, only, relative_l2, rows
from wire.codec import Wire
from wire.job import Expected, ImageInput, Output, Trace

ID = "image.trajectory/step-relative-l2/2"

RESOLUTION = {"noise": 2.0**-23, "step": 2.0**-23, "pixels": 1.0}
"""float32 rounding for the states, one grey level for the picture."""


def admit(inputs: Wire, output: Output, trace: Trace) -> None:
    """Raises: Refused unless pixels u1[h, w] and latents f4[steps + 1, h, w] are all that is there, and finite."""
    assert isinstance(inputs, ImageInput), "registered for image.generate"
    only(output.tensors, "pixels")
    only(trace.tensors, "latents")
    pixels, latents = _claims(output, trace)
    if len(latents) != inputs.steps + 1:
        raise Refused("length", f"latents: {len(latents)} states, {inputs.steps + 1} expected")
    if latents.shape[1:] != pixels.shape:
        raise Refused("shape", f"latents of {latents.shape[1:]}, pixels of {pixels.shape}")


def compare(output: Output, trace: Trace, expected: Expected) -> dict[str, float]:
    """As `compare_steps`, over all steps."""
    _, latents = _claims(output, trace)
    return compare_steps(output, trace, expected, range(len(latents) - 1))


def compare_steps(output: Output, trace: Trace, expected: Expected, steps: Sequence[int]) -> dict[str, float]:
    """Distances between the claimed run and our own.

    Args:
        output, trace: the claim. expected: own `noise`, own `pixels`, and own `steps` f4[k, h, w].
        steps: which k steps of the run (0 is the first) those are, ascending.

    Returns:
        noise: relative L2 of the first state to the seed's noise. step: largest relative L2 of a claimed step to ours.
        pixels: largest absolute difference in grey levels to our decoding of the claimed last state.

    Raises:
        Refused: the claim cannot be compared. ExpectedUnusable: our own result cannot.
    """
    pixels, latents = _claims(output, trace)
    if len(latents) < 2 or not steps or steps[-1] >= len(latents) - 1:
        raise Refused("length", f"latents: {len(latents)} states have no such step")
    shape = latents.shape[1:]
    noise = computed(expected, "noise", "f4", shape)
    own = computed(expected, "steps", "f4", (len(steps), *shape))
    decoded = computed(expected, "pixels", "u1", shape)
    if pixels.shape != shape:
        raise Refused("shape", f"latents of {shape}, pixels of {pixels.shape}")
    at = np.array(steps)
    return {
        "noise": relative_l2(rows((latents[0] - noise)[None]), rows(noise[None])),
        "step": relative_l2(rows(latents[at + 1] - own), rows(own - latents[at])),
        "pixels": bounded(float(np.abs(pixels - decoded).max())),
    }


def _claims(output: Output, trace: Trace) -> tuple[Floats, Floats]:
    return claimed(output.tensors, "pixels", "u1", 2), claimed(trace.tensors, "latents", "f4", 3)
