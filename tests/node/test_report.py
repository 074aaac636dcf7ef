"""What people read about a job: the verdict, the reason for a rejection, the answer."""

from __future__ import annotations

from typing import Any

from node import report

VIEW: dict[str, Any] = {
    "id": "ab" * 16,
    "kind": "image.generate",
    "state": "settled",
    "verdict": "accept",
    "lane": "tolerant",
    "seconds": 2.5,
    "cost_micro": 11_400,
    "error": None,
    "thresholds": {"noise": 1e-7, "step": 2e-5},
    "output": {"image": {"width": 16, "height": 16, "png_base64": ""}},
    "attempts": [
        {
            "worker": "finn",
            "verdict": "reject",
            "reason": "cheap",
            "jury": [
                {"peer": "ada", "verdict": "reject", "distances": {"noise": 0.0, "step": 0.1, "phash64": 9.0}},
                {"peer": "bela", "verdict": "reject", "distances": {"noise": 0.0, "step": 0.08, "phash64": 9.0}},
            ],
        },
        {"worker": "chen", "verdict": "accept", "reason": "trusted", "jury": []},
    ],
}


def _lines(view: dict[str, Any]) -> list[str]:
    return [line.text for line in report.job(view, str.upper)]


def test_a_rejection_says_which_measure_went_how_far_beyond_what_is_allowed() -> None:
    rejected = next(line for line in _lines(VIEW) if "FINN" in line)
    assert "step 0.1, 5,000 times what is allowed" in rejected
    assert "noise" not in rejected, "within its threshold"
    assert "phash64" not in rejected, "reported, but decides nothing"


def test_where_no_difference_is_allowed_it_does_not_divide_by_zero() -> None:
    jury = [{"peer": "ada", "verdict": "reject", "distances": {"mismatch": 3.0}}]
    attempt = {"worker": "finn", "verdict": "reject", "reason": "", "jury": jury}
    view = {**VIEW, "thresholds": {"mismatch": 0.0}, "attempts": [attempt]}
    assert any("mismatch 3, where none is allowed" in line for line in _lines(view))


def test_verdict_lane_jurors_limits_and_cost_are_shown() -> None:
    text = "\n".join(_lines(VIEW))
    for part in ("settled: accept", "lane tolerant", "juror ADA", "allowed   noise 1e-07  step 2e-05", "11,400"):
        assert part in text


def test_a_job_that_failed_says_why() -> None:
    error = {"code": "no_provider", "message": "nobody offers the model"}
    failed = {**VIEW, "state": "failed", "verdict": None, "attempts": [], "output": None, "error": error}
    assert "  error     no_provider: nobody offers the model" in _lines(failed)


def test_text_keeps_its_lines() -> None:
    lines = [line.text for line in report.answer({"text": "one\ntwo"})]
    assert lines == ["  text      one", "            two"]
    assert [line.text for line in report.answer({"text": ""})] == ["  text      "]


def test_long_lines_are_broken_at_spaces_and_stay_under_their_values() -> None:
    text = "  accept    worker finn: " + "step 0.1 " * 12
    lines = report.wrapped(text, 40).splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert all(line.startswith(" " * 12) for line in lines[1:])
    assert " ".join(text.split()) == " ".join(" ".join(lines).split())
    assert report.wrapped("  short", 40) == "  short"
