"""Stands for the node behind light peers: real jobs on a real board, which a test finishes as it likes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import trio

from node import intake
from node.jobs import Board, Job
from workloads.catalog import built_in
from workloads.executor import ModelInfo


@dataclass
class Market:
    """Stands for the node: real jobs on a real board, which a test finishes as it likes."""

    board: Board
    bodies: list[Any] = field(default_factory=list)

    def known_models(self) -> list[ModelInfo]:
        return list(built_in().capabilities().models)

    async def submit(self, body: Any) -> Job:
        request = intake.parse(body, self.known_models(), random_seed=1)
        self.bodies.append(body)
        job = self.board.add(secrets.token_hex(16), request)
        self.board.started(job, trio.CancelScope())
        return job

    def finish(self, job: Job, **fields: Any) -> None:
        self.board.update(job, "settled", **{"output": b"answer", "receipt": b"receipt", "cost_micro": 700, **fields})

    @property
    def jobs(self) -> list[Job]:
        return self.board.all()
