"""The data set on disk: chunks that are whole or absent, so that a run that was stopped goes on where it was.

`<out>/study.json` holds the settings, `<out>/<part>/00000.npz` rows 0..chunk - 1 of one way of working, and so on.
A chunk is written beside its place and then renamed. Equal settings give equal bytes with the same library versions.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.study import batches
from node.study.batches import HONEST, IMAGE_CHEATS, TEXT_CHEATS, Way
from verify.fingerprints.image_hash import phash
from verify.lsh import byte_shingles, simhash
from wire.errors import LocalError, StorageError

SETTINGS = "study.json"
IMAGES_MAX, TEXTS_MAX = 10_000_000, 10_000_000
Say = Callable[[str], None]
U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Settings:
    """What decides every byte of the data set.

    Attributes:
        images, texts: honest rows of the reference backend. probes_images, probes_texts: rows of every other honest
            backend and of every cheat. steps: of diffusion, of the honest images. probe_steps: of the images that
            cheats are compared with, and of theirs. tokens: most per text. chunk: rows per file.
    """

    images: int = 100_000
    texts: int = 20_000
    probes_images: int = 500
    probes_texts: int = 500
    steps: int = 8
    probe_steps: int = 30
    tokens: int = 32
    chunk: int = 500

    def check(self) -> None:
        """Raises: LocalError if a number is out of range; names it."""
        for name, value, most in (("images", self.images, IMAGES_MAX), ("texts", self.texts, TEXTS_MAX)):
            if not 20 <= value <= most:
                raise LocalError(f"{name} {value}: 20 to {most} are allowed")
        if not (1 <= self.probes_images <= self.images and 1 <= self.probes_texts <= self.texts):
            raise LocalError("probes: at least 1, and not more than the honest rows")
        if not (
            2 <= self.steps <= 100
            and 2 <= self.probe_steps <= 100
            and 1 <= self.tokens <= 256
            and 1 <= self.chunk <= 100_000
        ):
            raise LocalError("steps are 2..100, tokens 1..256, rows per chunk 1..100000")


@dataclass(frozen=True)
class Part:
    """All rows of one way of working: `name` for people, `folder` on disk; `steps` of images."""

    name: str
    folder: str
    rows: int
    way: Way
    text: bool
    steps: int


REFERENCE = "images/reference"
"""Honest images with as many steps as the cheats'."""


def parts(settings: Settings) -> list[Part]:
    """What is generated, in order; the first of each kind is the honest bulk."""
    few, many = settings.steps, settings.probe_steps
    named = [
        Part("honest", "images/honest", settings.images, Way(), False, few),
        Part("reference", REFERENCE, settings.probes_images, Way(), False, many),
    ]
    named += _ways({**HONEST, **IMAGE_CHEATS}, settings.probes_images, text=False, steps=many)
    named.append(Part("honest", "texts/honest", settings.texts, Way(), True, 0))
    return named + _ways({**HONEST, **TEXT_CHEATS}, settings.probes_texts, text=True, steps=0)


def _ways(ways: Mapping[str, Way], rows: int, *, text: bool, steps: int) -> list[Part]:
    kind = "texts" if text else "images"
    folders = {name: "".join(letter if letter.isalnum() else "-" for letter in name.lower()) for name in ways}
    return [Part(name, f"{kind}/{folders[name]}", rows, way, text, steps) for name, way in ways.items()]


def prepare(out: Path, settings: Settings) -> None:
    """Make the folder, or find that it holds the same study.

    Raises:
        LocalError: settings out of range, or the folder holds a study with others. StorageError: it cannot be written.
    """
    settings.check()
    text = json.dumps(asdict(settings), indent=1) + "\n"
    path = out / SETTINGS
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text() != text:
            raise LocalError(f"{out} holds a study with other settings; name another folder")
        path.write_text(text)
    except OSError as exc:
        raise StorageError(f"cannot write {out}: {exc.strerror}") from exc


def generate(out: Path, settings: Settings, say: Say) -> None:
    """Write every chunk that is not there yet."""
    for part in parts(settings):
        for at in range(0, part.rows, settings.chunk):
            path = out / part.folder / f"{at // settings.chunk:05}.npz"
            if not path.exists():
                _write(path, _chunk(part, range(at, min(at + settings.chunk, part.rows)), settings))
                say(f"{part.folder}: {min(at + settings.chunk, part.rows)} of {part.rows}")


def _chunk(part: Part, indices: range, settings: Settings) -> dict[str, NDArray[np.generic]]:
    if part.text:
        tokens = batches.texts(indices, settings.tokens, part.way)
        return {"tokens": tokens, "simhash64": text_codes(tokens)}
    pixels = batches.images(indices, part.steps, part.way)
    return {"pixels": pixels, "phash64": np.concatenate([phash(picture) for picture in pixels])}


def text_codes(tokens: NDArray[np.uint8]) -> U64:
    """SimHash over runs of four bytes: uint64[n, 1]."""
    return simhash(byte_shingles([row.tobytes().rstrip(b"\0") for row in tokens], 4))


def _write(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stub takes allow_pickle for an array's name
        partial.rename(path)
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc.strerror}") from exc


def load(out: Path, part: Part, array: str) -> NDArray[np.generic]:
    """One array of all rows of a part.

    Raises:
        StorageError: a chunk is missing or damaged.
    """
    return np.concatenate(list(_chunks(out, part, array)))


def _chunks(out: Path, part: Part, array: str) -> Iterator[NDArray[np.generic]]:
    for path in sorted((out / part.folder).glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as stored:
                yield stored[array]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as exc:
            raise StorageError(f"{path} is damaged, delete it to make it again: {exc}") from exc
