"""Whole nodes on the simulated network: the real composition and models, virtual time, files that outlive crashes.

A run of a model takes `RUN_S` virtual seconds (so that faults can hit it) and is computed at once, in this process.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import structlog
import trio
from nacl.signing import SigningKey

from crdt.service import run_inline
from node.config import Settings
from node.jobs import Job
from node.node import Faults, Node, Offload, assemble
from sim.faults import CALM
from sim.faults import Faults as Roughness
from sim.world import SimNode, World, world
from wire import bls
from wire.envelope import Envelope, seal
from wire.hashing import digest
from wire.job import Expected, JobSpec, KeyRecord, Output, Trace
from wire.peer import PeerId
from workloads.executor import Event, Executor
from workloads.variants import make_executor

RUN_S = 0.4
EMBED = {"kind": "embed.text", "model": "ngram-embed", "input": {"texts": ["one text", "another"]}, "timeout_s": 60.0}
IMAGE = {"kind": "image.generate", "model": "digits-ddim", "input": {"label": 3, "steps": 4}, "timeout_s": 60.0}


@cache
def _executor(cheat: str) -> Executor:
    return make_executor("numpy", cheat=cheat or None)


@cache
def _bls_secret(seed: bytes) -> int:
    return bls.keygen(digest("test.bls", seed))


class SimIdentity:
    """The identity that a simulated node's seed determines."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self._secret = _bls_secret(seed)
        self.peer = PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature

    def bls_sign(self, message: bytes) -> bytes:
        return bls.sign(self._secret, message)

    def key_record(self) -> Envelope:
        return seal(self, "keys", KeyRecord(bls.public_key(self._secret), bls.prove_possession(self._secret)))


class InlinePool:
    """Runs models in this process, `RUN_S` virtual seconds each."""

    def __init__(self, cheat: str = "") -> None:
        self._executor = _executor(cheat)

    async def run(self, spec: JobSpec, on_event: Callable[[Event], None]) -> tuple[Output, Trace]:
        await trio.sleep(RUN_S)
        return self._executor.run(spec, emit=on_event, cancelled=lambda: False)

    async def recheck(self, spec: JobSpec, output: Output, trace: Trace) -> Expected:
        await trio.sleep(RUN_S)
        return self._executor.recheck(spec, output, trace)


async def _inline(function: Callable[[], Any], /) -> Any:
    await trio.lowlevel.checkpoint()
    return function()


OFFLOAD = Offload(ledger=_inline, dht=_inline, shared=run_inline)


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines from simulated nodes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(60))
    yield
    structlog.reset_defaults()


@asynccontextmanager
async def market(
    seed: int, *, nodes: int = 6, faults: Roughness = CALM, cheats: dict[int, str] | None = None, **settings: Any
) -> AsyncIterator[World]:
    """`nodes` whole nodes that know the first one; `cheats` names the cheat of a node by its number."""
    root = Path(tempfile.mkdtemp(prefix="quorate-sim-"))
    base = {"juror_s": 5.0, "stall_s": 5.0, "accept_s": 3.0, "sync_period_s": 2.0, "worker_slots": 8} | settings

    @asynccontextmanager
    async def build(node: SimNode) -> AsyncIterator[Node]:
        home = root / str(node.number)
        home.mkdir(exist_ok=True)
        cheat = (cheats or {}).get(node.number, "")
        first = node.world.nodes[0]
        join = [] if node is first else first.transport.addresses()[:1]
        own = Settings(home=home, bootstrap=join, price_percent=50 if cheat else 100, **base)
        clock_ms = lambda: 1_700_000_000_000 + int(node.world.now * 1000)  # noqa: E731  # a clock is a function
        log = Faults(structlog.get_logger())
        identity = SimIdentity(node.ed25519_seed)
        async with assemble(
            own, identity, node.transport, InlinePool(cheat), clock_ms, faults=log, offload=OFFLOAD
        ) as app:
            yield app

    try:
        with quiet():
            async with world(nodes=nodes, seed=seed, faults=faults, build=build) as made:
                yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def finished(app: Node, body: dict[str, Any]) -> Job:
    """Submit a job and wait for its end."""
    job = await app.submit(body)
    async for _ in app.board.follow(job):
        pass
    return job


def balances(w: World) -> list[int]:
    """Every living node's balance."""
    return [node.app.context.ledger.balance() for node in w.nodes if node.alive]
