"""Answers, one class per kind of job."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quorate.errors import NodeFault

if TYPE_CHECKING:
    from quorate.views import OutputView


@dataclass(frozen=True, slots=True)
class Output:
    """Base of the three."""


@dataclass(frozen=True, slots=True)
class TextOutput(Output):
    """The completion, without the prompt."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ImageOutput(Output):
    """A picture, as the bytes of a PNG file."""

    width: int
    height: int
    png: bytes

    def save(self, path: str | Path) -> Path:
        """Write the PNG file; returns its path."""
        target = Path(path)
        target.write_bytes(self.png)
        return target


@dataclass(frozen=True, slots=True)
class EmbeddingOutput(Output):
    """One vector per text, in the order of the texts."""

    vectors: tuple[tuple[float, ...], ...]


def read_output(view: OutputView) -> Output:
    """The answer in a job view.

    Raises:
        NodeFault: it is none of the three kinds, or its PNG is not base64.
    """
    if view.text is not None:
        return TextOutput(view.text)
    if view.embeddings is not None:
        return EmbeddingOutput(tuple(tuple(vector) for vector in view.embeddings))
    if view.image is None:
        raise NodeFault("the node's answer has no text, image or embeddings")
    try:
        png = base64.b64decode(view.image.png_base64, validate=True)
    except binascii.Error as exc:
        raise NodeFault("the image in the node's answer is not base64") from exc
    return ImageOutput(view.image.width, view.image.height, png)
