"""What is public reads as a product: no path of somebody's machine, no trace of how the work was organised."""

from __future__ import annotations

import re

import pytest

from tests.repo.project import ROOT, files

WORDS = {
    "a path of one machine": r"(?<![\w.-])/(?:wor[k]|roo[t]|User[s]/\w+|hom[e]/(?!<|user|you|me\b)\w+)/",
    "a path outside the repository": r"\.\./share[d]\b",
    "a number in somebody's list": r"\b[Ii]ssue[s]? #?\d{1,2}\b",
    "how it was made": r"\b(?:sub-?agen[t]s?|co-?authore[d]-by|prompt engineerin[g]|steering rep[o]|AI assistan[t])\b",
    "a private index": r"--(?:extra-)?index-ur[l]|file:///op[t]",
}
TEXT = (".py", ".md", ".toml", ".txt", ".json", ".yml", ".yaml", ".cfg", ".sh", ".html", ".js", ".css")
NAMES = ("Makefile", "LICENSE", "run", "lock", ".gitignore")


@pytest.mark.parametrize("pattern", WORDS.values(), ids=WORDS)
def test_no_file_says(pattern: str) -> None:
    found = [
        f"{name}:{number} {line.strip()[:120]}"
        for name in files()
        if name.endswith(TEXT) or name.rsplit("/", 1)[-1] in NAMES
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []
