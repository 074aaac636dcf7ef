"""Where a node's key lives: `<home>/identity.key`, made on first use, backed up and restored here."""

from __future__ import annotations

from pathlib import Path

from node import config
from node.config import Settings
from wire import keyfile
from wire.errors import LocalError, StorageError
from wire.identity import Identity
from wire.peer import to_text

KEY_FILE = "identity.key"


def read_passphrase(file: Path | None) -> str | None:
    """The passphrase in a file, without the line's end.

    Raises:
        StorageError: the file cannot be read.
        LocalError: it is empty.
    """
    if file is None:
        return None
    try:
        found = file.read_text().rstrip("\n")
    except (OSError, ValueError) as exc:
        raise StorageError(f"passphrase file: {exc}") from exc
    if not found:
        raise LocalError(f"passphrase file {file} is empty")
    return found


def passphrase(settings: Settings) -> str | None:
    """The passphrase of the key file, where one is configured.

    Raises:
        StorageError: its file cannot be read.
        LocalError: it is empty.
    """
    return read_passphrase(settings.passphrase_file)


def load_or_create(settings: Settings) -> Identity:
    """This node's identity; a new one if the home has none.

    Raises:
        LocalError: the key file is unreadable, damaged or open to other users, with the way out.
    """
    path = settings.home / KEY_FILE
    if path.exists():
        return keyfile.load(path, passphrase(settings))
    return keyfile.create(path, passphrase(settings))


def backup(home: Path | None, dest: Path, secret: str | None) -> None:
    """Write an encrypted copy of the key; `secret` opens the key file and seals the copy."""
    if not secret:
        raise LocalError("a backup is always encrypted: give --passphrase-file")
    settings = config.load({"home": home})
    keyfile.backup(settings.home / KEY_FILE, dest, secret, source_passphrase=passphrase(settings))


def restore(home: Path | None, source: Path, secret: str | None) -> str:
    """Install the key from a backup and return its peer id."""
    if not secret:
        raise LocalError("a backup is encrypted: give --passphrase-file")
    settings = config.load({"home": home})
    stored = passphrase(settings)
    return to_text(keyfile.restore(source, settings.home / KEY_FILE, secret, stored_passphrase=stored).peer)
