"""Jobs for calibration: varied, and the same each time."""

from __future__ import annotations

from wire import codec
from wire.codec import Wire
from wire.job import EmbedInput, ImageInput, JobSpec, Kind, Lane, TextInput
from wire.peer import PeerId

_OPENINGS = (
    "The ", "Once upon a time", "def ", "It is ", "In this ", "A list of", "When the", "return ", "She said",
    "For each ", "The name of", "If you", "class ", "There are", "This module",
)  # fmt: skip
_SENTENCES = (
    "A peer checks the work of another peer.",
    "The cat sat on the mat.",
    "Return the number of items in the list.",
    "It rained all day, and nobody came.",
    "for index in range(10): print(index)",
    "An error is raised if the file does not exist.",
    "Seven ships sailed north in the morning.",
    "x",
    "The quick brown fox jumps over the lazy dog, twice a day, except on Sundays, when it rests in the shade.",
    "Zwölf große Boxkämpfer jagen Viktor quer über den Sylter Deich.",
    "12345 67890",
)


def _input(kind: Kind, index: int) -> Wire:
    if kind == "image.generate":
        return ImageInput(index % 10, (30, 20, 12)[index % 3])
    if kind == "embed.text":
        size = len(_SENTENCES)
        return EmbedInput([f"{_SENTENCES[(index * step + step) % size]} {index}" for step in (1, 3, 5)])
    prompt = _OPENINGS[index % len(_OPENINGS)] + (_SENTENCES[index % len(_SENTENCES)] if index % 4 != 3 else "")
    if index % 3 == 0:
        return TextInput(prompt, 32, "greedy")
    if index % 3 == 1:
        return TextInput(prompt, 32, "sample", temperature=(0.7, 1.0)[index % 2], top_k=(0, 40)[index % 2])
    return TextInput(prompt, 24, "beam", beams=4)


IMAGE_ONLY = {
    "fewer-steps", "one-step-less", "25-of-30-steps", "interpolated-trajectory", "swapped-noise",
    "spliced-trajectory",
}  # fmt: skip
TEXT_ONLY = {
    "short-prompt", "other-temperature", "other-sampler", "cheap-then-prefill", "cheap-sketch", "borrowed-sketch",
    "flipped-sketch", "constant-sketch", "shifted-sketch", "repeated-row",
}  # fmt: skip


def applies(cheat: str, spec: JobSpec) -> bool:
    """Whether this cheat changes anything about this job; where it does not, the run is honest."""
    given = spec.input()
    if isinstance(given, ImageInput):
        return cheat not in TEXT_ONLY | {"random-embedding", "one-byte"}
    if isinstance(given, EmbedInput):
        return cheat not in IMAGE_ONLY | TEXT_ONLY | {"wrong-seed"}
    assert isinstance(given, TextInput)
    if cheat in ("wrong-seed", "other-temperature"):
        return given.method == "sample"
    if cheat == "short-prompt":
        return len(given.prompt) > 16
    return cheat not in IMAGE_ONLY | {"random-embedding"}


def job_specs(kind: Kind, lane: Lane, model: str, numeric: str, count: int) -> list[JobSpec]:
    """`count` jobs whose inputs and seeds differ; what does not matter to an executor is zero."""
    return [
        JobSpec(
            version=1,
            kind=kind,
            model=model,
            inputs=codec.encode(_input(kind, index)),
            lane=lane,
            numeric=numeric,
            fingerprint="",
            calibration=bytes(32),
            seed=1000 + index,
            jury_size=0,
            spots=0,
            price_micro=0,
            fee_micro=0,
            requester=PeerId(bytes(32)),
            pool=bytes(32),
            beacon_hash=bytes(32),
            nonce=index.to_bytes(16, "big"),
            created_ms=0,
            deadline_ms=0,
        )
        for index in range(count)
    ]
