"""Writes tests/vectors/sampling-v1.json: `python -m tests.verify.sampling_vectors`.

Offers with what is picked, records after audits, and marks with their nonces; all bytes in hex. A test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.verify.test_sampling import SECRET, job, offer, root_of, roots
from verify.canary import CanaryMark, plan
from verify.eprocess import encode, fresh, observe
from verify.sampling import RATE_ONE, Sampling, commit_batch, open_picked, picks
from verify.sampling import BatchSecret as Shown
from wire import codec
from wire.hashing import digest

PATH = Path(__file__).parents[1] / "vectors" / "sampling-v1.json"


def batch(name: str, jobs: int, sampling: Sampling) -> dict[str, Any]:
    """One offer, the root of its answers, what is picked, and the first opening."""
    made = offer(jobs, sampling)
    root = commit_batch(made, roots(jobs)).root
    openings = open_picked(made, roots(jobs), Shown(made.id, SECRET))
    return {
        "name": name,
        "offer": codec.encode(made).hex(),
        "batch": made.id.hex(),
        "answers": [root_of(i).hex() for i in range(jobs)],
        "root": root.hex(),
        "secret": SECRET.hex(),
        "picks": list(picks(made, root, SECRET)),
        "opening": codec.encode(openings[0]).hex() if openings else None,
    }


def record(name: str, outcomes: str, alpha0: float, level: float) -> dict[str, Any]:
    """A record after audits: `f` failed, `p` passed."""
    evidence = fresh(alpha0=alpha0, level=level)
    for outcome in outcomes:
        evidence = observe(evidence, failed=outcome == "f")
    return {"name": name, "audits": outcomes, "evidence": encode(evidence).hex(), "rejected": evidence.rejected}


def mark(name: str, expected: Any) -> dict[str, Any]:
    """A mark and the nonce that it gives."""
    made = CanaryMark(expected, root_of(0), digest("test", b"key"))
    return {"name": name, "mark": codec.encode(made).hex(), "nonce": made.nonce.hex()}


def vectors() -> dict[str, Any]:
    """The whole file."""
    assert job(0) != root_of(0), "jobs and answers have names of their own"
    return {
        "batches": [
            batch("draw 3 of 10", 10, Sampling("draw", 3)),
            batch("one job, drawn", 1, Sampling("draw", 1)),
            batch("a quarter of 13", 13, Sampling("rate", RATE_ONE // 4)),
            batch("nearly never", 5, Sampling("rate", 1)),
            batch("all", 4, Sampling("rate", RATE_ONE)),
        ],
        "records": [
            record("nothing yet", "", 0.05, 1e-3),
            record("honest", "p" * 40, 0.05, 1e-3),
            record("mixed", "ppfppppfpfpp", 0.05, 1e-3),
            record("out, and later audits do not count", "fffpppp", 0.05, 1e-3),
            record("a stricter one", "pfpf", 0.001, 1e-6),
        ],
        "marks": [mark("bad", "reject"), mark("good", "accept")],
        "plan": {"real": 8, "share": 0.125, "seed": SECRET.hex(), "asks": list(plan(8, 0.125, SECRET))},
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
