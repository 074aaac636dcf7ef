"""Answers to one job put forward for another, and whether the shipped thresholds take them.

Each job is in one pair only, so that the pairs are independent. Images: the first measure alone decides (the noise of
the other seed); texts: another prompt, or another seed of sampled text; embeddings: other texts.
"""

from __future__ import annotations

import msgspec
import numpy as np

from node.calibrating import Answer
from node.detection import finding, fresh_jobs, record_of
from verify.fingerprints.base import relative_l2, rows
from wire import codec
from wire.errors import Malformed
from wire.job import Expected, JobSpec, Kind, TextInput
from workloads import noise
from workloads.executor import Executor, never
from workloads.variants import make_executor

TOKENS = 4


def collisions(kind: Kind, jobs: int) -> tuple[int, int]:
    """How many of jobs / 2 pairs of different jobs were taken for one, and how many pairs there were."""
    if kind == "image.generate":
        return _noise_pairs(jobs // 2)
    executor = make_executor()
    specs = [_short(spec) for spec in fresh_jobs(kind, "tolerant", jobs)]
    thresholds = record_of(kind, "tolerant").thresholds
    taken = pairs = 0
    for asked, other in zip(specs[::2], specs[1::2], strict=False):
        if asked.inputs == other.inputs and not _sampled(asked.input()):
            continue  # the same work: equal answers are right
        output, trace = executor.run(other, emit=lambda _: None, cancelled=never)
        pairs += 1
        claim = Answer(asked, output, trace)
        taken += finding(claim, _own(executor, claim), thresholds)[0] == "accept"
    return taken, pairs


def _short(spec: JobSpec) -> JobSpec:
    """Texts of a few tokens: the fewer, the easier to be taken for another."""
    given = spec.input()
    if not isinstance(given, TextInput):
        return spec
    return msgspec.structs.replace(spec, inputs=codec.encode(msgspec.structs.replace(given, tokens_max=TOKENS)))


def _sampled(given: object) -> bool:
    return isinstance(given, TextInput) and given.method == "sample"


def _own(executor: Executor, claim: Answer) -> Expected | None:
    try:
        return executor.recheck(claim.spec, claim.output, claim.trace)
    except Malformed:
        return None


def _noise_pairs(pairs: int) -> tuple[int, int]:
    """Pairs of seeds whose initial noise is within the threshold; what else a picture holds can only add distance."""
    limit = record_of("image.generate", "tolerant").thresholds["noise"]
    taken = 0
    for seed in range(0, 2 * pairs, 2):
        claimed, own = (noise.normal(each, 16, 16).astype(np.float64) for each in (seed, seed + 1))
        taken += relative_l2(rows((claimed - own)[None]), rows(own[None])) <= limit
    return taken, pairs
