"""Runs in lockstep give each run its own rows, whatever the others do."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from node.lockstep import IMAGE, TEXT, Party
from tests.workloads.specs import spec
from wire.errors import LocalError
from wire.job import ImageInput, JobSpec, TextInput
from workloads.executor import never
from workloads.image import ImageModel
from workloads.local import LocalExecutor
from workloads.text import TextModel
from workloads.variants import find


def unheard(event: object) -> None:
    """Nobody follows these runs."""


def answers(specs: list[JobSpec], party: Party | None) -> list[dict[str, np.ndarray]]:
    executor = LocalExecutor(find("default"))
    runner = executor.prepare(specs[0])[1]
    assert isinstance(runner, ImageModel | TextModel)
    if party is not None:
        axes = IMAGE if isinstance(runner, ImageModel) else TEXT
        runner.network = party.join(runner.network, axes)
    tasks = [partial(executor.run, each, emit=unheard, cancelled=never) for each in specs]
    done = [task() for task in tasks] if party is None else party.run(tasks, group=4)
    return [{name: t.numpy() for name, t in (output.tensors | trace.tensors).items()} for output, trace in done]


@pytest.mark.parametrize(
    "specs",
    [
        [spec("image.generate", ImageInput(i, 3 + i % 2), seed=i) for i in range(6)],
        [spec("text.generate", TextInput("Return the", 6, "sample", 0.9), seed=i) for i in range(4)]
        + [spec("text.generate", TextInput("Return the list", 4 + i, "greedy")) for i in range(2)],
    ],
    ids=["images of different lengths", "texts of different lengths"],
)
def test_each_run_is_that_of_a_run_alone(specs: list[JobSpec]) -> None:
    for alone, joined in zip(answers(specs, None), answers(specs, Party()), strict=True):
        assert alone.keys() == joined.keys()
        for name, value in alone.items():
            assert value.shape == joined[name].shape
            assert np.abs(value.astype(float) - joined[name].astype(float)).max() <= (
                1e-4 if value.dtype.kind == "f" else 1
            )


def test_a_failing_network_fails_every_run_that_waits_for_it() -> None:
    def broken(x: np.ndarray, features: np.ndarray) -> np.ndarray:
        raise LocalError("broken")

    party = Party()
    network = party.join(broken, IMAGE)
    with pytest.raises(LocalError):
        party.run([partial(network, np.zeros((1, 2)), np.zeros((1, 3)))] * 3)


def test_a_call_from_outside_is_computed_at_once() -> None:
    doubled = Party().join(lambda x, features: 2 * x, IMAGE)
    assert doubled(np.ones((1, 2)), np.ones((1, 1))).tolist() == [[2.0, 2.0]]
