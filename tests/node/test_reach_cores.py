"""What a node concludes about its own addresses, whom it dials back, and what its relay gives away."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.reach.addresses import Circuit, Endpoint, circuit, endpoint, scope
from node.reach.claims import CLAIM_S, CLAIMS_MAX, PROOFS_MIN, Claims, candidates
from node.reach.gate import ADDRESSES_MAX, AT_ONCE_MAX, DIALS_MAX, DIALS_PER_IP_MAX, PERIOD_S, Gate
from node.reach.messages import ReachAsk, ReachReply, check_ask, check_reply
from node.reach.observed import VOICE_S, Kind, Observed
from tests.repo.project import ROOT
from wire import codec
from wire.errors import Malformed
from wire.peer import PeerId, to_text

A, B, C, D = (PeerId(bytes([n]) * 32) for n in range(1, 5))
HERE = Endpoint("203.0.113.9", 4001)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("172.31.0.1", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("169.254.0.1", "none"),
        ("fe80::1", "none"),
        ("0.0.0.0", "none"),
        ("255.255.255.255", "none"),
        ("224.0.0.1", "none"),
        ("::ffff:127.0.0.1", "none"),
        ("203.0.113.1", "public"),
        ("2001:db8::1", "public"),
    ],
)
def test_scope(ip: str, expected: str) -> None:
    assert scope(ip) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/ip4/203.0.113.9/tcp/4001", HERE),
        (f"/ip4/203.0.113.9/tcp/4001/p2p/{to_text(A)}", HERE),
        ("/ip6/2001:DB8::1/tcp/1", Endpoint("2001:db8::1", 1)),
        ("/ip6/203.0.113.9/tcp/4001", None),
        ("/ip4/203.0.113.9/udp/4001", None),
        ("/ip4/203.0.113.9/tcp/0", None),
        ("/ip4/203.0.113.9/tcp/65536", None),
        ("/ip4/203.0.113.9/tcp/٤", None),
        ("/ip6/fe80::1%eth0/tcp/1", None),
        ("/dns4/example.org/tcp/1", None),
        ("ip4/203.0.113.9/tcp/4001", None),
        (f"/ip4/203.0.113.9/tcp/4001/p2p/{to_text(A)}/p2p-circuit", None),
    ],
)
def test_endpoint(text: str, expected: Endpoint | None) -> None:
    assert endpoint(text) == expected


@given(st.text(max_size=60) | st.from_regex(r"/ip[46]/[0-9a-f:.]{0,20}/tcp/[0-9]{0,6}(/p2p/\w*)?", fullmatch=True))
def test_an_endpoint_reads_its_own_text(text: str) -> None:
    at = endpoint(text)
    assert at is None or endpoint(at.text()) == at


def test_a_circuit_address_names_relay_and_peer() -> None:
    through = Circuit(B, "/ip4/203.0.113.9/tcp/4001")
    assert circuit(through.text(), A) == through
    assert circuit(f"{through.text()}/p2p/{to_text(A)}", A) == through
    assert circuit(f"{through.text()}/p2p/{to_text(C)}", A) is None
    assert circuit(through.text(), B) is None, "nobody is behind himself"
    assert circuit("/ip4/203.0.113.9/tcp/4001", A) is None
    assert circuit(f"{through.text()}/p2p/{to_text(C)}/p2p-circuit", A) is None, "one relay, not two"


def test_equal_voices_of_two_servers_are_a_cone() -> None:
    observed = Observed()
    observed.hear(A, "203.0.113.1", HERE, 0.0)
    assert observed.kind([], 0.0) is Kind.UNKNOWN
    assert observed.endpoint(0.0) is None
    observed.hear(B, "203.0.113.2", HERE, 0.0)
    assert observed.kind([], 0.0) is Kind.CONE
    assert observed.kind(["203.0.113.9"], 0.0) is Kind.NONE
    assert observed.kind([], VOICE_S + 1) is Kind.UNKNOWN


def test_another_port_for_each_server_is_symmetric() -> None:
    observed = Observed()
    observed.hear(A, "203.0.113.1", Endpoint("203.0.113.9", 50001), 0.0)
    observed.hear(B, "203.0.113.2", Endpoint("203.0.113.9", 50002), 0.0)
    assert observed.kind([], 0.0) is Kind.SYMMETRIC
    assert observed.ip(0.0) == "203.0.113.9"
    assert observed.endpoint(0.0) is None


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(5, 250), st.integers(1, 3)), max_size=20))
def test_one_machine_has_one_voice_however_many_identities_it_has(port: int, lies: list[tuple[int, int]]) -> None:
    observed = Observed()
    for number, _ in lies:
        observed.hear(PeerId(bytes([number]) * 32), "203.0.113.66", Endpoint("198.51.100.1", port), 0.0)
    assert observed.endpoint(0.0) is None
    for server, ip in ((A, "203.0.113.1"), (B, "203.0.113.2")):
        observed.hear(server, ip, HERE, 0.0)
    assert observed.endpoint(0.0) == HERE


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 3 * CLAIM_S)), max_size=30),
    st.floats(0, 4 * CLAIM_S),
)
def test_proven_is_what_two_fresh_machines_reached_and_fewer_missed(
    said: list[tuple[int, bool, float]], now: float
) -> None:
    claims = Claims()
    claims.set_candidates([HERE])
    newest: dict[int, tuple[bool, float]] = {}
    for server, reached, at in sorted(said, key=lambda one: one[2]):
        claims.hear(f"203.0.113.{server}", HERE, reached, at)
        newest[server] = (reached, at)
    votes = Counter(reached for reached, at in newest.values() if now - at <= CLAIM_S)
    assert (claims.proven(now) == [HERE]) is (votes[True] >= PROOFS_MIN and votes[True] > votes[False])
    assert (claims.disproved(now) == [HERE]) is (votes[False] >= PROOFS_MIN and votes[False] > votes[True])


def test_what_was_said_of_an_address_that_is_gone_is_forgotten() -> None:
    claims = Claims()
    claims.set_candidates([HERE])
    for ip in ("203.0.113.1", "203.0.113.2"):
        claims.hear(ip, HERE, True, 0.0)
    assert claims.proven(0.0) == [HERE]
    claims.set_candidates([Endpoint("203.0.113.10", 4001)])
    claims.set_candidates([HERE])
    assert claims.proven(0.0) == []


def test_candidates_are_public_and_few() -> None:
    observed = Observed()
    for server, ip in ((A, "203.0.113.1"), (B, "203.0.113.2")):
        observed.hear(server, ip, Endpoint("203.0.113.9", 50001), 0.0)
    listening = [Endpoint("127.0.0.1", 4001), Endpoint("10.0.0.2", 4001)]
    assert candidates(listening, observed, 0.0) == [Endpoint("203.0.113.9", 50001), HERE]
    many = [Endpoint(f"203.0.113.{n}", 1) for n in range(1, 50)]
    assert len(candidates(many, observed, 0.0)) == CLAIMS_MAX


class GateMachine(RuleBasedStateMachine):
    """Whatever is asked, in any order: nobody is dialled but askers, each of them seldom, and few at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.now = 0.0
        self.running = 0
        self.in_period: Counter[str] = Counter()

    @rule(asker=st.integers(1, 40), asked=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 70000)), max_size=9))
    def ask(self, asker: int, asked: list[tuple[int, int]]) -> None:
        seen = Endpoint(f"203.0.113.{asker}", 999)
        texts = [f"/ip4/203.0.113.{target}/tcp/{port}" for target, port in asked]
        admitted = self.gate.admit(texts, seen, self.now)
        assert len(admitted) == min(len(texts), ADDRESSES_MAX)
        for text, at in zip(texts, admitted, strict=False):
            if at is not None:
                assert at.text() == text
                assert at.ip == seen.ip
                self.running += 1
                self.in_period[at.ip] += 1

    @rule(seconds=st.floats(0.1, PERIOD_S))
    def wait(self, seconds: float) -> None:
        before = self.now // PERIOD_S
        self.now += seconds
        if self.now // PERIOD_S != before:
            self.in_period.clear()

    @rule()
    def finish(self) -> None:
        while self.running:
            self.gate.done()
            self.running -= 1

    @invariant()
    def bounded(self) -> None:
        assert self.running <= AT_ONCE_MAX
        assert self.in_period.total() <= DIALS_MAX
        assert all(count <= DIALS_PER_IP_MAX for count in self.in_period.values())


TestGate = GateMachine.TestCase

MESSAGES = json.loads((ROOT / "tests/vectors/reach-v1.json").read_text())["messages"]


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["name"])
def test_message_vector(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    found: Any = "refused"
    for kind in (ReachAsk, ReachReply):
        with suppress(Malformed):
            message = codec.decode(kind, raw)
            if isinstance(message, ReachAsk):
                check_ask(message)
                found = {"addresses": message.addresses}
            else:
                check_reply(message, ReachAsk([""] * len(message.dialled)))
                found = {"seen": message.seen, "dialled": message.dialled}
    assert found == vector["expect"]


def test_a_reply_answers_every_address() -> None:
    with pytest.raises(Malformed):
        check_reply(ReachReply(HERE.text(), [True]), ReachAsk([]))
