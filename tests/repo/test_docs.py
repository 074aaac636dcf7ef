"""The documentation is whole: every page is reachable, every link leads somewhere, nothing is undocumented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from node.cli import app
from node.config import Settings
from tests.repo.project import ROOT, files

PAGES = [name for name in files() if name.endswith(".md")]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def _links(page: str) -> Iterator[str]:
    for target in LINK.findall(CODE.sub("", (ROOT / page).read_text())):
        if not re.match(r"[a-z]+:", target):
            yield target


def _resolve(page: str, target: str) -> tuple[str, str]:
    """The file (relative to the root) and anchor that a link on `page` leads to."""
    path, _, anchor = target.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    return str(file.resolve().relative_to(ROOT)), anchor


def _anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    broken = []
    for target in _links(page):
        file, anchor = _resolve(page, target)
        if not (ROOT / file).exists() or (anchor and file.endswith(".md") and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_linked_from_the_index() -> None:
    linked = {_resolve("docs/index.md", target)[0] for target in _links("docs/index.md")}
    assert {page for page in PAGES if page.startswith("docs/")} - linked == {"docs/index.md"}


def test_the_architecture_names_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {name.split("/")[0] for name in files() if "/" in name}
    assert [folder for folder in sorted(folders) if f"`{folder}/" not in text] == []


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _commands(child, f"{path} {name}")


COMMANDS = dict(_commands(typer.main.get_command(app), "quorate"))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_documented(path: str) -> None:
    """A row of the reference's table begins with the command."""
    rows = (ROOT / "docs/reference/cli.md").read_text().splitlines()
    assert any(re.match(rf"\| `{path}[ `]", row) for row in rows)
    assert COMMANDS[path].help


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_documented(path: str) -> None:
    """In its command's row, or in the text above the table, which holds for all."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    above = text.split("| command", 1)[0]
    row = next(line for line in text.splitlines() if re.match(rf"\| `{path}[ `]", line))
    missing = [
        param.name
        for param in COMMANDS[path].params
        if (names := [name for name in (*param.opts, *param.secondary_opts) if name.startswith("--")])
        and "--help" not in names
        and not any(re.search(rf"{name}\b", row + above) for name in names)
    ]
    assert missing == []


def test_no_command_is_documented_that_is_not_there() -> None:
    rows = re.findall(r"^\| `(quorate [a-z ]*[a-z])", (ROOT / "docs/reference/cli.md").read_text(), flags=re.MULTILINE)
    assert set(rows) == set(COMMANDS)


def test_every_setting_is_documented_and_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/reference/configuration.md").read_text(), flags=re.MULTILINE)
    assert sorted(rows) == sorted(Settings.model_fields)
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
