"""Whole nodes on the simulated network: real composition, real models, virtual time, files that outlive crashes.

A run of a model takes `RUN_S` virtual seconds (so that faults can hit it) and is computed at once, in this process.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import structlog
import trio

from crdt.service import run_inline
from ledger.entry import Receipt, Settle
from node.compose import Faults, Offload, assemble
from node.config import Settings
from node.jobs import Job
from node.node import Node
from sim.faults import CALM
from sim.faults import Faults as Roughness
from sim.transport import address_of
from sim.world import SimNode, World, world
from tests.sim.tap import Alter, Frame, Tap
from wire import codec
from wire.errors import RemoteError
from wire.hashing import digest
from wire.job import Certificate, Expected, JobSpec, Output, Trace, VerdictWord
from wire.peer import PeerId, to_text
from wire.tensor import Tensor, from_numpy
from workloads.executor import Event, Executor
from workloads.variants import make_executor

RUN_S = 0.4
DISK_S = 0.01
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
SETTLE_S = 60.0
EPOCH_MS = 1_700_000_000_000
EMBED: dict[str, Any] = {
    "seed": 1,
    "kind": "embed.text",
    "model": "ngram-embed",
    "input": {"texts": ["one text", "another"]},
    "timeout_s": 60.0,
}
IMAGE: dict[str, Any] = {
    "seed": 1,
    "kind": "image.generate",
    "model": "digits-ddim",
    "input": {"label": 3, "steps": 4},
    "timeout_s": 60.0,
}


@cache
def _executor(cheat: str) -> Executor:
    return make_executor("numpy", cheat=cheat or None)


def referee() -> Executor:
    """Somebody who took no part and recomputes: `verify.evidence.Referee`."""
    return _executor("")


_runs: dict[bytes, tuple[list[Event], Output, Trace]] = {}
_rechecks: dict[bytes, Expected] = {}


def _key(cheat: str, spec: JobSpec, *more: Output | Trace) -> bytes:
    """What decides a result; the same work in another world is not computed again."""
    parts = (spec.kind, spec.model, spec.lane, spec.numeric, cheat, spec.seed)
    return digest("test.work", repr(parts).encode(), spec.inputs, *map(codec.encode, more))


Lies = Callable[[int, JobSpec], VerdictWord | None]
"""What a node (by its number) finds about a job whatever it computes; None where it is honest."""


def honest(node: int, spec: JobSpec) -> VerdictWord | None:
    """Nobody lies."""
    return None


def _pretended(verdict: VerdictWord, spec: JobSpec, output: Output, trace: Trace, drawn: Sequence[int]) -> Expected:
    """What an executor would have to compute for this verdict; of a text only to accept it, in the exact lane."""
    if spec.kind == "text.generate":
        assert (verdict, spec.lane) == ("accept", "exact"), "no other pretence is needed"
        return Expected({**output.tensors, **trace.tensors})
    if "latents" not in trace.tensors:
        vectors = output.tensors["vectors"].numpy()
        return Expected({"vectors": from_numpy(vectors if verdict == "accept" else -vectors)})
    latents = trace.tensors["latents"].numpy()
    after = latents[np.array(drawn) + 1] if len(drawn) else latents[1:]
    steps = after if verdict == "accept" else after + 1
    return Expected({"noise": from_numpy(latents[0]), "steps": from_numpy(steps), "pixels": output.tensors["pixels"]})


class InlinePool:
    """Runs models in this process, `RUN_S` virtual seconds each."""

    def __init__(self, cheat: str = "", node: int = 0, lies: Lies = honest) -> None:
        self._cheat, self._node, self._lies = cheat, node, lies

    async def run(self, spec: JobSpec, on_event: Callable[[Event], None]) -> tuple[Output, Trace]:
        await trio.sleep(RUN_S)
        key = _key(self._cheat, spec)
        if key not in _runs:
            events: list[Event] = []
            output, trace = _executor(self._cheat).run(spec, emit=events.append, cancelled=lambda: False)
            _runs[key] = (events, output, trace)
        events, output, trace = _runs[key]
        for event in events:
            on_event(event)
        return output, trace

    async def recheck(self, spec: JobSpec, output: Output, trace: Trace, *, steps: Sequence[int] = ()) -> Expected:
        await trio.sleep(RUN_S)
        lie = self._lies(self._node, spec)
        if lie is not None:
            return _pretended(lie, spec, output, trace, steps)
        key = _key(f"steps {list(steps)}", spec, output, trace)
        if key not in _rechecks:
            _rechecks[key] = _executor(self._cheat).recheck(spec, output, trace, steps=steps)
        return _rechecks[key]

    async def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        await trio.sleep(RUN_S)
        return _executor("").recompute(spec, step, state)


class Noted(Faults):
    """Keeps whom a node blames where the tests look: in `SimNode.blamed`."""

    def __init__(self, node: SimNode) -> None:
        super().__init__(structlog.get_logger())
        self._node = node

    def blame(self, exc: RemoteError) -> None:
        self._node.blamed.append(exc)
        super().blame(exc)


async def _inline(function: Callable[[], Any], /) -> Any:
    await trio.lowlevel.checkpoint()
    return function()


async def _slow_disk(function: Callable[[], Any], /) -> Any:
    """Like a thread: cannot be cancelled, and a crash can fall between what it does and the news of it."""
    with trio.CancelScope(shield=True):
        await trio.sleep(DISK_S)
        result = function()
        await trio.sleep(DISK_S)
    return result


OFFLOAD = Offload(ledger=_slow_disk, dht=_inline, shared=run_inline)


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines from simulated nodes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


@contextmanager
def seeded_entropy(seed: int) -> Iterator[None]:
    """Secrets, salts and ids from a seeded generator instead of the operating system, so that a run repeats itself."""
    random = Random(seed)
    with (
        patch("secrets.token_bytes", random.randbytes),
        patch("secrets.token_hex", lambda size: random.randbytes(size).hex()),
        patch("secrets.randbits", random.getrandbits),
        patch("secrets.randbelow", random.randrange),
        patch("os.urandom", random.randbytes),
    ):
        yield


@asynccontextmanager
async def market(
    seed: int,
    *,
    nodes: int = 6,
    faults: Roughness = CALM,
    cheats: Mapping[int, str] | None = None,
    lies: Lies = honest,
    only: Mapping[int, dict[str, Any]] | None = None,
    log: list[Frame] | None = None,
    alter: Alter | None = None,
    before: Callable[[SimNode], None] | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """`nodes` whole nodes that know the first one.

    Args:
        seed: decides everything.
        nodes, faults: of the world.
        cheats: the cheat of a node by its number; cheats are cheap.
        lies: what nodes find as jurors, whatever they compute.
        only: settings of single nodes, by number.
        log: takes down all that nodes say to one another.
        alter: changes what nodes send.
        before: called with each node before each of its lives.
        settings: of all nodes.
    """
    root = Path(tempfile.mkdtemp(prefix="quorate-sim-", dir=MEMORY))
    base = {"juror_s": 5.0, "stall_s": 5.0, "accept_s": 3.0, "sync_period_s": 4.0, "worker_slots": 8}
    base |= {"canary_share": 0.0} | settings

    @asynccontextmanager
    async def build(node: SimNode) -> AsyncIterator[Node]:
        home = node.disk["home"] = root / str(node.number)
        home.mkdir(exist_ok=True)
        if before is not None:
            before(node)
        cheat = (cheats or {}).get(node.number, "")
        first = node.world.nodes[0]
        join = [] if node is first else [address_of(0, first.peer)]
        chosen: dict[str, Any] = {"price_percent": 50 if cheat else 100, **base, **(only or {}).get(node.number, {})}
        own = Settings(home=home, **chosen).model_copy(update={"bootstrap": join})  # addresses of this network, not TCP
        transport: Any = (
            node.transport if log is None and alter is None else Tap(node, [] if log is None else log, alter)
        )

        def clock_ms() -> int:
            return EPOCH_MS + int(node.world.now * 1000)

        pool = InlinePool(cheat, node.number, lies)
        async with assemble(own, node.identity, transport, pool, clock_ms, faults=Noted(node), offload=OFFLOAD) as app:
            yield app

    try:
        with quiet(), seeded_entropy(seed):
            async with world(nodes=nodes, seed=seed, faults=faults, build=build, introduce=False) as made:
                await _acquainted(made)
                yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _acquainted(made: World) -> None:
    """Wait until the first node finds every node that serves, a virtual minute at most."""
    first = made.nodes[0].app
    serving = sum(node.app.context.settings.serve for node in made.nodes)
    with trio.move_on_after(60):
        for model in first.context.models:
            while len(await first.dht.providers(model.cid)) < serving:  # noqa: ASYNC110  # no event: it is a look-up
                await trio.sleep(0.5)


async def kill(node: SimNode) -> None:
    """Die as by SIGKILL: what a dying node still writes does not reach its disk."""
    node.transport.crash()
    kept = _copy(node.disk["home"])
    await node.crash()
    _put_back(kept, node.disk["home"])


def _copy(home: Path) -> Path:
    kept = home.with_suffix(".kept")
    kept.mkdir()
    for file in sorted(home.iterdir()):
        if not file.name.endswith("-shm"):
            shutil.copyfile(file, kept / file.name)
    return kept


def _put_back(kept: Path, home: Path) -> None:
    shutil.rmtree(home)
    kept.rename(home)


def node_of(w: World, peer: str) -> SimNode:
    """The node with this identity, in text."""
    return next(node for node in w.nodes if to_text(node.peer) == peer)


async def finished(app: Node, body: dict[str, Any]) -> Job:
    """Submit a job and wait for its end."""
    return await ended(app, await app.submit(body))


async def ended(app: Node, job: Job) -> Job:
    """Wait for the end of a job."""
    async for _ in app.board.follow(job):
        pass
    return job


def balances(w: World) -> list[int]:
    """Every living node's balance."""
    return [node.app.context.ledger.balance() for node in w.nodes if node.alive]


def even(w: World) -> bool:
    """Whether all that was paid has been taken, and nothing is reserved."""
    reserved = [node.app.context.ledger.reserved() for node in w.nodes if node.alive]
    return sum(balances(w)) == 0 and not any(reserved)


async def receipts(w: World) -> list[Receipt]:
    """All receipts on all nodes' own chains."""
    entries = [entry for node in w.nodes for entry in await node.app.context.ledger.entries(node.peer, 0, 1000)]
    return [entry.body for entry in entries if isinstance(entry.body, Receipt)]


async def check_books(w: World, *, honest: bool = False) -> None:
    """What must hold of all nodes, whatever happened, once it is over: see the assertions.

    Args:
        w: the world.
        honest: nobody lied, so nobody may have been blamed, whatever crashed.
    """
    await _settled(w)
    if honest:
        blamed = [(node.number, str(exc)) for node in w.nodes for exc in node.blamed]
        assert not blamed, f"honest peers were blamed: {blamed}"
    paid: set[bytes] = set()
    taken: set[tuple[PeerId, bytes]] = set()
    for node in w.nodes:
        ledger = node.app.context.ledger
        report = await ledger.audit()
        assert report.ok, f"node {node.number}: {report.issues}"
        assert not ledger.forkers(), f"node {node.number} holds a fork proof"
        for entry in await ledger.entries(node.peer, 0, 1000):
            body = entry.body
            if isinstance(body, Receipt):
                assert body.job not in paid, "one job was paid twice"
                paid.add(body.job)
                check_payments(body)
            elif isinstance(body, Settle):
                assert (node.peer, body.receipt) not in taken, "one receipt was settled twice"
                taken.add((node.peer, body.receipt))


async def _settled(w: World) -> None:
    with trio.move_on_after(SETTLE_S) as late:
        await w.until(lambda: even(w))
    if late.cancelled_caught:
        raise AssertionError(f"balances {balances(w)} after {SETTLE_S:g} s; {await _why_uneven(w)}")


async def _why_uneven(w: World) -> str:
    """What each node has not settled, whom it knows, and how far it has read the others' chains."""
    told = []
    for node in w.nodes:
        ledger, keyring = node.app.context.ledger, node.app.context.keyring
        heads = [ledger.head(other.peer) - other.app.context.ledger.head() for other in w.nodes if other is not node]
        keys = sum(keyring.record(other.peer) is not None for other in w.nodes)
        told.append(
            f"node {node.number}: reserved {ledger.reserved()}, unsettled {len(await ledger.unsettled())}, "
            f"contacts {len(node.app.dht.contacts())}, keys {keys}, behind {heads}"
        )
    return "; ".join(told)


def check_payments(body: Receipt) -> None:
    """No credit before verification: whoever is paid stands in a certificate, or worked for one that says accept."""
    if not body.payments:
        return
    certificates = [codec.decode(Certificate, raw) for raw in body.certificates]
    said = [certificate.statement.verdict for certificate in certificates]
    if certificates[0].statement.job == body.job or body.verdict == "accept":
        assert set(said) == {body.verdict}
    else:
        assert "reject" in said, "a batch is rejected for an answer that a jury rejected"
    signers = {signer for certificate in certificates for signer in certificate.signers}
    jurors = {payment.peer for payment in body.payments} & signers
    assert len(body.payments) == len(jurors) + (body.verdict == "accept"), "somebody without a vote was paid"
