"""What a batch may be, and which are refused at once, naming what would do."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from node.batch_intake import parse_batch
from node.intake import Refused
from node.jobs import Request
from node.market.batch_messages import BATCH_JOBS_MAX
from verify.calibrated import calibrations
from workloads.catalog import built_in

MODELS = built_in().capabilities().models


def body(jobs: int = 20, **changes: Any) -> dict[str, Any]:
    given = [{"input": {"prompt": f"number {index} "}} for index in range(jobs)]
    return {"kind": "text.generate", "model": "bytes-gpt", "jobs": given, **changes}


def parse(given: Any, *, saving_percent: int = 90) -> Request:
    seeds = count(100)
    return parse_batch(
        given,
        MODELS,
        draw_seed=lambda: next(seeds),
        calibrations=calibrations(),
        saving_percent=saving_percent,
    )


def refused(given: Any, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        parse(given, **more)
    return caught.value


def test_a_batch_is_read() -> None:
    given = body(3, lane="exact", policy="sample:1", timeout_s=60, retries=1, budget_micro=9)
    given["jobs"][1]["seed"] = 7
    request = parse(given)
    assert [item.seed for item in request.items] == [100, 7, 102]
    assert len(set(request.each_input)) == 3
    assert (request.lane, request.audits, request.jury_size, request.retries) == ("exact", 3, 3, 1)
    assert (request.timeout_s, request.budget_micro) == (60.0, 9)


@pytest.mark.parametrize(("policy", "audits"), [("sample:0.5", 10), ("sample:1/2", 10), ("sample:0.51", 11)])
def test_the_share_is_rounded_up_to_whole_jobs(policy: str, audits: int) -> None:
    assert parse(body(20, policy=policy)).audits == audits


def test_at_least_one_is_always_audited() -> None:
    assert parse(body(20, policy="sample:0.0001"), saving_percent=10).audits == 1


def test_auto_is_the_least_that_is_not_refused() -> None:
    least = parse(body(20)).audits
    assert parse(body(20, policy=f"sample:{least}/20")).audits == least
    fault = refused(body(20, policy=f"sample:{least - 1}/20"))
    assert (fault.code, fault.known) == ("too_few_audits", [f"sample:{least}/20", "sample:auto"])


def test_what_no_audit_deters_is_refused() -> None:
    assert refused(body(1), saving_percent=100).code == "too_few_audits"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"policy": "quorum:3"}, "bad_request", "not known for a batch"),
        ({"policy": "sample:0"}, "bad_request", "0 < q <= 1"),
        ({"policy": "sample:1.5"}, "bad_request", "0 < q <= 1"),
        ({"policy": "sample:1/0"}, "bad_request", "a number expected"),
        ({"policy": "sample:1e-999999999"}, "bad_request", "not known for a batch"),
        ({"policy": "sample:nan"}, "bad_request", "not known for a batch"),
        ({"policy": 3}, "bad_request", "not known for a batch"),
        ({"jobs": []}, "bad_request", "1 to 256"),
        ({"jobs": [{"input": {"prompt": "x"}}] * (BATCH_JOBS_MAX + 1)}, "bad_request", "1 to 256"),
        ({"jobs": "x"}, "bad_request", "1 to 256"),
        ({"jobs": ["x"]}, "bad_request", "job 0 must be"),
        ({"jobs": [{"input": {"prompt": "x"}, "lane": "exact"}]}, "unknown_field", "job 0: unknown field 'lane'"),
        ({"jobs": [{"input": {"prompt": "x"}}, {"input": {"prompt": 3}}]}, "bad_request", "job 1: input.prompt"),
        ({"jobs": [{"input": {"prompt": "x"}, "seed": -1}]}, "bad_request", "job 0: seed"),
        ({"model": "gpt-9"}, "unknown_model", "no model"),
        ({"lane": "psychic"}, "bad_request", "lane"),
        ({"colour": "red"}, "unknown_field", "colour"),
        ({"calibration": "ff"}, "bad_request", "calibration"),
    ],
)
def test_a_bad_batch_is_refused_by_name(change: dict[str, Any], code: str, message: str) -> None:
    fault = refused(body(2) | change)
    assert fault.code == code
    assert message in fault.message


def test_more_audits_than_a_batch_may_have_are_refused() -> None:
    fault = refused(body(256, policy="sample:1"))
    assert (fault.code, "at most 64" in fault.message) == ("bad_request", True)


def test_a_body_that_is_no_object_is_refused() -> None:
    assert refused([]).code == "bad_request"
