"""Our import names are ours: flat names are only safe while no other distribution installs the same."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from tests.repo.project import PACKAGES, ROOT

OURS = {"quorate-node", "quorate"}


@pytest.mark.parametrize("name", [*PACKAGES, "quorate", "benchmarks"])
def test_no_other_distribution_owns_our_name(name: str) -> None:
    owners = importlib.metadata.packages_distributions().get(name, [])
    assert set(owners) <= OURS


@pytest.mark.parametrize("name", [*PACKAGES, "quorate", "benchmarks"])
def test_our_name_is_imported_from_here(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve().is_relative_to(ROOT)


def test_the_wheel_holds_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(PACKAGES) == set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert {*PACKAGES, "quorate"} == set(project["tool"]["importlinter"]["root_packages"])
    assert {*PACKAGES, "quorate"} == set(project["tool"]["mypy"]["packages"])


def test_both_distributions_have_one_version() -> None:
    versions = {
        tomllib.loads((ROOT / path).read_text())["project"]["version"]
        for path in ("pyproject.toml", "sdk/pyproject.toml")
    }
    assert len(versions) == 1


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _wanted(project: dict[str, object]) -> set[str]:
    optional = project.get("optional-dependencies", {})
    assert isinstance(optional, dict)
    lists = [project["dependencies"], *(optional[extra] for extra in ("test", "check") if extra in optional)]
    return {_normal(re.split(r"[<>=!\[; ]", name)[0]) for names in lists if isinstance(names, list) for name in names}


def test_the_lock_names_every_dependency_exactly_and_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    assert [row for row in rows if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", row)] == []
    locked = {_normal(row.split("==")[0]) for row in rows}
    assert len(locked) == len(rows)
    for path in ("pyproject.toml", "sdk/pyproject.toml"):
        assert _wanted(tomllib.loads((ROOT / path).read_text())["project"]) - OURS - locked == set()


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
