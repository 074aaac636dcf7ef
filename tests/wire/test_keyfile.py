"""Key files: private, whole or absent, never overwritten, and clear about what is wrong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from wire import keyfile
from wire.errors import LocalError, StorageError
from wire.identity import Identity

FAST = 14
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "keyfile.json").read_text())


@pytest.fixture(autouse=True)
def _quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile, "LOG2_N", FAST)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "home" / "node.key"


def _put(path: Path, raw: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vector(vector: dict[str, str], key: Path) -> None:
    _put(key, bytes.fromhex(vector["hex"]))
    if "seed" in vector:
        assert vector["seed"] == keyfile.load(key, vector["passphrase"]).seed.hex()
    else:
        with pytest.raises((LocalError, StorageError), match=vector["refused"]):
            keyfile.load(key, vector["passphrase"])


def test_what_was_created_is_what_loads(key: Path) -> None:
    assert keyfile.create(key) == keyfile.load(key)


def test_a_passphrase_seals_the_seed(key: Path) -> None:
    identity = keyfile.create(key, "pässword", log2_n=FAST)
    assert identity.seed not in key.read_bytes()
    assert keyfile.load(key, "pässword") == identity
    assert keyfile.load(key, "pa\u0308ssword") == identity, "composed and decomposed letters are one passphrase"
    with pytest.raises(LocalError, match="wrong passphrase"):
        keyfile.load(key, "password")
    with pytest.raises(LocalError, match="needs its passphrase"):
        keyfile.load(key)


def test_the_default_cost_of_a_passphrase_is_the_documented_one() -> None:
    assert keyfile.create.__kwdefaults__ == {"log2_n": 17}


def test_modes_hold_under_any_umask(key: Path) -> None:
    before = os.umask(0)
    try:
        keyfile.create(key)
    finally:
        os.umask(before)
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert list(key.parent.iterdir()) == [key], "no temporary file stays behind"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_may_read_is_refused_with_the_fix(key: Path, mode: int) -> None:
    keyfile.create(key)
    key.chmod(mode)
    with pytest.raises(LocalError, match=f"chmod 600 {key}"):
        keyfile.load(key)


def test_an_existing_key_is_never_overwritten(key: Path) -> None:
    identity = keyfile.create(key)
    with pytest.raises(LocalError, match="exists"):
        keyfile.create(key)
    assert keyfile.load(key) == identity


def test_a_dangling_link_counts_as_existing(key: Path) -> None:
    key.parent.mkdir()
    key.symlink_to(key.parent / "nowhere")
    with pytest.raises(LocalError, match="exists"):
        keyfile.create(key)


def test_a_missing_file_and_a_folder_are_named(key: Path) -> None:
    with pytest.raises(LocalError, match="no key file at"):
        keyfile.load(key)
    key.mkdir(parents=True)
    with pytest.raises(LocalError, match="not a file"):
        keyfile.load(key)


def test_an_unneeded_or_empty_passphrase_is_refused(key: Path) -> None:
    keyfile.create(key)
    with pytest.raises(LocalError, match="not encrypted"):
        keyfile.load(key, "secret")
    with pytest.raises(LocalError, match="empty passphrase"):
        keyfile.create(key.with_name("other"), "")


@pytest.mark.parametrize("passphrase", [None, "secret"])
def test_every_truncation_is_refused(key: Path, passphrase: str | None) -> None:
    keyfile.create(key, passphrase, log2_n=FAST)
    raw = key.read_bytes()
    for size in range(len(raw)):
        _put(key, raw[:size])
        with pytest.raises(StorageError, match="damaged"):
            keyfile.load(key, passphrase)


def test_every_flipped_bit_of_a_plain_file_is_noticed(key: Path) -> None:
    keyfile.create(key)
    raw = key.read_bytes()
    for at in range(len(raw)):
        _put(key, raw[:at] + bytes([raw[at] ^ 0x01]) + raw[at + 1 :])
        with pytest.raises(LocalError):
            keyfile.load(key)


def test_altered_sealed_files_are_noticed(key: Path) -> None:
    keyfile.create(key, "secret", log2_n=FAST)
    raw = key.read_bytes()
    for at in (20, 60, 70, len(raw) - 40, len(raw) - 1):
        _put(key, raw[:at] + bytes([raw[at] ^ 0x01]) + raw[at + 1 :])
        with pytest.raises(LocalError):
            keyfile.load(key, "secret")


def test_an_oversized_file_is_refused(key: Path) -> None:
    _put(key, keyfile.MAGIC + bytes(1 << 20))
    with pytest.raises(StorageError, match="damaged"):
        keyfile.load(key)


@pytest.mark.parametrize(("code", "why"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "Read-only")])
def test_a_disk_that_fails_leaves_nothing_behind(
    key: Path, monkeypatch: pytest.MonkeyPatch, code: int, why: str
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match=why):
            keyfile.create(key)
    assert list(key.parent.iterdir()) == []


def test_a_file_system_without_links_serves_too(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_new: Path, _old: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", fail)
    identity = keyfile.create(key)
    assert keyfile.load(key) == identity
    assert list(key.parent.iterdir()) == [key]
    with pytest.raises(LocalError, match="exists"):
        keyfile.create(key)


def test_a_disk_that_fails_while_a_key_is_replaced_keeps_the_old_one(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = keyfile.create(key)
    keyfile.create(key.with_name("other.key"))

    def fail(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="disk is full"):
            keyfile.restore(key.with_name("other.key"), key, None, force=True)
    assert keyfile.load(key) == old


def test_an_unreadable_file_is_a_storage_error(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyfile.create(key)

    def fail(*_args: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StorageError, match="Permission denied"):
        keyfile.load(key)


def test_a_backup_restores(key: Path, tmp_path: Path) -> None:
    identity = keyfile.create(key)
    copy = tmp_path / "backup"
    assert keyfile.backup(key, copy, "secret") == identity
    assert identity.seed not in copy.read_bytes()
    key.unlink()
    copy.chmod(0o644)
    assert keyfile.restore(copy, key, "secret") == identity
    assert keyfile.load(key) == identity


def test_a_sealed_key_is_backed_up_under_either_passphrase(key: Path, tmp_path: Path) -> None:
    identity = keyfile.create(key, "one", log2_n=FAST)
    assert keyfile.backup(key, tmp_path / "a", "one") == identity
    assert keyfile.backup(key, tmp_path / "b", "two", source_passphrase="one") == identity
    assert keyfile.restore(tmp_path / "b", tmp_path / "c", "two", stored_passphrase="three") == identity
    assert keyfile.load(tmp_path / "c", "three") == identity
    with pytest.raises(LocalError, match="wrong passphrase"):
        keyfile.backup(key, tmp_path / "d", "two")
    assert not (tmp_path / "d").exists()


def test_a_backup_never_overwrites(key: Path, tmp_path: Path) -> None:
    keyfile.create(key)
    copy = _put(tmp_path / "copy", b"something else")
    with pytest.raises(LocalError, match="exists"):
        keyfile.backup(key, copy, "secret")
    assert copy.read_bytes() == b"something else"


def test_restore_replaces_only_by_force_and_only_after_it_verified(key: Path, tmp_path: Path) -> None:
    first = keyfile.create(key)
    second = keyfile.create(tmp_path / "second.key")
    with pytest.raises(LocalError, match="exists"):
        keyfile.restore(tmp_path / "second.key", key, None)
    bad = _put(tmp_path / "bad", (tmp_path / "second.key").read_bytes()[:-1])
    with pytest.raises(StorageError, match="damaged"):
        keyfile.restore(bad, key, None, force=True)
    assert keyfile.load(key) == first
    assert keyfile.restore(tmp_path / "second.key", key, None, force=True) == second
    assert keyfile.load(key) == second


def test_a_plain_copy_that_others_may_read_is_not_restored(key: Path, tmp_path: Path) -> None:
    keyfile.create(key)
    key.chmod(0o644)
    with pytest.raises(LocalError, match="chmod"):
        keyfile.restore(key, tmp_path / "new.key", None)


def test_an_error_never_shows_the_seed(key: Path) -> None:
    identity = Identity.from_seed(b"\x07" * 32)
    _put(key, keyfile._pack(identity, None, FAST)[:-1] + b"\x08")
    with pytest.raises(StorageError) as caught:
        keyfile.load(key)
    assert "07070707" not in str(caught.value)
    assert "\\x07" not in str(caught.value)
