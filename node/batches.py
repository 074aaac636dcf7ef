"""Batches as the API shows them, and how their answers and receipts are kept.

An answer that nobody looked at is never called checked, verified or accepted here: it is "unchecked", with the rate at
which its batch was audited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from node.jobs import Job
from node.views import output_view


def pack_outputs(outputs: Sequence[bytes]) -> bytes:
    """Canonical outputs of all jobs, in order, for `Job.output`."""
    return msgspec.msgpack.encode(list(outputs))


def pack_receipts(receipts: Mapping[int, bytes]) -> bytes:
    """Receipts of the audited jobs by number, for `Job.receipt`."""
    return msgspec.msgpack.encode(dict(receipts))


def output_of(batch: Job, index: int) -> bytes | None:
    """The canonical output of one job; None while there is none."""
    outputs = [] if batch.output is None else msgspec.msgpack.decode(batch.output, type=list[bytes])
    return outputs[index] if 0 <= index < len(outputs) else None


def receipt_of(batch: Job, index: int) -> bytes | None:
    """The receipt of one job; None if it was not audited."""
    receipts = {} if batch.receipt is None else msgspec.msgpack.decode(batch.receipt, type=dict[int, bytes])
    return receipts.get(index)


def audits_of(batch: Job) -> int:
    """How many were, or at least will be, audited: of a worker with a bad record more than was asked for."""
    return len(batch.jury) or batch.request.audits


def rate(batch: Job) -> str:
    """How many of how many: "3/100"."""
    return f"{audits_of(batch)}/{len(batch.request.items)}"


def checked(batch: Job, audit: Mapping[str, Any] | None) -> str:
    """What may be said of one answer."""
    if audit is not None and audit["verdict"] == "unaudited":
        return "picked for an audit, but no quorum of its jury vouches for it"
    if audit is not None:
        return f"audited by a jury of {batch.request.jury_size}: {audit['verdict']}"
    if batch.verdict == "accept":
        return f"unchecked, batch audited at rate {rate(batch)}"
    if batch.verdict is None:
        return "unchecked, batch not audited yet"
    return f"unchecked, batch not credited: {batch.verdict}"


def batch_view(batch: Job, *, outputs: bool = True) -> dict[str, Any]:
    """A batch as JSON (docs/reference/api.md, "Batch"); its answers are left out if `outputs` is False."""
    request = batch.request
    end_ms = batch.finished_ms if batch.finished_ms is not None else batch.events[-1]["at_ms"]
    return {
        "id": batch.id,
        "kind": request.kind,
        "model": request.model,
        "state": batch.state,
        "verdict": batch.verdict,
        "lane": request.lane,
        "worker": batch.worker,
        "jobs": len(request.items),
        "audits": audits_of(batch),
        "rate": rate(batch),
        "thresholds": batch.thresholds,
        "items": _items(batch, outputs=outputs),
        "cost_micro": batch.cost_micro,
        "attempts": batch.attempts,
        "error": batch.error,
        "seconds": round((end_ms - batch.created_ms) / 1000, 3),
    }


def _items(batch: Job, *, outputs: bool) -> list[dict[str, Any]]:
    audits = {audit["index"]: audit for audit in batch.jury}
    packed = msgspec.msgpack.decode(batch.output, type=list[bytes]) if outputs and batch.output is not None else []
    return [
        {
            "index": index,
            "audited": index in audits and audits[index]["verdict"] != "unaudited",
            "verdict": audits[index]["verdict"] if index in audits else None,
            "checked": checked(batch, audits.get(index)),
            "jury": audits[index]["jury"] if index in audits else [],
            "output": output_view(batch.request.kind, packed[index]) if packed else None,
        }
        for index in range(len(batch.request.items))
    ]
