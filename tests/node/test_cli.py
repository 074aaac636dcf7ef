"""Wrong usage and broken files: one line that says what to do, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.api import TOKEN_CHARS_MIN, token_file
from node.cli import app
from node.config import Settings

TEXT = ["job", "submit", "text.generate", "bytes-gpt"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"QUORATE_{name.upper()}", raising=False)
    monkeypatch.setenv("QUORATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ([*TEXT, "{bad"], "the input is not JSON", 2),
        ([*TEXT, '{"prompt": "x", "temperature": NaN}'], "NaN is not a number of JSON", 2),
        ([*TEXT, '{"prompt": "x"}', "--timeout-s", "nan"], "--timeout-s must be", 2),
        ([*TEXT, '{"prompt": "x"}'], "is one running?", 1),
        (["peers"], "is one running?", 1),
        (["relay", "--show"], "is one running?", 1),
        (["relay", "--listen", "foo"], "'foo' is not a TCP multiaddr", 1),
        (["doctor", "network"], "is one running?", 1),
        (["doctor", "elsewhere"], "no such area", 2),
        (["ping", "12D3KooW"], "is one running?", 1),
        (["id", "backup", "copy", "--passphrase-file", "missing"], "passphrase file", 1),
        (["id", "restore", "copy", "--passphrase-file", "missing"], "passphrase file", 1),
        (["id", "show", "--passphrase-file", "missing"], "passphrase file", 1),
        (["id", "backup", "copy"], "give --passphrase-file", 1),
        (["up", "--listen", "foo"], "'foo' is not a TCP multiaddr", 1),
        (["up", "--bootstrap", "/ip4/127.0.0.1/udp/1"], "is not a TCP multiaddr", 1),
        (["up", "--cheat", "nope"], "fewer-steps", 1),
        (["up", "--model", "nope", "--listen", "/ip4/127.0.0.1/tcp/0"], "bytes-gpt", 1),
    ],
)
def test_it_says_what_is_wrong_in_one_line(home: Path, arguments: list[str], said: str, code: int) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1), done.output
    assert done.stderr.startswith("quorate: ")
    assert said in done.stderr


def test_an_empty_passphrase_file_is_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    done = CliRunner().invoke(app, ["id", "show", "--passphrase-file", str(tmp_path / "empty")])
    assert (done.exit_code, done.stderr) == (1, f"quorate: passphrase file {tmp_path / 'empty'} is empty\n")


def test_a_token_file_that_a_crash_left_empty_is_written_anew(tmp_path: Path) -> None:
    """With an empty token, a request without any would be let in."""
    (tmp_path / "api.token").write_text("")
    token = token_file(tmp_path)
    assert len(token) >= TOKEN_CHARS_MIN
    assert token_file(tmp_path) == token
    assert (tmp_path / "api.token").stat().st_mode & 0o777 == 0o600


def test_a_home_is_absolute_so_that_clients_elsewhere_find_its_token(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.config import load

    monkeypatch.chdir(tmp_path)
    assert load({"home": Path("here")}).home == tmp_path / "here"


def test_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("quorate ")
