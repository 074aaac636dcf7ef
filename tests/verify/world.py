"""A small cast for the tests of verify: identities from seeds, one committed answer, jurors with canned findings."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from verify.calibration import Calibration, Subject, calibrate
from verify.commitment import commit
from verify.fingerprints.registry import fingerprint_for
from verify.juror import Juror
from verify.jury import beacon_hash, pool_hash, pool_of
from verify.messages import JuryAnswer, JuryAsk
from verify.round import Round, Timing
from verify.verdict import Finding
from wire import codec
from wire.cid import of
from wire.envelope import seal
from wire.hashing import digest
from wire.identity import Identity
from wire.job import EmbedInput, Expected, JobSpec, Output, Trace
from wire.peer import PeerId
from wire.tensor import from_numpy

MODEL = of(b"a model for tests")
SALT = digest("test", b"salt")
SECRET = digest("test", b"secret")
DEADLINE_MS = 2_000_000


@lru_cache(maxsize=64)
def person(name: str) -> Identity:
    """The identity that everybody agrees to call `name`."""
    return Identity.from_seed(digest("test.person", name.encode()))


VECTORS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    """A certified record for the tests' model; its distances stand for what a calibration run measured."""
    fingerprint = fingerprint_for("embed.text", "tolerant")
    subject = Subject("embed.text", MODEL, "tolerant", "f32", fingerprint.id, fingerprint.resolution)
    honest = {"a/b": [{"cosine": 1e-13, "relative": 1e-7}] * 60}
    from verify.calibration import CheatRuns

    return calibrate(subject, honest, {"other model": CheatRuns([{"cosine": 0.3, "relative": 0.7}] * 20)})


def spec(*, jury_size: int = 3, peers: int = 7, **changes: Any) -> JobSpec:
    """A job of the requester's; the pool is juror 0.. and everybody's weight is 1 + its number."""
    fields: dict[str, Any] = {
        "version": 1,
        "kind": "embed.text",
        "model": MODEL,
        "inputs": codec.encode(EmbedInput(["a", "b", "c"])),
        "lane": "tolerant",
        "numeric": "f32",
        "fingerprint": fingerprint_for("embed.text", "tolerant").id,
        "calibration": calibration().hash,
        "seed": 7,
        "jury_size": jury_size,
        "spots": 0,
        "price_micro": 1000,
        "fee_micro": 100,
        "requester": person("requester").peer,
        "pool": pool_hash(pool_of(weights(peers))),
        "beacon_hash": beacon_hash(SECRET),
        "nonce": bytes(16),
        "created_ms": 1_000_000,
        "deadline_ms": DEADLINE_MS,
    }
    return JobSpec(**(fields | changes))


def weights(peers: int) -> dict[PeerId, int]:
    """Requester and worker are in the pool as well; the draw leaves them out."""
    jurors = {juror_name(i): 1 + i for i in range(peers)}
    return {person(name).peer: weight for name, weight in (jurors | {"requester": 5, "worker": 5}).items()}


def juror_name(index: int) -> str:
    return f"juror-{index}"


def names(peers: int) -> dict[PeerId, str]:
    """Who is behind which peer id."""
    return {person(juror_name(i)).peer: juror_name(i) for i in range(peers)}


def answer() -> tuple[Output, Trace]:
    return Output({"vectors": from_numpy(VECTORS)}), Trace({})


def ask_for(job: JobSpec, *, peers: int = 7, salt: bytes = SALT) -> JuryAsk:
    """What the requester shows to every juror."""
    output, trace = answer()
    return JuryAsk(
        spec=seal(person("requester"), "job", job),
        commitment=seal(person("worker"), "commitment", commit(job.id, output, trace, salt)),
        secret=SECRET,
        salt=salt,
        pool=pool_of(weights(peers)),
        output=output,
        trace=trace,
    )


ACCEPTED = Finding("accept", {"cosine": 1e-13, "relative": 1e-7}, digest("sketch", b"own"))
REJECTED = Finding("reject", {"cosine": 0.4, "relative": 0.9}, digest("sketch", b"own"))
HONEST = Expected({"vectors": from_numpy(VECTORS)})


def jurors(peers: int = 7) -> dict[PeerId, Juror]:
    """Fresh jurors that know the calibration."""
    return {
        person(juror_name(i)).peer: Juror(person(juror_name(i)), {calibration().hash: calibration()})
        for i in range(peers)
    }


def ruled(juror: Juror, ask: JuryAsk, result: Expected | Finding) -> JuryAnswer:
    """A juror's answer after its re-run gave `result`."""
    requester = person("requester").peer
    return juror.rule(juror.consider(requester, ask, now_ms=DEADLINE_MS - 1000), result)


def started(*, jury_size: int = 3, peers: int = 7, timing: Timing | None = None) -> tuple[Round, list[PeerId]]:
    """A round that has asked its first jurors at time 0, and the draw order."""
    round_ = Round(ask_for(spec(jury_size=jury_size, peers=peers), peers=peers), timing=timing)
    round_.start(0.0)
    return round_, list(round_.case.order)
