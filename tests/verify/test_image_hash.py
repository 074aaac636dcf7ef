"""Perceptual hashes: integers that any implementation can repeat, near the libraries they stand for, and total."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import imagehash
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from node.calibration_inputs import job_specs
from tests.verify import lsh_oracle
from verify.faults import Refused
from verify.fingerprints.image_hash import (
    PHASH64,
    PHASH256,
    SIDE_MAX,
    ImageHash,
    Reference,
    lanczos,
    phash,
    reference,
    reference_code,
)
from verify.fingerprints.image_hash_pdq import DISTANCE_MAX, PDQ, QUALITY_MIN, pdq
from verify.fingerprints.image_hash_rows import Pixels, luma
from verify.lsh import Backend, Codes, distances, join_self, unpack
from wire.errors import LocalError
from workloads.catalog import built_in
from workloads.variants import make_executor

BACKENDS: list[Backend] = ["numba", "numpy"]
KINDS = [PHASH64, PHASH256]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors/image-hash-v1.json").read_text())


def noise(seed: int, *shape: int) -> Pixels:
    return np.random.Generator(np.random.Philox(key=seed)).integers(0, 256, shape, np.uint8)


def scene(seed: int, height: int, width: int) -> Pixels:
    """A smooth RGB picture with some detail: noise in few pixels, enlarged, plus a little of it in all."""
    small = Image.fromarray(noise(seed, 9, 9, 3)).resize((width, height), Image.Resampling.BICUBIC)
    fine = noise(seed + 1, height, width, 3).astype(np.int16) // 16
    return np.clip(np.asarray(small) + fine, 0, 255).astype(np.uint8)


def text(words: str) -> Pixels:
    image = Image.new("RGB", (512, 512), "white")
    draw = ImageDraw.Draw(image)
    for line in range(8):
        draw.text((10, 10 + 60 * line), words[line:] + words[:line], "black", ImageFont.load_default(40))
    return np.asarray(image)


def gradient() -> Pixels:
    """Grey, falling from a centre outwards. (A plane ramp has no frequency but one: its other bits are rounding.)"""
    down, across = np.mgrid[0:512, 0:512] / 511
    level: Pixels = (255 * (1 - np.hypot(across - 0.5, down - 0.4) / np.hypot(0.5, 0.6))).astype(np.uint8)
    return level


@functools.cache
def digits(variant: str = "default", cheat: str | None = None) -> tuple[Pixels, ...]:
    """Pictures that the embedded image model makes, 16 x 16 grey."""
    (model,) = [info.cid for info in built_in().capabilities().models if info.kind == "image.generate"]
    executor = make_executor(variant, cheat=cheat)
    specs = job_specs("image.generate", "tolerant", model, "f32", 124)[100:]
    outputs = [executor.run(spec, emit=lambda _: None, cancelled=lambda: False)[0] for spec in specs]
    return tuple(output.tensors["pixels"].numpy() for output in outputs)


def enlarged(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((512, 512), Image.Resampling.BICUBIC))


def codes(pictures: tuple[Pixels, ...], kind: ImageHash) -> Codes:
    return np.concatenate([phash(pixels, kind) if kind is not PDQ else pdq(pixels).code for pixels in pictures])


def natural() -> dict[str, Pixels]:
    shown = {f"scene {seed}": scene(seed, 300 + 37 * seed, 512 - 29 * seed) for seed in range(5)}
    shown |= {f"digit {place}": enlarged(pixels) for place, pixels in enumerate(digits()[:6])}
    return shown | {"text": text("the quick brown fox"), "other text": text("jumps over"), "gradient": gradient()}


def test_phash_is_what_the_specification_says() -> None:
    """The oracle is plain Python with integers of any size."""
    for seed, shape in enumerate([(1, 1), (5, 9), (16, 16), (33, 20), (40, 64)]):
        pixels = noise(seed, *shape)
        for kind, side in ((PHASH64, 8), (PHASH256, 16)):
            expected = lsh_oracle.phash(pixels.tolist(), side)
            for backend in BACKENDS:
                assert unpack(phash(pixels, kind, backend=backend))[0].tolist() == expected


@given(st.integers(1, 140), st.integers(1, 140), st.booleans(), st.integers(0, 1 << 20))
@settings(max_examples=60)
def test_backends_agree_on_every_bit(height: int, width: int, grey: bool, seed: int) -> None:
    pixels = noise(seed, height, width) if grey else scene(seed, height, width)
    for kind in KINDS:
        one, other = (phash(pixels, kind, backend=backend) for backend in BACKENDS)
        assert one.tolist() == other.tolist()
    left, right = (pdq(pixels, backend=backend) for backend in BACKENDS)
    assert (left.code.tolist(), left.quality) == (right.code.tolist(), right.quality)


@pytest.mark.parametrize("vector", VECTORS["pictures"], ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, str]) -> None:
    """A bit that changes needs a new version in the id."""
    pixels = np.frombuffer(bytes.fromhex(vector["pixels"]), np.uint8).reshape(vector["shape"])
    found = {kind.id: phash(pixels, kind).astype("<u8").tobytes().hex() for kind in KINDS}
    found[PDQ.id] = pdq(pixels).code.astype("<u8").tobytes().hex()
    assert (found, pdq(pixels).quality) == (vector["codes"], vector["quality"])


@pytest.mark.parametrize("name", natural())
def test_phash_is_within_4_bits_of_imagehash(name: str) -> None:
    pixels = natural()[name]
    assert distances(phash(pixels), reference_code("phash", pixels))[0] <= 4


def test_phash_of_the_models_own_pictures_is_within_4_bits_of_imagehash() -> None:
    own = codes(digits(), PHASH64)
    library = np.concatenate([reference_code("phash", pixels) for pixels in digits()])
    assert distances(own, library).max() <= 4


def test_long_phash_is_near_imagehash_where_the_picture_has_detail() -> None:
    for seed in range(5):
        pixels = scene(seed, 400, 300)
        assert distances(phash(pixels, PHASH256), reference_code("phash256", pixels))[0] <= 10


def test_luma_is_pillows() -> None:
    pixels = noise(1, 64, 64, 3)
    assert luma(pixels, 16).tolist() == np.asarray(Image.fromarray(pixels).convert("L")).tolist()


@pytest.mark.parametrize("length", [1, 7, 32, 33, 512])
def test_resampling_is_pillows(length: int) -> None:
    """To a rounding step, on a row without overshoot."""
    row = (128 + 60 * np.sin(np.arange(length))).astype(np.uint8)
    resized = Image.fromarray(row[None, :]).resize((32, 1), Image.Resampling.LANCZOS)
    assert np.abs(lanczos(length, 32) @ row - np.asarray(resized)[0]).max() <= 0.51


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (16, 16), (100, 37), (512, 512)])
def test_a_flat_picture_has_one_code(level: int, shape: tuple[int, int]) -> None:
    """Nothing but its mean, whatever its level and size; quality says that it is worthless."""
    pixels = np.full(shape, level, np.uint8)
    for kind in KINDS:
        assert phash(pixels, kind).tolist() == [[int(level > 0)] + [0] * (kind.bits // 64 - 1)]
    assert (pdq(pixels).code.tolist(), pdq(pixels).quality) == ([[0] * 4], 0)


BAD = {
    "NaN": (np.full((8, 8), np.nan), "dtype"),
    "float": (np.zeros((8, 8, 3), np.float32), "dtype"),
    "signed": (np.zeros((8, 8), np.int8), "dtype"),
    "no rows": (np.zeros((0, 8), np.uint8), "empty"),
    "no columns": (np.zeros((8, 0, 3), np.uint8), "empty"),
    "a line": (np.zeros(64, np.uint8), "shape"),
    "alpha": (np.zeros((8, 8, 4), np.uint8), "shape"),
    "a film": (np.zeros((2, 8, 8, 3), np.uint8), "shape"),
    "wide": (np.broadcast_to(np.uint8(1), (1, SIDE_MAX + 1)), "range"),
    "huge": (np.broadcast_to(np.uint8(1), (1 << 14, 1 << 13, 3)), "range"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused(name: str) -> None:
    pixels, code = BAD[name]
    for ask in (lambda: phash(pixels), lambda: pdq(pixels), lambda: reference_code("ahash", pixels)):
        with pytest.raises(Refused) as refusal:
            ask()
        assert refusal.value.code == code


def test_the_longest_side_that_is_allowed_is_hashed() -> None:
    pixels = np.arange(5 * SIDE_MAX, dtype=np.int64).reshape(5, SIDE_MAX).astype(np.uint8)
    for backend in BACKENDS:
        assert pdq(pixels, backend=backend).code.shape == (1, 4)
        assert phash(pixels, backend=backend).shape == (1, 1)


@kinds
def test_other_memory_layouts_change_nothing(kind: ImageHash) -> None:
    pixels = scene(3, 100, 80)
    turned = np.asfortranarray(pixels)
    assert phash(turned, kind).tolist() == phash(pixels, kind).tolist()
    assert phash(pixels[::-1, ::-1], kind).tolist() == phash(pixels[::-1, ::-1].copy(), kind).tolist()


def test_pdq_has_128_bits_set_and_a_mirror_has_another_code() -> None:
    """The threshold is the lower median; mirroring flips every odd frequency."""
    pixels = scene(5, 512, 512)
    code, mirrored = pdq(pixels), pdq(pixels[:, ::-1])
    assert unpack(code.code).sum() == 128
    assert code.quality >= QUALITY_MIN
    assert distances(code.code, mirrored.code)[0] > 3 * DISTANCE_MAX


def test_pdq_survives_a_smaller_copy_and_compression() -> None:
    for seed in range(3):
        pixels = scene(seed, 512, 512)
        half = np.asarray(Image.fromarray(pixels).resize((256, 256)))
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=40)
        lossy = np.asarray(Image.open(packed))
        for other in (half, lossy):
            assert distances(pdq(pixels).code, pdq(other).code)[0] <= DISTANCE_MAX


# On the model's own pictures


@pytest.mark.parametrize("kind", [PHASH64, PHASH256, PDQ], ids=lambda kind: kind.id)
def test_honest_machines_give_the_same_hash(kind: ImageHash) -> None:
    assert distances(codes(digits(), kind), codes(digits("numpy"), kind)).max() <= 2


@pytest.mark.parametrize("kind", [PHASH64, PHASH256, PDQ], ids=lambda kind: kind.id)
def test_another_seed_is_another_picture(kind: ImageHash) -> None:
    """In the median far, and for the long codes always beyond the radius that counts as the same."""
    apart = distances(codes(digits(), kind), codes(digits("default", "wrong-seed"), kind))
    assert np.median(apart) >= kind.bits // 5
    if kind.bits == 256:
        assert apart.min() > DISTANCE_MAX


@pytest.mark.parametrize("kind", [PHASH256, PDQ], ids=lambda kind: kind.id)
def test_different_jobs_do_not_collide(kind: ImageHash) -> None:
    """24 pictures, 276 pairs; classes repeat among them."""
    assert len(join_self(codes(digits(), kind), DISTANCE_MAX).left) == 0


@pytest.mark.parametrize("cheat", ["one-step-less", "int8-weights", "bf16-weights"])
def test_a_hash_does_not_see_cheaper_work(cheat: str) -> None:
    """Why no verdict rests on these hashes: cheats look the same."""
    apart = distances(codes(digits(), PHASH64), codes(digits("default", cheat), PHASH64))
    assert np.mean(apart <= 4) >= 0.95


# The library's hashes


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("phash", imagehash.phash),
        ("phash256", functools.partial(imagehash.phash, hash_size=16)),
        ("dhash", imagehash.dhash),
        ("ahash", imagehash.average_hash),
        ("whash", imagehash.whash),
        ("colorhash", imagehash.colorhash),
    ],
)
def test_reference_codes_are_the_librarys_bits(name: Reference, call: functools.partial[imagehash.ImageHash]) -> None:
    pixels = scene(2, 90, 120)
    kind, code = reference(name), reference_code(name, pixels)
    bits = unpack(code)[0]
    assert bits[: kind.bits].tolist() == call(Image.fromarray(pixels)).hash.reshape(-1).tolist()
    assert not bits[kind.bits :].any()
    assert kind.id.endswith(f"/imagehash-{imagehash.__version__}+pillow-{PIL.__version__}")


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(LocalError, match="no hash 'crop'"):
        reference("crop")
