"""`quorate study consensus` at a small size: real models, whole chunks, counts that add up, rows as single jobs'."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from node import detection
from node.cli import app
from node.detection import Judged, escalated_verdict, jury_verdict
from node.study import batches, tables
from node.study.batches import IMAGE_CHEATS, SEED_IMAGES, SEED_TEXTS, TEXT_CHEATS, Way
from node.study.dataset import Settings, generate, load, parts, prepare
from node.study.run import Extent, run
from wire import cid, codec
from wire.errors import LocalError, StorageError
from wire.job import ImageInput
from workloads.executor import never
from workloads.variants import make_executor

SMALL = Settings(images=200, texts=50, probes_images=20, probes_texts=20, steps=4, probe_steps=6, tokens=10, chunk=60)
EXTENT = Extent(comparisons=1_000_000_000, fingerprint_runs=0, plots=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    run(folder, SMALL, EXTENT, lambda _: None)
    return folder


def test_every_part_has_its_rows(out: Path) -> None:
    for part in parts(SMALL):
        assert len(load(out, part, "tokens" if part.text else "pixels")) == part.rows, part.folder
    assert len(parts(SMALL)) == 3 + 2 * 2 + len(IMAGE_CHEATS) + len(TEXT_CHEATS)


def test_a_row_is_what_the_executor_gives_for_its_job(out: Path) -> None:
    """Batches only save time: image 3 and text 5 are those of single jobs."""
    image, text = (next(part for part in parts(SMALL) if part.text == kind) for kind in (False, True))
    executor = make_executor()
    (job,) = detection.fresh_jobs("image.generate", "tolerant", 1)
    job = msgspec.structs.replace(job, seed=SEED_IMAGES + 3, inputs=codec.encode(ImageInput(3, SMALL.steps)))
    output, _ = executor.run(job, emit=lambda _: None, cancelled=never)
    assert np.abs(output.tensors["pixels"].numpy().astype(int) - load(out, image, "pixels")[3].astype(int)).max() <= 1
    (job,) = detection.fresh_jobs("text.generate", "tolerant", 1)
    given = batches.text_input(5, SMALL.tokens, Way())
    job = msgspec.structs.replace(job, seed=SEED_TEXTS + 5, inputs=codec.encode(given))
    output, _ = executor.run(job, emit=lambda _: None, cancelled=never)
    tokens = output.tensors["tokens"].numpy()
    assert load(out, text, "tokens")[5][: len(tokens)].tolist() == tokens.tolist()


def test_honest_work_is_the_same_and_other_jobs_are_not(out: Path) -> None:
    for text, other in ((False, "other class"), (True, "other seed")):
        side = tables.measure(out, SMALL, text, EXTENT.comparisons)
        rows = {row.name: row for row in side.rows}
        assert all(row.beyond(side.threshold) == 0 for row in side.rows if row.honest)
        assert rows[other].beyond(side.threshold) > 15
        assert rows[other].equal == 0


def test_all_pairs_are_compared_once_or_as_many_as_were_asked_for(out: Path) -> None:
    assert tables.measure(out, SMALL, False, EXTENT.comparisons).pairs == 200 * 199 // 2
    side = tables.measure(out, SMALL, False, 1000)
    assert side.pairs == 46 * 45 // 2 == 1035
    assert side.same_class.sum() == 6 * 10 + 4 * 6  # 46 images: six classes of five, four of four
    assert side.disjoint.sum() == 100


def test_every_file_is_listed_by_its_cid(out: Path) -> None:
    listed = json.loads((out / "files.json").read_text())
    assert {"README.md", "tables.md", "distances.json", "study.json", "images/honest/00000.npz"} <= set(listed)
    assert all(cid.of((out / name).read_bytes()) == value for name, value in listed.items())
    assert (out / "tables.md").read_text() in (out / "README.md").read_text()


def test_a_stopped_run_makes_only_what_is_missing_and_the_same_bytes(out: Path) -> None:
    chunk = out / "images" / "honest" / "00001.npz"
    before = chunk.read_bytes()
    chunk.unlink()
    said: list[str] = []
    generate(out, SMALL, said.append)
    assert said == ["images/honest: 120 of 200"]
    assert chunk.read_bytes() == before


def test_another_study_in_the_folder_is_refused(out: Path) -> None:
    with pytest.raises(LocalError, match="other settings"):
        prepare(out, Settings(images=21, texts=20, probes_images=20, probes_texts=20))


def test_a_damaged_chunk_is_named(out: Path, tmp_path: Path) -> None:
    part = parts(SMALL)[0]
    (tmp_path / part.folder).mkdir(parents=True)
    (tmp_path / part.folder / "00000.npz").write_bytes(b"no archive")
    with pytest.raises(StorageError, match=r"00000\.npz is damaged"):
        load(tmp_path, part, "pixels")


@pytest.mark.parametrize(
    "change", [{"images": 3}, {"probes_texts": 0}, {"steps": 1}, {"probe_steps": 1}, {"texts": 10**9}]
)
def test_settings_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(LocalError):
        dataclasses.replace(SMALL, **change).check()


def test_the_command_says_why_it_cannot(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["study", "consensus", "--out", str(tmp_path), "--images", "1"])
    assert (ran.exit_code, "20 to" in ran.output) == (1, True)


def test_plots_are_drawn_as_png_and_svg(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from node.study import plots

    side = tables.measure(out, SMALL, False, 1000)
    drawn = [
        *plots.bits(side, tmp_path),
        *plots.scores("embed.text", [0.1, 0.0], {"nan": [1e9], "int8": [40.0]}, tmp_path),
    ]
    assert [path.suffix for path in drawn] == [".png", ".svg"] * 2
    assert all(path.stat().st_size > 2000 for path in drawn)


CAUGHT, MISSED = Judged(("reject",) * 3), Judged(("accept",) * 3)


def test_without_colluders_a_jury_says_what_honest_jurors_say() -> None:
    for run_number in range(20):
        for judged, word in ((CAUGHT, "reject"), (MISSED, "accept")):
            assert jury_verdict(run_number, judged, 0, "accept") == word
            assert escalated_verdict(run_number, judged, 0, "accept", "image.generate") == word


def test_a_pool_of_liars_passes_every_cheat() -> None:
    assert escalated_verdict(1, CAUGHT, detection.POOL, "accept", "text.generate") == "accept"
    assert jury_verdict(1, CAUGHT, detection.POOL, "accept") == "accept"


def test_dissent_climbs_and_an_honest_juror_convicts_in_the_dispute() -> None:
    """With a fifth lying a majority of three fails in about a tenth of draws; the ladder only where all five lie."""
    numbers = range(400)
    three = sum(jury_verdict(i, CAUGHT, 20, "accept") == "accept" for i in numbers)
    ladder = [i for i in numbers if escalated_verdict(i, CAUGHT, 20, "accept", "image.generate") == "accept"]
    assert 20 < three < 70
    assert len(ladder) < 5
    assert all(all(peer < 20 for peer in detection.draw(i)[:5]) for i in ladder)
