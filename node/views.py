"""What the local API shows of jobs, models and outputs, as plain JSON values."""

from __future__ import annotations

import base64
import io
from typing import Any

from ledger.entry import Accept, Body, Entry, Offer, Receipt, Relayed, Release, Settle
from node.jobs import Job
from wire import codec
from wire.job import Output
from wire.peer import short

END_OF_TEXT = b"\0"
"""With this byte a model says that its text ends here; it is no part of the text."""


def job_view(job: Job) -> dict[str, Any]:
    """A job as JSON (docs/reference/api.md, "Job")."""
    request = job.request
    end_ms = job.finished_ms if job.finished_ms is not None else job.events[-1]["at_ms"]
    return {
        "id": job.id,
        "kind": request.kind,
        "model": request.model,
        "state": job.state,
        "verdict": job.verdict,
        "lane": request.lane,
        "worker": job.worker,
        "jury": job.jury,
        "thresholds": job.thresholds,
        "output": output_view(request.kind, job.output),
        "cost_micro": job.cost_micro,
        "attempts": job.attempts,
        "escalation": job.escalation,
        "error": job.error,
        "seconds": round((end_ms - job.created_ms) / 1000, 3),
    }


def output_view(kind: str, raw: bytes | None) -> dict[str, Any] | None:
    """An output as JSON: text, a PNG in base64, or lists of floats."""
    if raw is None:
        return None
    tensors = codec.decode(Output, raw).tensors
    if kind == "text.generate":
        ids = tensors["tokens"].numpy().tolist()
        text = bytes(i for i in ids if 0 <= i < 256).removesuffix(END_OF_TEXT)
        return {"text": text.decode("utf-8", "replace")}
    if kind == "embed.text":
        return {"embeddings": tensors["vectors"].numpy().tolist()}
    pixels = tensors["pixels"].numpy()
    height, width = pixels.shape[:2]
    return {"image": {"width": width, "height": height, "png_base64": base64.b64encode(png(raw)).decode()}}


def entry_view(entry: Entry) -> dict[str, Any]:
    """A ledger entry as JSON, with a summary for people."""
    header, body = entry.header, entry.body
    return {
        "height": header.height,
        "id": entry.id.hex(),
        "time_ms": header.time_ms,
        "type": type(body).__name__.lower(),
        "job": body.job.hex(),
        "summary": _summary(body),
    }


def _summary(body: Body) -> str:
    job = f"job {body.job.hex()[:12]}"
    match body:
        case Offer():
            return f"{job}: {body.reserve_micro:,} reserved for {short(body.payee)} and {body.seats} jurors"
        case Accept():
            return f"{job}: accepted from {short(body.payer)}"
        case Receipt():
            return f"{job}: {body.verdict}, {sum(p.amount_micro for p in body.payments):,} owed"
        case Relayed():
            return f"{body.mib:,} MiB relayed by {short(body.relay)}: {body.amount_micro:,} owed"
        case Settle():
            return f"{job}: {body.amount_micro:,} earned from {short(body.payer)}"
        case Release():
            return f"{job}: reservation released, {body.reason}"


def png(raw: bytes, *, scale: int = 1) -> bytes:
    """The PNG file of an image output (`Output` bytes with `pixels` u1[h, w]).

    Args:
        raw: the output's canonical bytes.
        scale: how many times larger than the answer, interpolated; 1 keeps the very pixels.
    """
    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(codec.decode(Output, raw).tensors["pixels"].numpy())
    if scale != 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
    picture.save(file, "PNG")
    return file.getvalue()
