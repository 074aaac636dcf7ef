"""Distributions of distances, one line per way of working, as PNG and SVG; needs the extra `study` (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.study.tables import Side
from wire.errors import LocalError

COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7", "#009e73", "#8c6d31", "#7f3c8d", "#b22222", "#555555")
"""Distinct with common colour blindness for the first six (Okabe and Ito)."""


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as exc:
        raise LocalError("plots need matplotlib: pip install 'quorate-node[study]', or --no-plots") from exc
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "quorate"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    return pyplot


def bits(side: Side, folder: Path) -> list[Path]:
    """Hamming distances: one strip per way of working, and all pairs of different jobs at the bottom."""
    strips: list[tuple[str, NDArray[np.int64], bool]] = [(row.name, row.histogram, row.honest) for row in side.rows]
    if not side.text:
        strips.append(("different jobs, same class", side.same_class, False))
    strips.append(("different jobs" if side.text else "different jobs, other class", side.other_class, False))
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(len(strips), 1, sharex=True, figsize=(8, 0.62 * len(strips) + 1.2))
    for axis, (name, histogram, honest) in zip(axes, strips, strict=True):
        share = histogram / max(1, histogram.sum())
        seen = np.nonzero(share)[0]
        axis.bar(seen, share[seen], width=0.9, color=COLOURS[0] if honest else COLOURS[2])
        axis.axvline(side.threshold + 0.5, color="black", linewidth=1, linestyle="--")
        axis.set_ylim(0, max(0.02, float(share.max()) * 1.1))
        axis.set_yticks([])
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for edge in ("top", "right", "left"):
            axis.spines[edge].set_visible(False)
    axes[0].set_title(
        f"{'SimHash of texts' if side.text else 'pHash of images'}: bits that differ from the honest run's", fontsize=11
    )
    axes[-1].set_xlabel(
        f"bits of 64 that differ; dashed: threshold ({side.threshold}); each strip has its own height", fontsize=9
    )
    axes[-1].set_xlim(-1, 65)
    return _save(figure, folder / ("texts-simhash" if side.text else "images-phash"))


def scores(kind: str, honest: Sequence[float], cheats: Mapping[str, Sequence[float]], folder: Path) -> list[Path]:
    """The shipped fingerprint: distance in multiples of its threshold, every run a dot, on a logarithmic axis."""
    pyplot = _pyplot()
    strips = [("honest, other backends", honest), *cheats.items()]
    figure, axis = pyplot.subplots(figsize=(8, 0.34 * len(strips) + 1.4))
    for at, (_, values) in enumerate(strips):
        shown = np.clip(np.asarray(values, dtype=np.float64), 1e-4, 1e9)
        spread = (np.arange(len(shown)) * 0.618 % 1 - 0.5) * 0.6
        colour = COLOURS[0] if at == 0 else COLOURS[2]
        axis.scatter(shown, at + spread, s=5, alpha=0.6, linewidths=0, color=colour, rasterized=True)
    axis.axvline(1, color="black", linewidth=1, linestyle="--")
    axis.set_xscale("log")
    axis.set_xlim(5e-5, 2e9)
    axis.set_yticks(range(len(strips)), [name for name, _ in strips], fontsize=9)
    axis.invert_yaxis()
    axis.set_title(f"{kind}: distance in multiples of the threshold", fontsize=11)
    axis.set_xlabel(
        "dashed: threshold; left of it is accepted; equality and far distances are drawn at the edges", fontsize=9
    )
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)
    return _save(figure, folder / f"fingerprint-{kind.replace('.', '-')}")


def _save(figure: Any, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    figure.savefig(paths[0], dpi=130, bbox_inches="tight")
    figure.savefig(paths[1], dpi=130, bbox_inches="tight", metadata={"Date": None})
    _pyplot().close(figure)
    return paths
