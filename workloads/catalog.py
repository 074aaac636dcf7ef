"""The models of this node: manifests, their CIDs, and files that are checked before they are used.

A model is a folder with `manifest` (canonical bytes of `Manifest`; their CID is the model's CID), `card.json` and the
files that the manifest lists with size and SHA-256. Reading capabilities loads only the manifests.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import cast

from wire import cid, codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed, StorageError
from wire.job import Kind
from workloads.executor import NUMERICS, Capabilities, ModelInfo

BUILT_IN = Path(__file__).resolve().parent / "models"
FILE_BYTES_MAX = 2 << 20
"""Longest file of an embedded model."""


class FileEntry(Wire, frozen=True):
    """A file of a model: its length and 32-byte SHA-256."""

    size: int
    sha256: bytes


class Manifest(Wire, frozen=True):
    """Everything that decides a model's answers; `config` holds the network's whole numbers by name."""

    version: int
    name: str
    kind: Kind
    config: dict[str, int]
    files: dict[str, FileEntry]


class Model:
    """One model folder, opened lazily."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = _read(folder / "manifest")
        try:
            self.manifest = codec.decode(Manifest, raw)
        except Malformed as exc:
            raise StorageError(f"{folder / 'manifest'}: {exc}") from exc
        self.cid = cid.of(raw)

    @property
    def info(self) -> ModelInfo:
        """What others may know about it."""
        return ModelInfo(self.manifest.name, self.cid, self.manifest.kind, list(NUMERICS), list(NUMERICS.values()))

    def read(self, name: str) -> bytes:
        """The bytes of a listed file.

        Raises:
            StorageError: missing, or not the bytes that the manifest lists.
        """
        entry = self.manifest.files[name]
        raw = _read(self.folder / name)
        if len(raw) != entry.size or hashlib.sha256(raw).digest() != entry.sha256:
            raise StorageError(f"{self.folder / name} is damaged: it does not match its manifest")
        return raw

    def card(self) -> dict[str, object]:
        """The model card.

        Raises:
            StorageError: missing or not a JSON object.
        """
        try:
            card = json.loads(_read(self.folder / "card.json"))
        except ValueError as exc:
            raise StorageError(f"{self.folder / 'card.json'}: {exc}") from exc
        if not isinstance(card, dict):
            raise StorageError(f"{self.folder / 'card.json'} is not an object")
        return cast(dict[str, object], card)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise StorageError(f"cannot read {path}: {exc.strerror}") from exc
    if len(raw) > FILE_BYTES_MAX:
        raise StorageError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
    return raw


class Catalog:
    """All models under one folder, by name.

    Raises:
        StorageError: a manifest is unreadable or malformed.
    """

    def __init__(self, folder: Path = BUILT_IN) -> None:
        try:
            found = sorted(path.parent for path in folder.glob("*/manifest"))
        except OSError as exc:
            raise StorageError(f"cannot read {folder}: {exc.strerror}") from exc
        self.models = {model.manifest.name: model for model in map(Model, found)}

    def capabilities(self) -> Capabilities:
        """The models with their CIDs, kinds and lanes."""
        return Capabilities([model.info for model in self.models.values()])

    def find(self, model: str, kind: Kind | None = None) -> Model:
        """The model with this name or CID, of this kind if given.

        Raises:
            LocalError: unknown, or of another kind; names those that are known.
        """
        known = {m.manifest.name: m for m in self.models.values() if kind in (None, m.manifest.kind)}
        for candidate in known.values():
            if model in (candidate.manifest.name, candidate.cid):
                return candidate
        what = f" for {kind}" if kind else ""
        raise LocalError(f"unknown model {model[:80]!r}{what}; known: {', '.join(sorted(known)) or 'none'}")


@functools.cache
def built_in() -> Catalog:
    """The models that ship with the node."""
    return Catalog()
