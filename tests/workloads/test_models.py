"""The models that ship: small, whole, described, and as good as their cards say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.workloads.specs import spec
from wire import cid
from wire.errors import LocalError, StorageError
from wire.job import EmbedInput, ImageInput
from workloads import catalog, quality, weights
from workloads.catalog import BUILT_IN, Catalog, Model
from workloads.executor import never
from workloads.local import LocalExecutor
from workloads.variants import find

MODELS = [Model(path) for path in sorted(BUILT_IN.iterdir()) if path.is_dir()]
by_name = pytest.mark.parametrize("model", MODELS, ids=[model.manifest.name for model in MODELS])


def test_every_kind_of_job_has_a_model() -> None:
    assert [model.manifest.kind for model in MODELS] == ["text.generate", "image.generate", "embed.text"]


@by_name
def test_a_model_takes_at_most_two_megabytes(model: Model) -> None:
    assert sum(path.stat().st_size for path in model.folder.iterdir()) <= 2_000_000


@by_name
def test_the_cid_names_the_manifest_and_the_manifest_every_file(model: Model) -> None:
    assert model.cid == cid.of((model.folder / "manifest").read_bytes())
    for name in model.manifest.files:
        assert model.read(name)


@by_name
def test_the_card_is_complete(model: Model) -> None:
    card = model.card()
    for key in ("summary", "data", "data_licence", "licence", "training", "limits"):
        assert isinstance(card[key], str), key
        assert card[key], key
    assert card["name"] == model.manifest.name
    assert card["cid"] == model.cid
    assert card["parameters"] == sum(t.size for t in weights.load(model.read("weights.safetensors")).values())
    assert str(card["retrain"]).startswith("python -m workloads.train ")
    assert (Path(catalog.__file__).parent / "train" / f"{str(card['retrain']).split()[-1]}.py").is_file()


def figure(model: Model) -> float:
    found = model.card()["quality"]
    assert isinstance(found, dict)
    return float(found["value"])


def test_the_language_model_is_as_good_as_its_card() -> None:
    assert quality.bits_per_byte(MODELS[0], 64) == pytest.approx(figure(MODELS[0]), abs=2e-3)


def test_a_language_model_that_guessed_would_need_eight_bits() -> None:
    assert figure(MODELS[0]) < 2.0


def test_generated_digits_are_read_as_what_was_asked_for() -> None:
    """A sample of 50 pictures with fewer steps than the card's 400."""
    pixels, labels = quality.generated(MODELS[1], 50, steps=15)
    accuracy = float((quality.read_digits(MODELS[1].folder, pixels) == labels).mean())
    assert figure(MODELS[1]) > 0.95
    assert accuracy > figure(MODELS[1]) - 0.08


def test_the_embedder_is_as_good_as_its_card() -> None:
    assert quality.recall_at_1(MODELS[2]) == pytest.approx(figure(MODELS[2]), abs=0.006)
    assert figure(MODELS[2]) > 0.5


def test_similar_texts_lie_closer_than_others() -> None:
    texts = ["Return the mean of the array.", "Compute the average value of an array.", "Open a network socket."]
    job = spec("embed.text", EmbedInput(texts))
    executor = LocalExecutor(find("default"))
    vectors = executor.run(job, emit=lambda event: None, cancelled=never)[0].tensors["vectors"].numpy().astype(float)
    alike = vectors @ vectors.T
    assert alike[0, 1] > alike[0, 2] + 0.1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the built-in models that a test may damage."""
    return Path(shutil.copytree(BUILT_IN, tmp_path / "models"))


@pytest.mark.parametrize("name", ["weights.safetensors", "graph.onnx"])
@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_a_storage_error(folder: Path, name: str, how: str) -> None:
    path = folder / "digits-ddim" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(raw if how == "flip" else raw[:-1])
    executor = LocalExecutor(find("default"), models=Catalog(folder))
    with pytest.raises(StorageError, match=name):
        executor.run(spec("image.generate", ImageInput(1, 2)), emit=lambda event: None, cancelled=never)


def test_a_damaged_manifest_is_a_storage_error(folder: Path) -> None:
    (folder / "ngram-embed" / "manifest").write_bytes(b"\x00")
    with pytest.raises(StorageError, match="manifest"):
        Catalog(folder)


def test_a_job_may_name_its_model_by_cid_or_by_name() -> None:
    found = catalog.built_in()
    assert found.find("digits-ddim").cid == found.find(found.find("digits-ddim").cid, "image.generate").cid
    with pytest.raises(LocalError, match="bytes-gpt, digits-ddim, ngram-embed"):
        found.find("bafkreiunknown")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "header does not fit"),
        ((1 << 40).to_bytes(8, "little"), "header does not fit"),
        ((4).to_bytes(8, "little") + b"null", "malformed header"),
        ((2).to_bytes(8, "little") + b"[]", "malformed header"),
    ],
)
def test_a_weight_file_of_another_layout_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        weights.load(raw)


@pytest.mark.parametrize(
    "change", [{"shape": [3]}, {"dtype": "F16"}, {"data_offsets": [0, 9]}, {"data_offsets": [-4, 0]}]
)
def test_a_weight_file_with_a_tensor_outside_its_bytes_is_refused(change: dict[str, object]) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}
    head = json.dumps({"x": entry}).encode()
    with pytest.raises(StorageError, match="does not fit"):
        weights.load(len(head).to_bytes(8, "little") + head + bytes(8))
