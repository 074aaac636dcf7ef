"""`image.generate`: DDIM from derivable noise at derivable times, and re-checking of steps in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire.codec import Wire
from wire.errors import Malformed
from wire.job import Expected, ImageInput, Output, Trace
from wire.tensor import Tensor, from_numpy
from workloads import claims, diffusion, noise
from workloads.executor import CancelCheck, Emit, Progress
from workloads.forward import Floats
from workloads.text import stop_at


class Network(Protocol):
    """`workloads.forward.ImageNetwork` or `workloads.ort.ImageNetwork`."""

    def __call__(self, x: Floats, features: NDArray[np.float64]) -> Floats: ...


class ImageModel:
    """The diffusion model in one numeric class; latents are float32 between steps in both."""

    def __init__(self, network: Network, config: Mapping[str, int], *, exact: bool, sequential: bool = False) -> None:
        self.network, self.exact, self.sequential = network, exact, sequential
        self.size = config["height"], config["width"]
        self.jitter = config["jitter_percent"] / 100
        self.dtype: np.dtype[np.floating] = np.dtype(np.float64 if exact else np.float32)

    def run(self, given: ImageInput, seed: int, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """Denoise step by step; the trace holds every latent, the initial noise first."""
        latents = [noise.normal(seed, *self.size)]
        for done in range(given.steps):
            stop_at(cancelled)
            latents.append(self.steps(latents[-1][None], given, seed, [done])[0])
            emit(Progress(done + 1, given.steps))
        return answer(np.stack(latents))

    def steps(self, x: NDArray[np.float32], given: ImageInput, seed: int, at: Sequence[int]) -> NDArray[np.float32]:
        """The latents after these steps of a run.

        Args:
            x: f4[n, h, w], the latents before them. at: n numbers of steps, 0..given.steps - 1.
        """
        times, index = diffusion.times(given.steps, seed, self.jitter), np.array(at)
        now, then = times[index], times[index + 1]
        wide = x.astype(self.dtype)
        v = self.network(wide, diffusion.features(now, np.full(len(now), given.label)))
        return diffusion.step(wide, v, now, then).astype(np.float32)

    def recheck(
        self, given: ImageInput, seed: int, output: Output, trace: Trace, emit: Emit, cancelled: CancelCheck
    ) -> Expected:
        """Own noise, own step from each claimed latent, own pixels; in the exact lane a full run of our own."""
        if self.exact:
            self._claims(given, output, trace)
            own, own_trace = self.run(given, seed, emit, cancelled)
            return Expected({**own.tensors, **own_trace.tensors})
        stop_at(cancelled)
        return self.recheck_steps(given, seed, output, trace, range(given.steps))

    def recheck_steps(
        self, given: ImageInput, seed: int, output: Output, trace: Trace, drawn: Sequence[int]
    ) -> Expected:
        """As `recheck`, with `steps` f4[k, h, w] of the k `drawn` ones only (0..given.steps - 1)."""
        latents = self._claims(given, output, trace)
        return self.spot(given, seed, latents[list(drawn)], drawn, latents[-1])

    def _claims(self, given: ImageInput, output: Output, trace: Trace) -> NDArray[np.float32]:
        """The claimed latents f4[steps + 1, h, w]; Malformed where anything has another shape than an honest run's."""
        shape = (given.steps + 1, *self.size)
        claims.array(claims.only(output, "pixels")["pixels"], "pixels", "u1", self.size)
        return claims.array(claims.only(trace, "latents")["latents"], "latents", "f4", shape)

    def spot(
        self, given: ImageInput, seed: int, states: NDArray[np.float32], drawn: Sequence[int], last: NDArray[np.float32]
    ) -> Expected:
        """What a juror computes from claimed states.

        Args:
            states: f4[k, h, w], the claimed states before the `drawn` steps (0..steps - 1).
            last: f4[h, w], the claimed last state.

        Returns:
            `noise` f4[h, w], `steps` f4[k, h, w] (none if nothing was drawn), `pixels` u1[h, w].
        """
        expected = {
            "noise": from_numpy(noise.normal(seed, *self.size)),
            "pixels": from_numpy(diffusion.pixels(last)),
        }
        if len(drawn):
            parts = [slice(at, at + 1) for at in range(len(drawn))] if self.sequential else [slice(None)]
            steps = [self.steps(states[part], given, seed, drawn[part]) for part in parts]
            expected["steps"] = from_numpy(np.concatenate(steps))
        return Expected(expected)

    def recompute(self, given: Wire, seed: int, step: int, state: Tensor) -> Tensor:
        """The latent after step `step` of a run, from the one before it."""
        assert isinstance(given, ImageInput), "checked with the spec"
        if not 0 <= step < given.steps:
            raise Malformed(f"step {step} of {given.steps}")
        latent = claims.array(state, "state", "f4", self.size)
        return from_numpy(self.steps(latent[None], given, seed, [step])[0])


def answer(latents: NDArray[np.float32]) -> tuple[Output, Trace]:
    """Output and trace of a trajectory f4[steps + 1, h, w]."""
    return Output({"pixels": from_numpy(diffusion.pixels(latents[-1]))}), Trace({"latents": from_numpy(latents)})
