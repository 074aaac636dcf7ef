"""LSH kernels and image hashes against their peers: `python -m benchmarks.verify_lsh [--quick]`.

Rates are per second of CPU time of one thread, so that a shared machine changes them little; each peer does the same
work, right after, in a process of its own. The best of several repetitions counts. `verify.hamming*` compares the
numba kernels; where numba is missing the NumPy ones run.

    verify.hamming64, .hamming256     G pairs/s of a join within a radius: faiss range_search, NumPy
    verify.hamming*.histogram         G pairs/s of the distribution of all distances: NumPy
    verify.phash_ms, .phash256_ms     a 512 x 512 RGB picture: imagehash (and OpenCV's PHash)
    verify.phash_bits, .pdq_bits      the largest distance to imagehash and pdqhash over photographs
    verify.pdq_ms                     the same picture: pdqhash
    verify.minhash, verify.simhash    documents/s of 60 words, ours from the text's bytes: datasketch, rensa, simhash
    verify.hyperplanes                vectors/s, 384 dimensions to 256 bits: faiss IndexLSH
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.line import show
from benchmarks.peers import PeerMissing, ask, python_with
from verify.fingerprints.image_hash import PHASH64, PHASH256, phash, reference_code
from verify.fingerprints.image_hash_pdq import pdq
from verify.lsh import (
    Codes,
    Hyperplanes,
    MinHash,
    distances,
    histogram,
    join,
    pack,
    simhash,
    word_shingles,
)

CODES = {64: 1 << 15, 256: 1 << 14}
RADIUS = {64: 10, 256: 31}
DOCUMENTS, WORDS = 20_000, 60
VECTORS, WIDTH = 20_000, 384
REPEATS = 5

CLOCK = """
import json, sys, time
def best(work, repeats):
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)
"""

FAISS = (
    CLOCK
    + """
import faiss
import numpy as np
faiss.omp_set_num_threads(1)
bits, n, radius, repeats = map(int, sys.argv[1:])
random = np.random.Generator(np.random.Philox(key=bits))
codes = random.integers(0, 1 << 64, (n, bits // 64), np.uint64).view(np.uint8)
index = faiss.IndexBinaryFlat(bits)
index.add(codes)
print(json.dumps(best(lambda: index.range_search(codes, radius + 1), repeats)))
"""
)

LSH = (
    CLOCK
    + """
import faiss
import numpy as np
faiss.omp_set_num_threads(1)
n, width, repeats = map(int, sys.argv[1:])
vectors = np.random.Generator(np.random.Philox(key=5)).standard_normal((n, width)).astype(np.float32)
index = faiss.IndexLSH(width, 256)
print(json.dumps(best(lambda: index.sa_encode(vectors), repeats)))
"""
)

DATASKETCH = (
    CLOCK
    + """
from datasketch import MinHash
documents = [line.split() for line in open(sys.argv[1], "rb").read().splitlines()]
def work():
    for words in documents:
        sketch = MinHash(num_perm=128)
        sketch.update_batch(words)
print(json.dumps(len(documents) / best(work, 1)))
"""
)

RENSA = (
    CLOCK
    + """
from rensa import RMinHash
documents = [line.split() for line in open(sys.argv[1]).read().splitlines()]
def work():
    for words in documents:
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update(words)
        sketch.digest()
print(json.dumps(len(documents) / best(work, 3)))
"""
)

SIMHASH = (
    CLOCK
    + """
from simhash import Simhash
documents = [line.split() for line in open(sys.argv[1]).read().splitlines()]
print(json.dumps(len(documents) / best(lambda: [Simhash(words).value for words in documents], 1)))
"""
)

PDQHASH = (
    CLOCK
    + """
import numpy as np
import pdqhash
pictures = np.load(sys.argv[1])
names = sorted(pictures.files)
found = [pdqhash.compute(pictures[name]) for name in names]
first = pictures[names[0]]
spent = best(lambda: [pdqhash.compute(first) for _ in range(5)], 5) / 5
print(json.dumps({"ms": spent * 1e3, "bits": [code[::-1].tolist() for code, _ in found],
                  "quality": [q for _, q in found]}))
"""
)

NUMPY = """
import importlib.util, subprocess, sys
if importlib.util.find_spec("numpy") is None:  # pdqhash needs it and does not say so
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "numpy==2.4.6"], check=True)
print(1)
"""

OPENCV = (
    CLOCK
    + """
import cv2
import numpy as np
cv2.setNumThreads(1)
picture = np.load(sys.argv[1])["a"]
hasher = cv2.img_hash.PHash_create()
print(json.dumps(best(lambda: [hasher.compute(picture) for _ in range(20)], 5) / 20 * 1e3))
"""
)

PHOTOS = """
import json, os, sys
import numpy as np
import skimage.data
from PIL import Image
folder = os.path.dirname(skimage.data.__file__)
names = [name for name in sorted(os.listdir(folder)) if name.endswith((".png", ".jpg"))]
pictures = {name: np.asarray(Image.open(os.path.join(folder, name)).convert("RGB")) for name in names}
np.savez(sys.argv[1], **{"b" + name: picture for name, picture in pictures.items()})
print(json.dumps(len(names)))
"""


def best_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """CPU seconds of the fastest of several calls, after one that is not counted."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def against(
    name: str,
    ours: float,
    unit: str,
    better: Literal["higher", "lower"],
    requirement: str,
    measure: Callable[[Path], float],
) -> None:
    """Print a figure with that of a package in an environment of its own."""
    package = requirement.split("==")[0]
    try:
        value = measure(python_with(package, requirement))
    except PeerMissing as exc:
        show(name, ours, unit, better=better, peer=package, error=str(exc))
        return
    show(name, ours, unit, better=better, peer=package, peer_value=value)


def hamming(bits: int, scale: int) -> None:
    """Joins and histograms of random codes."""
    n = CODES[bits] // scale
    random = np.random.Generator(np.random.Philox(key=bits))
    codes: Codes = random.integers(0, 1 << 64, (n, bits // 64), np.uint64)
    pairs, radius = n * n / 1e9, RADIUS[bits]
    name = f"verify.hamming{bits}"
    ours = pairs / best_s(lambda: join(codes, codes, radius))

    def faiss(interpreter: Path) -> float:
        return pairs / float(ask(interpreter, FAISS, str(bits), str(n), str(radius), str(REPEATS)))

    against(name, ours, "G pairs/s", "higher", "faiss-cpu==1.15.1", faiss)
    plain = pairs / best_s(lambda: _numpy_near(codes, radius), 2)
    show(name, ours, "G pairs/s", better="higher", peer="numpy bitwise_count", peer_value=plain)
    ours = pairs / best_s(lambda: histogram(codes, codes))
    few = codes[: n // 8]
    plain = pairs / 8 / best_s(lambda: histogram(few, codes, backend="numpy"), 2)
    show(f"{name}.histogram", ours, "G pairs/s", better="higher", peer="numpy bitwise_count", peer_value=plain)


def _numpy_near(codes: Codes, radius: int) -> int:
    """The plainest way in NumPy: row by row, only counting, so that the peer is not charged for collecting pairs."""
    words = np.ascontiguousarray(codes.T)
    if len(words) == 1:
        return sum(int(np.count_nonzero(np.bitwise_count(code ^ words[0]) <= radius)) for code in words[0])
    return sum(
        int(np.count_nonzero(np.bitwise_count(code[:, None] ^ words).sum(axis=0, dtype=np.uint16) <= radius))
        for code in codes
    )


def pictures(folder: Path) -> None:
    """Time on one picture; distance to the libraries over photographs that scikit-image ships."""
    shown = _photographs(folder / "photos.npz")
    one = next(iter(shown.values()))
    library = best_s(lambda: [reference_code("phash", one) for _ in range(5)]) / 5 * 1e3
    ours = best_s(lambda: [phash(one) for _ in range(20)]) / 20 * 1e3
    show("verify.phash_ms", ours, "ms", better="lower", peer="imagehash", peer_value=library)
    np.savez(folder / "all.npz", **{f"{place:03}": picture for place, picture in enumerate(shown.values())})
    np.savez(folder / "one.npz", a=one)

    def opencv(interpreter: Path) -> float:
        return float(ask(interpreter, OPENCV, str(folder / "one.npz")))

    against("verify.phash_ms", ours, "ms", "lower", "opencv-contrib-python-headless==5.0.0.93", opencv)
    library = best_s(lambda: [reference_code("phash256", one) for _ in range(5)]) / 5 * 1e3
    ours = best_s(lambda: [phash(one, PHASH256) for _ in range(20)]) / 20 * 1e3
    show("verify.phash256_ms", ours, "ms", better="lower", peer="imagehash", peer_value=library)
    apart = [int(distances(phash(p, PHASH64), reference_code("phash", p))[0]) for p in shown.values()]
    show(
        "verify.phash_bits", max(apart), f"bits of 64, worst of {len(apart)} pictures", better="lower", peer="imagehash"
    )
    apart = [int(distances(phash(p, PHASH256), reference_code("phash256", p))[0]) for p in shown.values()]
    show("verify.phash256_bits", max(apart), f"bits of 256, worst of {len(apart)}", better="lower", peer="imagehash")
    _pdq(list(shown.values()), folder)


def _photographs(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """512 x 512 noise blurred by enlarging it, then whatever photographs there are."""
    from PIL import Image

    small = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (64, 64, 3), np.uint8)
    shown = {"a": np.asarray(Image.fromarray(small).resize((512, 512), Image.Resampling.BICUBIC))}
    try:
        ask(python_with("scikit-image", "scikit-image==0.26.0"), PHOTOS, str(path))
    except PeerMissing as exc:
        print(f"no photographs: {exc}", file=sys.stderr)
        return shown
    with np.load(path) as held:
        return {**shown, **{name: held[name] for name in held.files}}


def _pdq(shown: list[np.ndarray[Any, np.dtype[np.uint8]]], folder: Path) -> None:
    ours = best_s(lambda: [pdq(shown[0]) for _ in range(20)]) / 20 * 1e3
    try:
        interpreter = python_with("pdqhash", "pdqhash==0.2.8")
        ask(interpreter, NUMPY)
        theirs = ask(interpreter, PDQHASH, str(folder / "all.npz"))
    except PeerMissing as exc:
        show("verify.pdq_ms", ours, "ms", better="lower", peer="pdqhash", error=str(exc))
        return
    show("verify.pdq_ms", ours, "ms", better="lower", peer="pdqhash", peer_value=theirs["ms"])
    own = [pdq(picture) for picture in shown]
    codes = pack(np.array(theirs["bits"], np.bool_))
    apart = distances(np.concatenate([each.code for each in own]), codes)
    show("verify.pdq_bits", int(apart.max()), f"bits of 256, worst of {len(own)}", better="lower", peer="pdqhash")
    quality = max(abs(each.quality - other) for each, other in zip(own, theirs["quality"], strict=True))
    show("verify.pdq_quality", quality, "of 100, largest difference", better="lower", peer="pdqhash")


def texts(folder: Path, scale: int) -> None:
    """MinHash and SimHash of documents of 60 words."""
    random = np.random.Generator(np.random.Philox(key=9))
    drawn = random.integers(0, 20_000, (DOCUMENTS // scale, WORDS)).tolist()
    documents = [" ".join(f"word{number}" for number in row).encode() for row in drawn]
    path = folder / "documents.txt"
    path.write_bytes(b"\n".join(documents))
    sketch = MinHash(128)
    ours = len(documents) / best_s(lambda: sketch.signatures(word_shingles(documents)))
    for requirement, program in (("datasketch==2.0.0", DATASKETCH), ("rensa==0.5.0", RENSA)):

        def measure(interpreter: Path, program: str = program) -> float:
            return float(ask(interpreter, program, str(path)))

        against("verify.minhash", ours, "documents/s", "higher", requirement, measure)
    ours = len(documents) / best_s(lambda: simhash(word_shingles(documents)))
    against(
        "verify.simhash", ours, "documents/s", "higher", "simhash==2.1.2", lambda at: float(ask(at, SIMHASH, str(path)))
    )


def hyperplanes(scale: int) -> None:
    """256-bit codes of embeddings, with the input checks that ours makes."""
    n = VECTORS // scale
    vectors = np.random.Generator(np.random.Philox(key=5)).standard_normal((n, WIDTH)).astype(np.float32)
    planes = Hyperplanes(WIDTH)
    ours = n / best_s(lambda: planes.codes(vectors))

    def faiss(interpreter: Path) -> float:
        return n / float(ask(interpreter, LSH, str(n), str(WIDTH), str(REPEATS)))

    against("verify.hyperplanes", ours, "vectors/s", "higher", "faiss-cpu==1.15.1", faiss)


def main(quick: bool) -> None:
    """All figures; `quick` takes less of everything."""
    scale = 4 if quick else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for bits in CODES:
            hamming(bits, scale)
        pictures(folder)
        texts(folder, scale)
        hyperplanes(scale)


if __name__ == "__main__":
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # it is read when NumPy is imported, and peers inherit it
        one = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.verify_lsh", *sys.argv[1:]], one)
    main("--quick" in sys.argv[1:])
