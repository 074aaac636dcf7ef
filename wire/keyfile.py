"""Key files: the one 32-byte root seed of a node on disk, readable by its owner alone.

A file is `MAGIC` and the canonical bytes of `KeyFile`. With a passphrase the seed is sealed by
ChaCha20-Poly1305 (RFC 8439) under a scrypt key (RFC 7914; n = 2**17, r = 8, p = 1, 128 MiB and about half a
second, as OWASP's password storage guide advises), with everything else in the file as associated data.

Invariants: a file appears whole or not at all, with mode 0600 from its first byte; no existing key is
overwritten unless that is asked for by name; whatever is read is checked against the peer it claims to be.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from wire import codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed, StorageError
from wire.identity import SEED_BYTES, Identity

MAGIC = b"quorate key\n"
VERSION = 1
FILE_BYTES_MAX = 1024
LOG2_N = 17
LOG2_N_MIN = 14
LOG2_N_MAX = 20


class Sealing(Wire, frozen=True):
    """How a sealed seed is opened: scrypt's 16-byte `salt` and log2 of its cost, ChaCha20-Poly1305's 12-byte nonce."""

    log2_n: int
    salt: bytes
    nonce: bytes


class KeyFile(Wire, frozen=True):
    """What a key file holds; `seed` has 32 bytes, or 48 where `sealing` is set."""

    version: int
    peer: bytes
    sealing: Sealing | None
    seed: bytes


def create(path: Path, passphrase: str | None = None, *, log2_n: int = LOG2_N) -> Identity:
    """Make a new identity and write it to `path`; missing folders are made with mode 0700.

    Raises:
        LocalError: `path` exists, or the passphrase is empty.
        StorageError: the disk is full, or the folder cannot be written; nothing is left behind.
    """
    identity = Identity.generate()
    _write(path, _pack(identity, passphrase, log2_n), force=False)
    return identity


def load(path: Path, passphrase: str | None = None) -> Identity:
    """The identity in the key file at `path`.

    Raises:
        LocalError: no such file, others may read it, or the passphrase is wrong, missing or not needed.
        StorageError: the file cannot be read, or is damaged.
    """
    return _unpack(path, _read(path, private=True), passphrase)


def backup(path: Path, dest: Path, passphrase: str, *, source_passphrase: str | None = None) -> Identity:
    """Write an encrypted copy of the key at `path` to `dest`, which must not exist, and read it back.

    Args:
        path: the key file.
        dest: where the copy goes.
        passphrase: opens the copy.
        source_passphrase: opens the key file, if that is encrypted; left out, `passphrase` is tried.

    Raises:
        LocalError, StorageError: as `load` and `create`.
    """
    file = _read(path, private=True)
    if file.sealing is not None and source_passphrase is None:
        source_passphrase = passphrase
    identity = _unpack(path, file, source_passphrase)
    _write(dest, _pack(identity, passphrase, LOG2_N), force=False)
    if _unpack(dest, _read(dest, private=False), passphrase) != identity:
        raise StorageError(f"{dest} does not read back as it was written")
    return identity


def restore(
    src: Path, path: Path, passphrase: str | None, *, stored_passphrase: str | None = None, force: bool = False
) -> Identity:
    """Write the key in the backup `src` to `path`; the backup is opened and verified first.

    Args:
        src: a backup, or a plain copy of a key file.
        path: the key file to write.
        passphrase: opens the backup; None for a plain copy.
        stored_passphrase: encrypts the written file; None leaves it as `create` does.
        force: replace an existing key file, whose identity is lost unless it has a backup.

    Raises:
        LocalError: `path` exists and `force` is not set, or as `load`.
        StorageError: as `load` and `create`; an existing key file is left as it was.
    """
    file = _read(src, private=False)
    if file.sealing is None:
        file = _read(src, private=True)
    identity = _unpack(src, file, passphrase)
    _write(path, _pack(identity, stored_passphrase, LOG2_N), force=force)
    return identity


def _pack(identity: Identity, passphrase: str | None, log2_n: int) -> bytes:
    if passphrase is None:
        return MAGIC + codec.encode(KeyFile(VERSION, identity.peer, None, identity.seed))
    sealing = Sealing(log2_n, secrets.token_bytes(16), secrets.token_bytes(12))
    file = KeyFile(VERSION, identity.peer, sealing, b"")
    sealed = _cipher(passphrase, sealing).encrypt(sealing.nonce, identity.seed, _associated(file))
    return MAGIC + codec.encode(msgspec.structs.replace(file, seed=sealed))


def _unpack(path: Path, file: KeyFile, passphrase: str | None) -> Identity:
    if file.sealing is None:
        if passphrase is not None:
            raise LocalError(f"{path} is not encrypted; open it without a passphrase")
        seed = file.seed
    elif passphrase is None:
        raise LocalError(f"{path} is encrypted; it needs its passphrase")
    else:
        try:
            seed = _cipher(passphrase, file.sealing).decrypt(file.sealing.nonce, file.seed, _associated(file))
        except InvalidTag as exc:
            raise LocalError(f"wrong passphrase for {path}, or the file was altered") from exc
    if len(seed) != SEED_BYTES or Identity.from_seed(seed).peer != file.peer:
        raise StorageError(f"{path} is damaged: its key is not that of the peer it names; restore it from a backup")
    return Identity.from_seed(seed)


def _associated(file: KeyFile) -> bytes:
    return MAGIC + codec.encode(msgspec.structs.replace(file, seed=b""))


def _cipher(passphrase: str, sealing: Sealing) -> ChaCha20Poly1305:
    if not passphrase:
        raise LocalError("an empty passphrase protects nothing")
    secret = unicodedata.normalize("NFC", passphrase).encode()
    try:
        return ChaCha20Poly1305(Scrypt(sealing.salt, 32, 2**sealing.log2_n, r=8, p=1).derive(secret))
    except MemoryError as exc:
        raise LocalError(f"opening the key takes {2**sealing.log2_n >> 10} MiB of memory") from exc


def _read(path: Path, *, private: bool) -> KeyFile:
    """The decoded file; `private` refuses one that others may read."""
    with _storage(path, "read"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise LocalError(f"{path} is not a file")
            if private and mode & 0o077:
                raise LocalError(f"others may read {path} (mode {mode & 0o777:04o}); run: chmod 600 {path}")
            raw = os.read(fd, FILE_BYTES_MAX + 1)
        finally:
            os.close(fd)
    if not raw.startswith(MAGIC):
        raise StorageError(f"{path} is not a key file, or is damaged")
    try:
        file = codec.decode(KeyFile, raw[len(MAGIC) :], bytes_max=FILE_BYTES_MAX)
    except Malformed as exc:
        raise StorageError(f"{path} is damaged ({exc}); restore it from a backup") from exc
    if file.version != VERSION:
        raise LocalError(f"{path} has format {file.version}; this version reads format {VERSION}")
    sealing = file.sealing
    if sealing is not None and not (
        LOG2_N_MIN <= sealing.log2_n <= LOG2_N_MAX and len(sealing.salt) == 16 and len(sealing.nonce) == 12
    ):
        raise StorageError(f"{path} is damaged: impossible scrypt or nonce parameters")
    return file


def _write(path: Path, raw: bytes, *, force: bool) -> None:
    """Put `raw` at `path`: a finished temporary file is linked (or, by force, moved) into place."""
    exists = f"{path} exists; a key file is never overwritten unless forced"
    with _storage(path, "write"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not force and os.path.lexists(path):
            raise LocalError(exists)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
        try:
            _write_new(temporary, raw)
            if force:
                temporary.replace(path)
            else:
                _link(temporary, path, raw)
        except FileExistsError as exc:
            raise LocalError(exists) from exc
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        _sync_folder(path.parent)


def _link(temporary: Path, path: Path, raw: bytes) -> None:
    """Give the finished file its name, which must be free; file systems without links (FAT) get a second copy."""
    try:
        path.hardlink_to(temporary)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        _write_new(path, raw)


def _write_new(path: Path, raw: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(fd)
    except OSError:
        path.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _storage(path: Path, verb: str) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except FileNotFoundError as exc:
        raise LocalError(f"there is no key file at {path}") from exc
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"the disk is full: could not {verb} {path}; nothing was changed") from exc
        raise StorageError(f"cannot {verb} {path}: {exc.strerror or exc}") from exc
