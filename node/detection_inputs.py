"""Jobs on which detection is measured: as many as wanted, all different, none of them a calibration's.

Job `number` follows from its number alone. Prompts and sentences are pieces of the language model's held-out text, from
places that stride through all of it, so that no two greedy texts begin alike.
"""

from __future__ import annotations

from functools import cache

import msgspec

from node.calibration_inputs import applies, job_specs
from wire import codec
from wire.codec import Wire
from wire.job import EmbedInput, ImageInput, JobSpec, Kind, Lane, TextInput
from workloads.catalog import built_in
from workloads.cheats import LESS
from workloads.executor import NUMERICS

SEED = 5_000_000
STRIDE = 7919
"""A prime: the first 16,000 pieces begin at different places."""

THIRTY = frozenset({*LESS, "interpolated-trajectory"})
"""Cheats that leave out steps: tried on pictures of thirty."""

STEPS: dict[Lane, tuple[int, ...]] = {"tolerant": (30, 12, 12, 12), "exact": (30, 4, 6, 8, 4, 6, 8, 4)}
"""Of the other pictures, in turn."""

TOKENS = 24
GROUP = 32
"""Texts in a row that have prompts of one length, so that they can be computed together."""

METHODS = ("sample", "sample", "sample", "greedy", "beam")


def model_of(kind: Kind) -> str:
    """The CID of the embedded model of this kind."""
    (cid,) = [info.cid for info in built_in().capabilities().models if info.kind == kind]
    return cid


@cache
def corpus() -> str:
    """Held-out text of the language model, ASCII only."""
    raw = (built_in().find("bytes-gpt").folder / "heldout.txt").read_bytes()
    return "".join(chr(byte) if 32 <= byte < 127 else " " for byte in raw)


def piece(number: int, size: int) -> str:
    """`size` characters of the held-out text, from the place of this number."""
    text = corpus()
    at = number * STRIDE % (len(text) - size)
    return text[at : at + size]


def input_of(kind: Kind, lane: Lane, number: int, *, thirty: bool = False) -> Wire:
    """What job `number` asks for; `thirty`: a picture of thirty steps."""
    if kind == "image.generate":
        steps = STEPS[lane]
        return ImageInput(number % 10, 30 if thirty else steps[number % len(steps)])
    if kind == "embed.text":
        return EmbedInput([piece(3 * number + part, 20 + (number + 17 * part) % 60) for part in range(3)])
    prompt, method = piece(number, 20 + number // GROUP % 20), METHODS[number % len(METHODS)]
    if method == "beam":
        return TextInput(prompt, TOKENS, "beam", beams=4)
    if method == "greedy":
        return TextInput(prompt, TOKENS, "greedy")
    return TextInput(prompt, TOKENS, "sample", temperature=(0.7, 1.0)[number % 2], top_k=(0, 40)[number // 2 % 2])


def jobs(kind: Kind, lane: Lane, numbers: range, *, thirty: bool = False) -> list[JobSpec]:
    """The jobs of these numbers for the embedded model."""
    (like,) = job_specs(kind, lane, model_of(kind), NUMERICS[lane], 1)
    return [
        msgspec.structs.replace(
            like,
            inputs=codec.encode(input_of(kind, lane, number, thirty=thirty)),
            seed=SEED + number,
            nonce=(SEED + number).to_bytes(16, "big"),
        )
        for number in numbers
    ]


def concerns(cheat: str, kind: Kind) -> bool:
    """Whether the cheat changes anything about jobs of this kind."""
    return any(applies(cheat, job) for job in jobs(kind, "tolerant", range(len(METHODS))))
