"""A job judged by a record that the requester measured itself, on the simulated network."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from node.calibrations import FOLDER
from quorate.receipt import verify_receipt
from sim.world import SimNode, World, run
from tests.sim.market_world import EMBED, check_books, finished, market, node_of
from verify.calibrated import calibration_for, calibrations
from verify.calibration import Calibration
from verify.signed_calibration import sign
from wire.peer import to_text
from workloads.catalog import built_in

MODEL = next(model for model in built_in().capabilities().models if model.kind == "embed.text")
OWN: Calibration = msgspec.structs.replace(calibration_for("embed.text", MODEL.cid, "tolerant", "f32"), margin=7.0)
HASH = OWN.hash.hex()


@dataclass
class Copies:
    """Gives the first node's record to some nodes, and has some of them trust its author."""

    to: set[int]
    trusting: set[int]
    authors: list[str] = field(default_factory=list)

    def __call__(self, node: SimNode) -> None:
        first = node.world.nodes[0]
        self.authors[:] = [to_text(first.peer)]
        if node.number in self.to:
            folder = node.disk["home"] / FOLDER
            folder.mkdir(exist_ok=True)
            (folder / "own.calibration").write_bytes(sign(first.identity, OWN).raw)

    def settings(self) -> dict[int, dict[str, list[str]]]:
        """The list is filled before the first node that trusts is built."""
        return {number: {"calibration_authors": self.authors} for number in self.trusting}


def test_nodes_that_trust_the_author_judge_by_its_record_and_the_others_do_not() -> None:
    """Nodes 1 to 4 trust it; node 5 has the file and does not, so it neither works nor judges."""

    async def main() -> None:
        copies = Copies(to={0, 1, 2, 3, 4, 5}, trusting={1, 2, 3, 4})
        async with market(1, before=copies, only=copies.settings()) as w:
            job = await finished(w.nodes[0].app, {**EMBED, "calibration": HASH[:12], "retries": 5})
            assert (job.state, job.verdict) == ("settled", "accept"), job
            assert job.receipt is not None
            assert verify_receipt(job.receipt, output=job.output).calibration == HASH
            took_part = {job.worker, *(str(member["peer"]) for member in job.jury)}
            assert to_text(w.nodes[5].peer) not in took_part
            await check_books(w, honest=True)

    run(main, 1)


async def _declined(w: World) -> list[str]:
    job = await finished(w.nodes[0].app, {**EMBED, "calibration": HASH, "retries": 0})
    assert (job.error or {}).get("code") == "worker_failed", job
    return [attempt["reason"] for attempt in job.attempts]


@pytest.mark.parametrize("held", [set[int](), {1, 2, 3, 4, 5}], ids=["nobody has it", "nobody trusts its author"])
def test_a_worker_refuses_at_once_thresholds_that_it_does_not_know(held: set[int]) -> None:
    async def main() -> None:
        copies = Copies(to={0, *held}, trusting=set())
        async with market(2, before=copies, only=copies.settings()) as w:
            (reason,) = await _declined(w)
            assert reason == f"thresholds: calibration {HASH[:12]} is not known here"
            await check_books(w, honest=True)

    run(main, 2)


def test_jurors_that_do_not_know_the_record_abstain_and_say_so() -> None:
    """Only the worker knows it, and it is the cheapest: no jury can be had, and the answer stays unaudited."""

    async def main() -> None:
        copies = Copies(to={0, 1}, trusting={1})
        only = {**copies.settings(), 1: {"calibration_authors": copies.authors, "price_percent": 50}}
        async with market(3, before=copies, only=only) as w:
            job = await finished(w.nodes[0].app, {**EMBED, "calibration": HASH, "retries": 0})
            assert node_of(w, str(job.worker)).number == 1
            assert (job.state, job.verdict, job.cost_micro) == ("settled", "unaudited", 0)
            assert "passed over: abstain.calibration.unknown" in job.attempts[0]["reason"]
            await check_books(w, honest=True)

    run(main, 3)


def test_without_a_name_the_record_that_ships_is_taken() -> None:
    async def main() -> None:
        copies = Copies(to={0}, trusting=set())
        async with market(4, before=copies) as w:
            job = await finished(w.nodes[0].app, EMBED)
            assert job.verdict == "accept"
            assert job.receipt is not None
            assert bytes.fromhex(verify_receipt(job.receipt).calibration) in calibrations()

    run(main, 4)
