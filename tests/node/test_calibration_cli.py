"""`quorate calibrate` and `quorate calibration show`, with real runs in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node import calibrating
from node.calibration_cli import known, read, render
from node.cli import app
from verify.calibrated import calibrations, refused_calibrations
from verify.calibration import Calibration

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the smallest model was calibrated, with few runs."""
    home = tmp_path_factory.mktemp("home")
    few = calibrating.Effort(honest=9, cheats=2, alpha=0.1, names=("int8-weights", "bf16-weights", "nan"), backends=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.calibration_cli.QUICK", few)
        made = RUNNER.invoke(app, ["calibrate", "ngram-embed", "--quick", "--home", str(home)])
    assert made.exit_code == 0, made.output
    return home / "calibrations"


def test_calibrate_writes_signed_records_of_both_lanes(folder: Path) -> None:
    shown = {path.name: read(path) for path in folder.iterdir()}
    assert sorted(shown) == [
        "embed.text-exact.calibration",
        "embed.text-tolerant-bf16-class.calibration",
        "embed.text-tolerant.calibration",
    ]
    assert len({each.author for each in shown.values()}) == 1
    record = shown["embed.text-tolerant.calibration"].record
    assert [(cell.name, cell.runs) for cell in record.cheats] == [("bf16-weights", 6), ("int8-weights", 6), ("nan", 6)]
    assert record.certified


def test_show_prints_shipped_and_own_records_with_their_authors(folder: Path) -> None:
    shown = RUNNER.invoke(app, ["calibration", "show", "--home", str(folder.parent)])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("ships with quorate") == len(calibrations()) + len(refused_calibrations())
    assert shown.output.count("signed by") == 3


def test_show_as_json_has_every_cell_and_the_hash(folder: Path) -> None:
    file = folder / "embed.text-exact.calibration"
    shown = RUNNER.invoke(app, ["calibration", "show", str(file), "--json"])
    (row,) = json.loads(shown.output)
    assert (row["hash"], row["author"]) == (read(file).record.hash.hex(), read(file).author)
    assert {cell["name"] for cell in row["record"]["cheats"]} == {"int8-weights", "bf16-weights", "nan"}


def test_a_damaged_record_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    raw = (folder / "embed.text-exact.calibration").read_bytes()
    bad = tmp_path / "bad.calibration"
    bad.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    shown = RUNNER.invoke(app, ["calibration", "show", str(bad)])
    assert shown.exit_code == 1
    assert "signature" in shown.output


def test_an_unknown_model_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    made = RUNNER.invoke(app, ["calibrate", "nobody", "--home", str(tmp_path)])
    assert made.exit_code == 1
    assert "ngram-embed" in made.output


def _shipped() -> list[Calibration]:
    return [*calibrations().values(), *refused_calibrations()]


@pytest.mark.parametrize(
    "record", _shipped(), ids=lambda record: f"{record.kind}-{record.fingerprint[:16]}-{record.lane}"
)
def test_a_rendered_record_names_every_cell_and_those_that_do_not_separate(record: Calibration) -> None:
    text = render(record)
    assert [cell.name for cell in record.cheats if f"\n    {cell.name} " not in text] == []
    assert text.count("DOES NOT SEPARATE") == len(record.inseparable)
    assert ("NOT CERTIFIED" in text) == (not record.certified)


def test_a_perceptual_hash_alone_and_a_mixed_numeric_class_are_shown_not_to_separate() -> None:
    """What must stay plain: one step less looks the same, and int8 hides among bfloat16.

    One step less does not hide there: the seed moves the times, so that a stretched run is off by whole parts of steps.
    """
    refused = {(each.kind, "phash" in each.fingerprint): each for each in refused_calibrations()}
    assert {"one-step-less", "fewer-steps", "int8-weights"} <= set(refused["image.generate", True].inseparable)
    assert refused["image.generate", False].inseparable == ["int8-weights"]
    assert not any(record.certified for record in refused.values())


def test_a_home_without_records_shows_those_that_ship(tmp_path: Path) -> None:
    assert [each.author for each in known(tmp_path)] == [""] * len(_shipped())
