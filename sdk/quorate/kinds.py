"""What can be asked of a node: one class per kind of job. Each knows the type of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from quorate.outputs import EmbeddingOutput, ImageOutput, Output, TextOutput

O_co = TypeVar("O_co", bound=Output, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Generic[O_co]):
    """Base of `Text`, `Image` and `Embed`; `model` is a name or CID that the node knows."""

    kind: ClassVar[str]
    model: str

    def input(self) -> dict[str, Any]:
        """The fields of the kind's input, as JSON values."""
        fields = asdict(self)
        del fields["model"]
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Request[TextOutput]):
    """A text completion of at most `tokens_max` tokens.

    `temperature` and `top_k` (0: all) apply to `sample` only, `beams` to `beam` only.
    """

    kind: ClassVar[str] = "text.generate"
    prompt: str
    tokens_max: int = 48
    method: Literal["greedy", "beam", "sample"] = "greedy"
    temperature: float = 1.0
    top_k: int = 0
    beams: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Request[ImageOutput]):
    """An image of class `label`, made in `steps` denoising steps."""

    kind: ClassVar[str] = "image.generate"
    label: int
    steps: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed(Request[EmbeddingOutput]):
    """One vector per text, in order."""

    kind: ClassVar[str] = "embed.text"
    texts: Sequence[str] = field(default_factory=tuple)

    def input(self) -> dict[str, Any]:
        return {"texts": list(self.texts)}
