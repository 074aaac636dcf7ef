"""How soon audits find a cheater, and how often they wrong an honest peer: `python -m benchmarks.verify_audits`.

Peers are simulated in bulk: each audit fails with the peer's rate, independently. Both rules see the same audits. The
rule measured against is the z-test that one production network documents: after ceil(((3 + sqrt 5) / 2) / alpha0)
measurements a peer is out as soon as (share of failures - alpha0) / sqrt(alpha0 (1 - alpha0) / n) > 1, and at any time
after so many failures in a row that their probability is below 1e-6 (`x/inference/calculations/status.go` of
gonka-ai/gonka). It is rewritten here from that description, and asked after every audit.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.line import show
from verify import eprocess

ALPHA0 = 0.05
LEVEL = 1e-3
NEVER = np.iinfo(np.int64).max
Z_TEST = "z-test at z > 1"
CHEATERS = ((1.0, "100"), (0.5, "50"), (0.2, "20"))

Whole = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def audits_of(rate: float, peers: int, audits: int, seed: int, *, honest_first: int = 0) -> Iterator[Flags]:
    """Which peers fail, audit by audit; before a cheater turns it fails as often as is tolerated."""
    chance = np.random.Generator(np.random.Philox(seed))
    for number in range(honest_first + audits):
        yield chance.random(peers) < (ALPHA0 if number < honest_first else rate)


class Gamblers:
    """`verify.eprocess` for many peers at once, operation for operation."""

    def __init__(self, peers: int) -> None:
        self.purse: Floats = np.full((len(eprocess.STAKES), peers), 1 / len(eprocess.STAKES))
        self.rejected_at: Whole = np.full(peers, NEVER)
        self.audits = 0
        stakes = np.array(eprocess.STAKES)[:, None]
        self._won, self._lost = 1 + stakes * ((1 - ALPHA0) / ALPHA0), 1 - stakes

    def observe(self, failed: Flags) -> None:
        """One audit of each peer."""
        self.audits += 1
        playing = self.rejected_at == NEVER
        paid = np.where(playing, self.purse * np.where(failed, self._won, self._lost), 0)
        table = paid[1:].sum(axis=0)
        self.rejected_at[(paid[0] + table >= 1 / LEVEL) & playing] = self.audits
        share = eprocess.REDEAL * table / len(eprocess.STAKES)
        given = paid[0] / (self.audits + eprocess.RESERVE_AUDITS)
        self.purse[1:] = (1 - eprocess.REDEAL) * paid[1:] + (share + given / (len(eprocess.STAKES) - 1))
        self.purse[0] = paid[0] - given + share


class ZTest:
    """The other rule."""

    def __init__(self, peers: int) -> None:
        self.rejected_at: Whole = np.full(peers, NEVER)
        self.audits = 0
        self._failures, self._row = np.zeros(peers), np.zeros(peers)
        self._needed = math.ceil((3 + math.sqrt(5)) / 2 / ALPHA0)

    def observe(self, failed: Flags) -> None:
        """One audit of each peer."""
        self.audits += 1
        self._failures += failed
        self._row = np.where(failed, self._row + 1, 0)
        z = (self._failures / self.audits - ALPHA0) / math.sqrt(ALPHA0 * (1 - ALPHA0) / self.audits)
        out = ALPHA0**self._row < 1e-6
        if self.audits >= self._needed:
            out |= z > 1
        self.rejected_at[out & (self.rejected_at == NEVER)] = self.audits


def simulate(rate: float, peers: int, audits: int, seed: int, *, honest_first: int = 0) -> tuple[Whole, Whole]:
    """After how many audits (`NEVER` if not by the end) the e-process and the z-test reject each peer."""
    ours, theirs = Gamblers(peers), ZTest(peers)
    for failed in audits_of(rate, peers, audits, seed, honest_first=honest_first):
        ours.observe(failed)
        theirs.observe(failed)
    return ours.rejected_at, theirs.rejected_at


def updates_per_s(count: int) -> float:
    """Single updates of one record, as a node makes them."""
    failed = next(audits_of(ALPHA0, count, 1, seed=9)).tolist()
    evidence = eprocess.fresh(alpha0=ALPHA0, level=LEVEL)
    began = time.perf_counter()
    for each in failed:
        evidence = eprocess.observe(evidence, failed=each)
    return count / (time.perf_counter() - began)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    peers = 20_000 if quick else 200_000
    ours, theirs = simulate(ALPHA0, peers, 500, seed=1)
    shares = [100 * float((each != NEVER).mean()) for each in (ours, theirs)]
    show("verify.eprocess.honest_ejected", shares[0], "%", better="lower", peer=Z_TEST, peer_value=shares[1])
    for rate, name in CHEATERS:
        ours, theirs = simulate(rate, 2_000 if quick else 20_000, 400, seed=2)
        medians = [float(np.median(each)) for each in (ours, theirs)]
        figure = f"verify.eprocess.cheater_audits.{name}"
        show(figure, medians[0], "audits", better="lower", peer=Z_TEST, peer_value=medians[1])
    ours, _ = simulate(0.5, 1_000 if quick else 10_000, 200, seed=3, honest_first=1_000)
    late = ours[ours > 1_000] - 1_000
    error = "the z-test ejects most of these peers while they are still honest"
    show("verify.eprocess.turncoat_audits", float(np.median(late)), "audits", better="lower", error=error)
    show("verify.eprocess.updates", updates_per_s(50_000 if quick else 500_000), "1/s", better="higher")
    size = len(eprocess.encode(eprocess.fresh(alpha0=ALPHA0, level=LEVEL)))
    show("verify.eprocess.state_bytes", size, "bytes", better="lower")


if __name__ == "__main__":
    main()
