"""Text that ships with Python: the language reference topics and the docstrings of installed packages.

The order is fixed by sorted paths, so equal package versions give equal corpora; the card records the SHA-256.
Held-out items are chosen by a hash of their own text, never by position.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "turtledemo",
    "_vendor",
    "externals",
}


def standard_library() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    origin = spec.origin if spec else None
    assert origin is not None, f"{name} is not installed"
    return Path(origin).parent


def docstrings(root: Path) -> Iterator[str]:
    """Every docstring under `root`, in the order of sorted paths."""
    for path in sorted(root.rglob("*.py")):
        if SKIPPED & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield text


def is_held_out(text: str, *, one_in: int) -> bool:
    """Whether `text` belongs to the held-out part; a function of the text alone."""
    return hashlib.sha256(text.encode()).digest()[0] % one_in == 0


def _plain(text: str) -> str:
    text = text.replace("\t", "    ").replace("\r", "")
    text = "".join(c for c in text if c == "\n" or " " <= c <= "~")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ ]+\n", "\n", text)).strip()


def documents() -> tuple[list[str], list[str]]:
    """Documents for the language model as (training, held out): topics of `pydoc` and stdlib docstrings."""
    from pydoc_data.topics import topics

    found = [_plain(text) for _, text in sorted(topics.items())]
    found += [_plain(text) for text in docstrings(standard_library())]
    unique = list(dict.fromkeys(text for text in found if len(text) >= 80))
    held = [text for text in unique if is_held_out(text, one_in=32)]
    return [text for text in unique if not is_held_out(text, one_in=32)], held


def pairs(names: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(first paragraph, following paragraph) of docstrings, as (training, held out), without duplicates."""
    roots = [standard_library(), *(package(name) for name in names)]
    train: dict[str, str] = {}
    held: dict[str, str] = {}
    bodies: set[str] = set()
    for root in roots:
        for text in docstrings(root):
            parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
            if len(parts) < 2 or not 16 <= len(parts[0]) <= 300:
                continue
            body = " ".join(parts[1:4])[:400]
            if len(body) < 60 or parts[0] in train or parts[0] in held or body in bodies:
                continue
            bodies.add(body)
            (held if is_held_out(parts[0], one_in=16) else train)[parts[0]] = body
    return list(train.items()), list(held.items())
