"""Settings: file < environment < flags, loud about what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config import Settings, load
from wire.errors import LocalError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"QUORATE_{name.upper()}", raising=False)
    return tmp_path


def test_flags_beat_the_environment_which_beats_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text("price_percent = 10\nworker_slots = 5\n")
    assert load({"home": home}).price_percent == 10
    monkeypatch.setenv("QUORATE_PRICE_PERCENT", "20")
    assert load({"home": home}).price_percent == 20
    loaded = load({"home": home, "price_percent": 30})
    assert (loaded.price_percent, loaded.worker_slots) == (30, 5)


def test_an_unknown_key_is_named_with_those_that_are_known(home: Path) -> None:
    (home / "config.toml").write_text('colour = "red"\n')
    with pytest.raises(LocalError, match=r"unknown key 'colour'.*worker_slots"):
        load({"home": home})


@pytest.mark.parametrize(
    ("line", "named"),
    [("worker_slots = 0", "worker_slots"), ('log_level = "loud"', "log_level"), ("listen = 3", "listen")],
)
def test_a_bad_value_is_named(home: Path, line: str, named: str) -> None:
    (home / "config.toml").write_text(line)
    with pytest.raises(LocalError, match=named):
        load({"home": home})


def test_an_unreadable_file_is_an_error_and_not_the_defaults(home: Path) -> None:
    (home / "config.toml").write_text("this is not toml")
    with pytest.raises(LocalError, match=r"config\.toml"):
        load({"home": home})


def test_a_named_file_must_exist(home: Path) -> None:
    with pytest.raises(LocalError, match=r"other\.toml"):
        load({"home": home}, file=home / "other.toml")
