"""Whole jobs on real node processes, against the same model run alone on the same machine.

    python -m benchmarks.e2e [--quick]

`e2e.overhead.*` is wall seconds of a job with `quorum:3`, from submission to verdict, against one run of the model in a
warm process; `e2e.cpu.*` is the CPU seconds of all nodes together, jurors included, against those of that run.
The rest is one idle node: seconds from process start to an answering API, memory and CPU of its processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
import trio

from benchmarks.line import show
from node.swarm import Member, Swarm, six
from wire import codec
from wire.job import EmbedInput, ImageInput, JobSpec, TextInput
from wire.peer import PeerId

IDLE_S = 15.0
WORK: dict[str, tuple[str, str, dict[str, Any]]] = {
    "text": ("text.generate", "bytes-gpt", {"prompt": "The list of ", "tokens_max": 128}),
    "image": ("image.generate", "digits-ddim", {"label": 7, "steps": 60}),
    "embed": ("embed.text", "ngram-embed", {"texts": [f"sentence number {n} of a batch" for n in range(32)]}),
}


def _family(member: Member) -> list[psutil.Process]:
    assert member.process is not None, "started"
    root = psutil.Process(member.process.pid)
    return [root, *root.children(recursive=True)]


def _cpu_s(members: list[Member]) -> float:
    total = 0.0
    for member in members:
        for process in _family(member):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


def _idle(swarm: Swarm, seconds: float) -> None:
    member = swarm.members[0]
    started = time.monotonic()
    swarm.start(member)
    swarm.ready(member)
    show("e2e.start_s", time.monotonic() - started, "s", better="lower")
    time.sleep(2.0)
    before, at = _cpu_s([member]), time.monotonic()
    time.sleep(seconds)
    share = 100 * (_cpu_s([member]) - before) / (time.monotonic() - at)
    show("e2e.idle_rss_mb", sum(p.memory_info().rss for p in _family(member)) / 1e6, "MB", better="lower")
    show("e2e.idle_cpu_pct", share, "%", better="lower")


def _api_rate(member: Member, seconds: float) -> None:
    with member.client() as client:
        count, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            client.raw("GET", "/api/v1/node")
            count += 1
    show("e2e.api_requests", count / seconds, "requests/s", better="higher")


def _job(member: Member, kind: str, model: str, given: dict[str, Any], lane: str, seed: int) -> float:
    with member.client() as client:
        started = time.monotonic()
        body = {"kind": kind, "model": model, "input": given, "lane": lane, "seed": seed}
        job_id = client.raw("POST", "/api/v1/jobs", body)["id"]
        for _ in client.job(job_id).events():
            pass
        seconds = time.monotonic() - started
        view = client.raw("GET", f"/api/v1/jobs/{job_id}")
    assert view["verdict"] == "accept", view
    return seconds


def _spec(kind: str, model: str, given: dict[str, Any], lane: str, seed: int) -> JobSpec:
    from workloads.catalog import built_in

    inputs = {"text.generate": TextInput, "image.generate": ImageInput, "embed.text": EmbedInput}[kind]
    cid = built_in().find(model).cid
    raw = codec.encode(inputs(**given))
    numeric = "f32" if lane == "tolerant" else "f64r32"
    blank = bytes(32)
    return JobSpec(
        1,
        kind,
        cid,
        raw,
        lane,
        numeric,
        "",
        blank,
        seed,
        0,
        0,
        0,
        0,
        PeerId(blank),
        blank,
        blank,
        bytes(16),
        0,
        2**50,  # type: ignore[arg-type]  # kind and lane are literals of WORK
    )


async def _alone(kind: str, model: str, given: dict[str, Any], lane: str, runs: int) -> tuple[float, float]:
    """Median wall and CPU seconds of one run in a warm process."""
    from workloads.service import open_pool

    wall, cpu = [], []
    me = psutil.Process(os.getpid())
    async with open_pool(workers=1, threads=1) as pool:
        for seed in range(runs + 1):
            children = me.children()
            busy = sum(c.cpu_times().user + c.cpu_times().system for c in children)
            started = time.monotonic()
            await pool.run(_spec(kind, model, given, lane, seed), lambda _: None)
            if seed:
                wall.append(time.monotonic() - started)
                cpu.append(sum(c.cpu_times().user + c.cpu_times().system for c in me.children()) - busy)
    return statistics.median(wall), max(statistics.fmean(cpu), 0.01)


def _overheads(swarm: Swarm, runs: int) -> None:
    asker = swarm.members[0]
    for short, (kind, model, given) in WORK.items():
        for lane in ("tolerant", "exact"):
            _job(asker, kind, model, given, lane, 0)
            wall, cpu = [], []
            for seed in range(1, runs + 1):
                before = _cpu_s(swarm.members)
                wall.append(_job(asker, kind, model, given, lane, seed))
                cpu.append(_cpu_s(swarm.members) - before)
            alone_wall, alone_cpu = trio.run(_alone, kind, model, given, lane, runs)
            peer = "model alone"
            name = f"{short}.{lane}"
            show(f"e2e.overhead.{name}", statistics.median(wall), "s", better="lower", peer=peer, peer_value=alone_wall)
            show(f"e2e.cpu.{name}", statistics.fmean(cpu), "s", better="lower", peer=peer, peer_value=alone_cpu)


def main() -> None:
    """Run all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    quick = parser.parse_args().quick
    swarm = six()
    assert isinstance(swarm.root, Path), "a temporary folder"
    try:
        _idle(swarm, 4.0 if quick else IDLE_S)
        _api_rate(swarm.members[0], 1.0 if quick else 5.0)
        for member in swarm.members[1:]:
            swarm.start(member)
        for member in swarm.members[1:]:
            swarm.ready(member)
        swarm.await_providers(swarm.members[0], {model: 5 for _, model, _ in WORK.values()})
        _overheads(swarm, 2 if quick else 8)
    finally:
        swarm.stop()


if __name__ == "__main__":
    main()
