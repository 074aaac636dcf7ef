"""Whether a peer fails audits more often than it may: a test that can be looked at after every audit, for ever.

Against "given everything before it, each audit fails with probability at most alpha0" a gambler stakes a share of a
wealth of 1 on every failure, at odds that are fair or worse under that claim. The wealth is then a supermartingale
that starts at 1: the chance that it *ever* reaches 1/level is at most `level` (Ville's inequality). So there is no
sample size, no window and no penalty for looking often. Sources: Waudby-Smith and Ramdas, "Estimating means of bounded
random variables by betting", 2024, section 4; Shafer, "Testing by betting", 2021.

Nobody knows how often a cheater cheats, nor when it begins. So the wealth is spread over several stakes, and part of it
is a reserve that is not bet. After every audit a small share of what is on the table is dealt out afresh (the fixed
share of Herbster and Warmuth, "Tracking the best expert", 1998), and the reserve gives some of itself, ever less. This
moves wealth without making any, so the bound stands; and a peer that was honest for ten thousand audits and then turns
is met by gamblers who still have something to bet.

Only audits that gave a verdict count: abstentions, inconclusive rounds and work that nobody sampled are not observed.
The arithmetic is plus, minus, times and divide on IEEE doubles, so every platform keeps the same state.
Format: docs/spec/sampling.md, "Record of a peer".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from verify.faults import Fault, demand
from wire import codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed

VERSION = 1
STAKES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""Share of its wealth that each gambler puts on failure: the first is the reserve, the last is ruined by one pass."""

REDEAL = 1 / 512
"""Share of all wealth on the table that is dealt out evenly to everyone after an audit."""

RESERVE_AUDITS = 512
"""After audit n the reserve deals 1/(n + this) of itself to the others, so at least this/(n + this) of it stays."""

PPM = 1_000_000
ALPHA0_PPM_MIN = 10
LEVEL_INVERSE_MAX = 10**9
STATE_BYTES_MAX = 256


class Evidence(Wire, frozen=True):
    """What audits say about one peer and model.

    Attributes:
        version: 1.
        alpha0_ppm: failures per million that are tolerated, 10..500,000.
        level_inverse: the wealth that rejects the claim, 2..10**9; 1/level of the chance to wrong an honest peer.
        audits, failures: how many counted.
        purse: wealth of each of `STAKES`; nothing changes any more once its sum has reached `level_inverse`.
    """

    version: int
    alpha0_ppm: int
    level_inverse: int
    audits: int
    failures: int
    purse: list[float]

    @property
    def wealth(self) -> float:
        """The e-value: the expectation of this number, of an honest peer and at any time, is at most 1."""
        return math.fsum(self.purse)

    @property
    def rejected(self) -> bool:
        """Whether the peer is out."""
        return self.wealth >= self.level_inverse


def fresh(*, alpha0: float = 0.05, level: float = 1e-3) -> Evidence:
    """No audits yet.

    Args:
        alpha0: tolerated share of failures, 1e-5..0.5, taken to a millionth.
        level: largest chance ever to reject a peer that fails no more often, 1e-9..0.5; 1/level is taken upwards to
            a whole number.

    Raises:
        LocalError: out of range.
    """
    if not ALPHA0_PPM_MIN / PPM <= alpha0 <= 0.5 or not 1 / LEVEL_INVERSE_MAX <= level <= 0.5:
        raise LocalError(f"alpha0 {alpha0} or level {level} is out of range")
    inverse = min(math.ceil(1 / level), LEVEL_INVERSE_MAX)
    return Evidence(VERSION, round(alpha0 * PPM), inverse, 0, 0, [1 / len(STAKES)] * len(STAKES))


def observe(evidence: Evidence, *, failed: bool) -> Evidence:
    """After one more audit with a verdict; a rejected peer stays as it is."""
    if evidence.rejected:
        return evidence
    alpha0 = evidence.alpha0_ppm / PPM
    purse = settle(evidence.purse, alpha0, evidence.audits + 1, failed=failed)
    return Evidence(
        evidence.version,
        evidence.alpha0_ppm,
        evidence.level_inverse,
        evidence.audits + 1,
        evidence.failures + failed,
        purse,
    )


def settle(purse: Sequence[float], alpha0: float, audit: int, *, failed: bool) -> list[float]:
    """Pay out the bets on an audit, then deal; dealing does not change the sum.

    Args:
        purse: wealth of each gambler before it.
        alpha0: tolerated share of failures.
        audit: its number, from 1.
        failed: how it ended.
    """
    odds = (1 - alpha0) / alpha0
    if failed:
        paid = [held * (1 + stake * odds) for held, stake in zip(purse, STAKES, strict=True)]
    else:
        paid = [held * (1 - stake) for held, stake in zip(purse, STAKES, strict=True)]
    share = REDEAL * sum(paid[1:]) / len(STAKES)
    given = paid[0] / (audit + RESERVE_AUDITS)
    each = share + given / (len(STAKES) - 1)
    return [paid[0] - given + share, *((1 - REDEAL) * held + each for held in paid[1:])]


def pooled(records: Sequence[Evidence]) -> float:
    """The e-value of a peer over several models: the mean, valid however the models' failures hang together.

    Raises:
        LocalError: no record.
    """
    if not records:
        raise LocalError("no evidence to pool")
    return math.fsum(record.wealth for record in records) / len(records)


def encode(evidence: Evidence) -> bytes:
    """Canonical bytes, at most `STATE_BYTES_MAX`."""
    raw = codec.encode(evidence)
    assert decode(raw) == evidence, "a state that we made can be read back"
    return raw


def decode(raw: bytes) -> Evidence:
    """A state from outside, whole and possible.

    Raises:
        Fault: evidence.encoding, evidence.version, evidence.bounds, evidence.counts, evidence.purse.
    """
    try:
        evidence = codec.decode(Evidence, raw, bytes_max=STATE_BYTES_MAX)
    except Malformed as exc:
        raise Fault("evidence.encoding", str(exc)) from exc
    demand(evidence.version == VERSION, "evidence.version", f"version {evidence.version}")
    demand(ALPHA0_PPM_MIN <= evidence.alpha0_ppm <= PPM // 2, "evidence.bounds", f"alpha0 {evidence.alpha0_ppm} ppm")
    demand(2 <= evidence.level_inverse <= LEVEL_INVERSE_MAX, "evidence.bounds", f"1/level {evidence.level_inverse}")
    demand(0 <= evidence.failures <= evidence.audits < 1 << 63, "evidence.counts", "failures and audits disagree")
    _check_purse(evidence)
    return evidence


def _check_purse(evidence: Evidence) -> None:
    """What no sequence of audits with these counts can reach is refused, so a forged verdict needs forged failures."""
    purse = evidence.purse
    demand(len(purse) == len(STAKES), "evidence.purse", f"{len(purse)} gamblers")
    demand(all(math.isfinite(held) and held > 0 for held in purse), "evidence.purse", "not finite and positive")
    slack = 1 + 1e-9 + evidence.audits * 1e-15
    top = evidence.level_inverse * PPM / evidence.alpha0_ppm * slack
    # each on its own first: the sum of several finite numbers need not be finite
    demand(max(purse) <= top and evidence.wealth <= top, "evidence.purse", "more than rejection leaves")
    best = evidence.failures * -math.log(evidence.alpha0_ppm / PPM)
    demand(math.log(evidence.wealth) <= best + evidence.audits * 1e-12 + 1e-9, "evidence.purse", "more than can be won")
    reserve, dealt = _least(evidence.audits)
    demand(purse[0] * slack >= reserve, "evidence.purse", "less in reserve than ever stays there")
    demand(min(purse[1:]) * slack >= dealt, "evidence.purse", "a gambler was not dealt in")


def _least(audits: int) -> tuple[float, float]:
    """What the reserve, and every other gambler, holds at the very least after so many audits."""
    if audits == 0:
        return 1 / len(STAKES), 1 / len(STAKES)
    before = RESERVE_AUDITS / (audits - 1 + RESERVE_AUDITS) / len(STAKES)
    given = before / (audits + RESERVE_AUDITS)
    return before - given, given / (len(STAKES) - 1)


def audits_to_reject(rate: float, *, alpha0: float = 0.05, level: float = 1e-3) -> float:
    """An upper bound on the expected audits until a peer that fails with this probability is rejected.

    Wald's identity on the logarithm of the best single gambler: (ln of what it still has to win, plus the largest
    overshoot) / (its mean gain per audit, less the deal). Infinite where no stake gains.

    Args:
        rate: probability that an audit fails, 0..1.
        alpha0, level: as in `fresh`.
    """
    best = math.inf
    for stake in STAKES[1:]:
        won = math.log(1 + stake * (1 - alpha0) / alpha0)
        lost = (1 - rate) * math.log(1 - stake) if stake < 1 else (0.0 if rate >= 1 else -math.inf)
        drift = rate * won + lost + math.log(1 - REDEAL)
        if drift > 0:
            best = min(best, (math.log(len(STAKES) / level) + won) / drift)
    return best
