"""The one form in which every benchmark prints a figure."""

from __future__ import annotations

import json
from typing import Literal


def show(
    name: str,
    value: float,
    unit: str,
    *,
    better: Literal["higher", "lower"],
    peer: str | None = None,
    peer_value: float | None = None,
    source: Literal["measured", "published"] = "measured",
    error: str | None = None,
    note: str | None = None,
) -> None:
    """Print one figure as a JSON line; `ratio` is ours / peer's.

    Args:
        name: id of the figure, e.g. "e2e.start_s".
        value: ours.
        peer, peer_value: who else was measured on the same work in the same run, and what it came to.
        source: where the peer's value is from.
        error: why the peer could not be measured.
        note: on what work, where the name does not say.
    """
    ratio = value / peer_value if peer_value else None
    row = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 4),
        "ratio": None if ratio is None else round(ratio, 4),
        "better": better,
        "source": source,
    }
    extra = {key: text for key, text in (("error", error), ("note", note)) if text is not None}
    print(json.dumps({**row, **extra}), flush=True)
