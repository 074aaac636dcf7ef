"""The repository as data: its files, packages and syntax trees, for the tests beside this module."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("wire", "sim", "workloads", "verify", "ledger", "crdt", "dht", "recommend", "node")
SDK = "sdk/quorate"


@dataclass(frozen=True)
class Source:
    """One Python file; `path` is relative to the root, with forward slashes."""

    path: str
    text: str
    tree: ast.Module

    @property
    def shipped(self) -> bool:
        """Whether it is part of a distribution, as opposed to tests, benchmarks and scripts."""
        return self.path.startswith(SDK + "/") or self.path.split("/")[0] in PACKAGES


@cache
def files() -> tuple[str, ...]:
    """Every file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(sorted(name for name in set(listed.stdout.splitlines()) if (ROOT / name).is_file()))


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file, parsed."""
    names = [name for name in files() if name.endswith(".py")]
    return tuple(Source(name, text := (ROOT / name).read_text(), ast.parse(text, name)) for name in names)


def shipped() -> Iterator[Source]:
    """The files of our distributions."""
    return (source for source in sources() if source.shipped)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute chain; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""
