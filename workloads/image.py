"""`image.generate`: DDIM from derivable noise, and re-checking of all steps in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire.job import Expected, ImageInput, Output, Trace
from wire.tensor import from_numpy
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
        self.dtype: np.dtype[np.floating] = np.dtype(np.float64 if exact else np.float32)

    def run(self, given: ImageInput, seed: int, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """Denoise step by step; the trace holds every latent, the initial noise first."""
        latents = [noise.normal(seed, *self.size)]
        times = diffusion.times(given.steps)
        for done in range(given.steps):
            stop_at(cancelled)
            latents.append(self.steps(latents[-1][None], given.label, times[done : done + 2])[0])
            emit(Progress(done + 1, given.steps))
        return answer(np.stack(latents))

    def steps(self, x: NDArray[np.float32], label: int, times: NDArray[np.float64]) -> NDArray[np.float32]:
        """The latents at times[1:] from those at times[:-1], f4[n, h, w]; each row is a step of its own."""
        return self._between(x, label, times[:-1], times[1:])

    def _between(
        self, x: NDArray[np.float32], label: int, now: NDArray[np.float64], then: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        wide = x.astype(self.dtype)
        v = self.network(wide, diffusion.features(now, np.full(len(now), label)))
        return diffusion.step(wide, v, now, then).astype(np.float32)

    def spot(
        self, given: ImageInput, seed: int, states: NDArray[np.float32], drawn: Sequence[int], last: NDArray[np.float32]
    ) -> Expected:
        """What `recheck` computes, for a run of which only some states were opened.

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
        if drawn:
            times, at = diffusion.times(given.steps), np.array(drawn)
            expected["steps"] = from_numpy(self._between(states, given.label, times[at], times[at + 1]))
        return Expected(expected)

    def recheck(
        self, given: ImageInput, seed: int, output: Output, trace: Trace, emit: Emit, cancelled: CancelCheck
    ) -> Expected:
        """Own noise, own step from each claimed latent, own pixels; in the exact lane a full run of our own."""
        shape = (given.steps + 1, *self.size)
        latents = claims.array(claims.only(trace, "latents")["latents"], "latents", "f4", shape)
        claims.array(claims.only(output, "pixels")["pixels"], "pixels", "u1", self.size)
        if self.exact:
            own, own_trace = self.run(given, seed, emit, cancelled)
            return Expected({**own.tensors, **own_trace.tensors})
        stop_at(cancelled)
        times = diffusion.times(given.steps)
        if self.sequential:
            rows = [self.steps(latents[i : i + 1], given.label, times[i : i + 2])[0] for i in range(given.steps)]
            steps = np.stack(rows)
        else:
            steps = self.steps(latents[:-1], given.label, times)
        return Expected(
            {
                "noise": from_numpy(noise.normal(seed, *self.size)),
                "steps": from_numpy(steps),
                "pixels": from_numpy(diffusion.pixels(latents[-1])),
            }
        )


def answer(latents: NDArray[np.float32]) -> tuple[Output, Trace]:
    """Output and trace of a trajectory f4[steps + 1, h, w]."""
    return Output({"pixels": from_numpy(diffusion.pixels(latents[-1]))}), Trace({"latents": from_numpy(latents)})
