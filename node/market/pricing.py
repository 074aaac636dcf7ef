"""Reference prices: what a job costs by its size, never by the time it took (docs/reference/prices.md).

A unit is a token at most (text), a denoising step (image) or a text (embeddings). A worker asks a percentage of the
reference price; each juror earns a fifth of the worker's price, whatever it finds.
"""

from __future__ import annotations

from ledger.entry import RELAYED_PRICE_MICRO_MAX
from wire.codec import Wire
from wire.job import EmbedInput, ImageInput, TextInput

UNIT_MICRO: dict[str, int] = {"text.generate": 100, "image.generate": 200, "embed.text": 500}
FEE_SHARE = 5

RELAYED_MIB_MICRO = 20
"""Reference price of one MiB relayed."""


def units(given: Wire) -> int:
    """The size of a job in units of its kind."""
    match given:
        case TextInput():
            return max(1, given.tokens_max * (given.beams if given.method == "beam" else 1))
        case ImageInput():
            return max(1, given.steps)
        case EmbedInput():
            return max(1, len(given.texts))
    raise AssertionError(f"no price for {type(given).__name__}")


def unit_price_micro(kind: str, percent: int) -> int:
    """What one unit costs at `percent` of the reference price; at least one micro-credit."""
    return max(1, UNIT_MICRO[kind] * percent // 100)


def relayed_price_micro(percent: int) -> int:
    """What relaying one MiB costs at `percent` of the reference price; 1 to a thousand micro-credits."""
    return min(max(1, RELAYED_MIB_MICRO * percent // 100), RELAYED_PRICE_MICRO_MAX)


def fee_micro(price_micro: int) -> int:
    """What each juror earns for checking an answer that costs `price_micro`."""
    return max(1, price_micro // FEE_SHARE)
