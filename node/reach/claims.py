"""Which of our addresses were proven: dialled back by others. Sans-IO.

An address is a *claim* until servers on at least `PROOFS_MIN` IP addresses have dialled it from a fresh connection and
met our key there, more of them than failed. Only proven addresses are advertised, and those that we listen on unless
they were *disproved* in the same way. One voice per IP address of a server, the newest; a voice is forgotten after
`CLAIM_S`, so a claim must be proven again.

What it cannot show: a router that filters by IP address alone, not by port, lets the servers back in because we dialled
them; strangers may still be kept out. They then come through a relay, so the mistake costs a dial.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from node.reach.addresses import Endpoint, scope
from node.reach.observed import Observed

PROOFS_MIN = 2
CLAIM_S = 1800.0
CLAIMS_MAX = 4
SERVERS_MAX = 64


class Claims:
    """What servers said of each address of ours."""

    def __init__(self) -> None:
        self._said: dict[Endpoint, dict[str, tuple[bool, float]]] = {}

    def set_candidates(self, candidates: Collection[Endpoint]) -> None:
        """What we may be reached at now; what was said of others is forgotten."""
        self._said = {at: self._said.get(at, {}) for at in list(dict.fromkeys(candidates))[:CLAIMS_MAX]}

    def candidates(self) -> list[Endpoint]:
        """In the order in which they were given."""
        return list(self._said)

    def hear(self, server_ip: str, at: Endpoint, reached: bool, now: float) -> None:
        """A server dialled `at`."""
        voices = self._said.get(at)
        if voices is None:
            return
        voices.pop(server_ip, None)
        voices[server_ip] = (reached, now)
        while len(voices) > SERVERS_MAX:
            del voices[next(iter(voices))]

    def voices(self, at: Endpoint, now: float) -> tuple[int, int]:
        """How many servers reached it, and how many did not."""
        fresh = [reached for reached, heard in self._said.get(at, {}).values() if now - heard <= CLAIM_S]
        return sum(fresh), len(fresh) - sum(fresh)

    def proven(self, now: float) -> list[Endpoint]:
        """Addresses at which strangers reach us."""
        return [at for at in self._said if self._holds(at, now)]

    def disproved(self, now: float) -> list[Endpoint]:
        """Addresses at which strangers do not reach us, although we may listen there."""
        return [at for at in self._said if self._fails(at, now)]

    def _fails(self, at: Endpoint, now: float) -> bool:
        reached, failed = self.voices(at, now)
        return failed >= PROOFS_MIN and failed > reached

    def _holds(self, at: Endpoint, now: float) -> bool:
        reached, failed = self.voices(at, now)
        return reached >= PROOFS_MIN and reached > failed


def candidates(
    listening: Sequence[Endpoint], observed: Observed, now: float, mapped_port: int | None = None
) -> list[Endpoint]:
    """Where we may be reached: our own public addresses, where others see our port, and the same port at that address.

    Args:
        listening: what we listen on, wildcards replaced by the addresses of our interfaces.
        mapped_port: the port that the router says it opened; its own word for its address is not taken.
    """
    found = [at for at in listening if scope(at.ip) == "public"]
    mapped = observed.endpoint(now)
    if mapped is not None and scope(mapped.ip) == "public":
        found.append(mapped)
    ip = observed.ip(now)
    if ip is not None and scope(ip) == "public":
        if mapped_port is not None:
            found.append(Endpoint(ip, mapped_port))
        found += [Endpoint(ip, at.port) for at in listening if scope(at.ip) == "private"]
    return list(dict.fromkeys(found))[:CLAIMS_MAX]
