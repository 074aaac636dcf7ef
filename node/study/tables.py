"""What the data set says: distances of honest and cheating work, collisions, one verifier and a majority of three.

Two outputs count as the same if their 64-bit codes (pHash of pictures, SimHash of texts) are at most `threshold` bits
apart. The threshold is the conformal quantile of honest distances; intervals are two-sided 95 % Clopper-Pearson.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.study import batches
from node.study.dataset import Part, Settings, load, parts
from verify.lsh import distances, histogram_self, join_self
from verify.statistics import all_pairs, clopper_pearson, majority

ALPHA = 0.01
GOAL_DETECTION, GOAL_COLLISION = 0.9989, 0.000267
ARRAYS = {False: ("phash64", "pixels"), True: ("simhash64", "tokens")}
KINDS = {False: "images", True: "texts"}


@dataclass(frozen=True)
class Row:
    """One way of working against the honest reference: distance histogram int64[65], and rows that are byte-equal."""

    name: str
    honest: bool
    histogram: NDArray[np.int64]
    equal: int

    @property
    def runs(self) -> int:
        """How many were compared."""
        return int(self.histogram.sum())

    def beyond(self, threshold: int) -> int:
        """How many are farther than the threshold."""
        return int(self.histogram[threshold + 1 :].sum())


@dataclass(frozen=True)
class Side:
    """Images or texts: the rows, and histograms of pairs of different jobs.

    Attributes:
        same_class, other_class: of all pairs. disjoint: of pairs that share no job, and are therefore independent.
        alike: of each text how many others are within the threshold; empty for images.
    """

    text: bool
    rows: list[Row]
    same_class: NDArray[np.int64]
    other_class: NDArray[np.int64]
    disjoint: NDArray[np.int64]
    alike: NDArray[np.int64]

    @property
    def pairs(self) -> int:
        """Comparisons of different jobs."""
        return int(self.same_class.sum() + self.other_class.sum())

    @property
    def threshold(self) -> int:
        """As `threshold_of` its rows."""
        return threshold_of(self.rows)


def threshold_of(rows: Sequence[Row]) -> int:
    """The smallest distance that all but `ALPHA` of honest work of every backend stays within."""
    return max(_quantile(row.histogram) for row in rows if row.honest)


def _quantile(histogram: NDArray[np.int64]) -> int:
    runs = int(histogram.sum())
    rank = min(runs, int(np.ceil((runs + 1) * (1 - ALPHA))))
    return int(np.searchsorted(np.cumsum(histogram), rank))


def measure(out: Path, settings: Settings, text: bool, comparisons: int) -> Side:
    """Read one half of the data set and count.

    Args:
        comparisons: stop at the smallest number of honest rows that gives as many pairs; all rows if they give fewer.
    """
    code, raw = ARRAYS[text]
    bulk, *others = [part for part in parts(settings) if part.text == text]
    codes = _codes(out, bulk, code)
    reference = bulk if text else others.pop(0)
    honest = _codes(out, reference, code), load(out, reference, raw)
    rows = [_row(out, part, code, raw, *honest) for part in others]
    needed = min(len(codes), int(np.ceil((1 + np.sqrt(1 + 8.0 * comparisons)) / 2)))
    used = np.ascontiguousarray(codes[:needed])
    every = histogram_self(used)
    same = np.zeros_like(every)
    if not text:
        labels = np.array([batches.label_of(i) for i in range(needed)])
        for label in np.unique(labels):
            same += histogram_self(np.ascontiguousarray(used[labels == label]))
    half = len(codes) // 2 if text else len(codes) // 20 * 10  # classes repeat every ten
    disjoint = np.bincount(distances(codes[:half].copy(), codes[half : 2 * half].copy()), minlength=65)
    alike = _alike(used, threshold_of(rows)) if text else np.zeros(0, dtype=np.int64)
    return Side(text, rows, same, every - same, disjoint, alike)


def _alike(codes: NDArray[np.uint64], threshold: int) -> NDArray[np.int64]:
    """How many others are within the threshold of each code."""
    near = join_self(codes, threshold, limit=len(codes) ** 2)
    return np.bincount(np.concatenate([near.left, near.right]), minlength=len(codes))


def _codes(out: Path, part: Part, array: str) -> NDArray[np.uint64]:
    return load(out, part, array).astype(np.uint64)


def _row(out: Path, part: Part, code: str, raw: str, codes: NDArray[np.uint64], values: NDArray[np.generic]) -> Row:
    mine = load(out, part, raw)
    apart = distances(_codes(out, part, code), np.ascontiguousarray(codes[: part.rows]))
    equal = (mine == values[: part.rows]).reshape(part.rows, -1).all(axis=1)
    return Row(part.name, part.name.startswith("honest"), np.bincount(apart, minlength=65), int(equal.sum()))


def render(side: Side) -> str:
    """Tables in Markdown."""
    threshold = side.threshold
    what = "SimHash of texts" if side.text else "pHash of images"
    lines = [
        f"### {what}, 64 bits",
        "",
        f"The same: at most {threshold} bits apart ({100 * (1 - ALPHA):g} % of honest work of every backend is).",
        "",
        "| way of working | n | same bytes | median, 99 %, most | one verifier rejects | at least | majority of 3 |",
        "|---|---|---|---|---|---|---|",
        *(_line(row, threshold) for row in side.rows),
        "",
        *_collisions(side, threshold),
        "",
    ]
    return "\n".join(lines)


def _line(row: Row, threshold: int) -> str:
    total = np.cumsum(row.histogram)
    spread = [int(np.searchsorted(total, np.ceil(share * row.runs))) for share in (0.5, 0.99, 1.0)]
    beyond = row.beyond(threshold)
    low = clopper_pearson(beyond, row.runs).low
    rate = beyond / row.runs
    return (
        f"| {row.name} | {row.runs:,} | {100 * row.equal / row.runs:.1f} % | {spread[0]}, {spread[1]}, {spread[2]} | "
        f"{100 * rate:.2f} % | {100 * low:.2f} % | {100 * majority(3, rate):.3f} % |"
    )


def _collisions(side: Side, threshold: int) -> list[str]:
    lines = [
        f"{side.pairs:,} comparisons of different jobs:",
        "",
        "| pairs | compared | taken for the same | share | majority of three, were verifiers independent |",
        "|---|---|---|---|---|",
    ]
    groups = {"same class": side.same_class, "other class": side.other_class}
    for name, histogram in groups.items() if not side.text else [("all", side.other_class)]:
        pairs, hits = int(histogram.sum()), int(histogram[: threshold + 1].sum())
        rate = hits / pairs if pairs else 0.0
        lines.append(f"| {name} | {pairs:,} | {hits:,} | {100 * rate:.5f} % | {100 * majority(3, rate):.2g} % |")
    pairs, hits = int(side.disjoint.sum()), int(side.disjoint[: threshold + 1].sum())
    what = "pairs" if side.text else "pairs of one class"
    bound = f"at most {100 * clopper_pearson(hits, pairs).high:.4f} %" if pairs else "no bound"
    lines += ["", f"Of {pairs:,} {what} that share no job, and so are independent, {hits:,}: {bound}."]
    if side.text and side.alike.any():
        low, high = all_pairs(side.alike.tolist())
        lines += [f"All pairs, whose jobs recur, by Hoeffding's variance: {100 * low:.4f} to {100 * high:.4f} %."]
    return lines
