"""Detection runs on disk, and what juries make of them: real models in child processes, a few runs of each."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from node import detection_runs
from node.detection import POOL, Judged, detected, detection_at_least, escalated_verdict, ladder_right, three_right
from node.detection_inputs import THIRTY, concerns, jobs, piece
from node.detection_runs import HONEST, Cell, gather, load, path_of, refused_held_out
from verify.statistics import clopper_pearson
from wire.errors import LocalError, StorageError
from wire.job import ImageInput, TextInput

CELL = Cell("embed.text", "tolerant")
WANTED = {HONEST: 3, "bf16-weights": 3, "nan": 3, "copied-answer": 3, "older-checkpoint": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    assert gather(folder, CELL, WANTED, lambda _: None, size=4)
    return folder


def test_every_row_is_filled_and_judged(store: Path) -> None:
    assert [each.verdicts for each in load(store, CELL, HONEST)] == [("accept",)] * 4
    for cheat in ("bf16-weights", "nan", "copied-answer", "older-checkpoint"):
        rows = load(store, CELL, cheat)
        assert {each.verdicts for each in rows} == {("reject",)}
        assert len(rows) == (3 if cheat == "copied-answer" else 4)
    assert [each.distances for each in load(store, CELL, "nan", 2)] == [({},)] * 2


def test_what_is_there_is_not_run_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection_runs, "make_chunk", None)
    assert gather(store, CELL, WANTED, lambda _: None, size=4)


def test_more_is_added_in_chunks_and_a_deadline_stops_it(store: Path) -> None:
    said: list[str] = []
    assert not gather(store, CELL, {"nan": 5}, said.append, size=4, until_s=time.monotonic() - 1)
    assert said == []
    assert gather(store, CELL, {"nan": 5, "bf16-weights": 4}, said.append, size=4)
    assert len(said) == 1
    assert len(load(store, CELL, "nan")) == 8
    assert len(load(store, CELL, "bf16-weights")) == 4


@pytest.mark.parametrize(
    ("cell", "wanted", "accepted"),
    [
        (Cell("embed.text", "exact"), {HONEST: 2, "tiny-noise": 2}, {HONEST}),
        (Cell("text.generate", "tolerant"), {HONEST: 2, "int8-weights": 2, "borrowed-sketch": 2}, {HONEST}),
        (Cell("image.generate", "tolerant"), {HONEST: 2, "bf16-weights": 2, "swapped-noise": 2}, {HONEST}),
        (Cell("image.generate", "exact"), {HONEST: 2, "tiny-noise": 2}, {HONEST}),
    ],
    ids=lambda value: f"{value.kind}-{value.lane}" if isinstance(value, Cell) else "",
)
def test_every_kind_and_lane(tmp_path: Path, cell: Cell, wanted: dict[str, int], accepted: set[str]) -> None:
    assert gather(tmp_path, cell, wanted, lambda _: None, size=3)
    for row in wanted:
        word = "accept" if row in accepted else "reject"
        assert {each.verdicts[0] for each in load(tmp_path, cell, row)} == {word}, row


def test_honest_work_of_a_backend_that_the_thresholds_did_not_see(tmp_path: Path) -> None:
    cell = Cell("embed.text", "tolerant", "numpy-haswell")
    assert gather(tmp_path, cell, {HONEST: 5}, lambda _: None, size=5)
    assert refused_held_out(tmp_path, "embed.text", "numpy-haswell", 5) == (0, 5)
    assert refused_held_out(tmp_path, "embed.text", "numpy", 5) == (0, 0)


def test_a_damaged_chunk_is_named(store: Path, tmp_path: Path) -> None:
    path = path_of(tmp_path, CELL, "nan", 0)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"juror": "default"}))
    with pytest.raises(StorageError, match=r"00000\.json is damaged"):
        load(tmp_path, CELL, "nan")


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"a child failed.*older-checkpoint"):
        gather(tmp_path, CELL, {"nobody-cheats-like-this": 1}, lambda _: None, size=2)


def test_jobs_follow_from_their_numbers_and_differ() -> None:
    every = jobs("text.generate", "tolerant", range(500))
    assert len({job.id for job in every}) == 500
    assert jobs("text.generate", "tolerant", range(7, 9)) == every[7:9]
    assert len({piece(number, 20) for number in range(4000)}) > 3900


def test_texts_in_a_row_have_prompts_of_one_length() -> None:
    given = [job.input() for job in jobs("text.generate", "tolerant", range(64))]
    sizes = [len(each.prompt) for each in given if isinstance(each, TextInput)]
    assert len(set(sizes[:32])) == len(set(sizes[32:])) == 1


def test_cheats_that_leave_out_steps_are_tried_on_thirty() -> None:
    given = [job.input() for job in jobs("image.generate", "tolerant", range(8), thirty=True)]
    assert {each.steps for each in given if isinstance(each, ImageInput)} == {30}
    assert "one-step-less" in THIRTY
    assert concerns("one-step-less", "image.generate")
    assert not concerns("one-step-less", "text.generate")


CAUGHT = Judged(("reject",))


@pytest.mark.parametrize("kind", ["image.generate", "text.generate", "embed.text"])
@pytest.mark.parametrize("colluders", [10, 20])
def test_counted_juries_agree_with_their_exact_odds(kind: str, colluders: int) -> None:
    """Of 600 draws the counts must lie within bounds that hold with all but certainty."""
    right = detected([CAUGHT] * 600, colluders, kind)  # type: ignore[arg-type]  # parametrised by kind
    low, high = clopper_pearson(right, 600, 0.9999)
    assert low <= ladder_right(kind, colluders) <= high  # type: ignore[arg-type]  # as above
    low, high = clopper_pearson(detected([CAUGHT] * 600, colluders), 600, 0.9999)
    assert low <= three_right(colluders) <= high


def test_a_bound_is_the_fingerprints_times_the_ladders() -> None:
    assert detection_at_least(4800, 4800, "image.generate", 0) == clopper_pearson(4800, 4800).low
    assert 0.9989 < detection_at_least(4800, 4800, "image.generate", 20) < clopper_pearson(4800, 4800).low
    assert detection_at_least(3352, 3352, "image.generate", 20) < 0.9989


def test_withheld_votes_leave_honest_work_unaudited_and_do_not_save_a_cheat() -> None:
    honest = Judged(("accept",))
    ended = [escalated_verdict(run, honest, 45, "abstain", "image.generate") for run in range(200)]
    assert set(ended) == {"accept", None}
    assert {escalated_verdict(run, CAUGHT, 45, "abstain", "image.generate") for run in range(200)} == {"reject"}
    assert POOL == 100


def test_a_named_juror_judges_every_chunk_in_a_row_of_its_own() -> None:
    cell = Cell("image.generate", "tolerant", judge="numpy")
    assert {cell.juror(chunk) for chunk in range(100)} == {"numpy"}
    assert cell.row("bf16-weights") == "bf16-weights-by-numpy"
    assert Cell("image.generate", "tolerant", "torch").row(HONEST) == "honest-torch"
