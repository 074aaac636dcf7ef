"""The sans-IO cores of WebRTC: messages on data channels, signalling, descriptions, candidates, what processes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.reach.addresses import Scope
from node.webrtc import description, local, messages, signalling
from node.webrtc.candidates import Candidate, parse, within
from node.webrtc.messages import DATA_BYTES_MAX, MESSAGE_BYTES_MAX, Flag, Message, Reader
from node.webrtc.signalling import Kind, Signal
from wire.errors import Malformed

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "webrtc-v1.json").read_text())
FINGERPRINT = ":".join(["AB"] * 32)


def _description(**changes: Any) -> description.Description:
    return description.Description(
        **{"ufrag": "abcd", "password": "p" * 22, "fingerprint": FINGERPRINT, "setup": "actpass", **changes}
    )


# ---- messages


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=lambda vector: vector["name"])
def test_a_message_of_the_vectors(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    if "error" in vector:
        with pytest.raises(Malformed, match=vector["error"]):
            list(Reader().feed(raw))
        return
    flags = [None if said["flag"] is None else Flag[said["flag"]] for said in vector["messages"]]
    expected = [
        Message(bytes.fromhex(said["data"]), flag) for said, flag in zip(vector["messages"], flags, strict=True)
    ]
    assert list(Reader().feed(raw)) == expected
    if vector.get("canonical", True):
        assert b"".join(message.encode() for message in expected) == raw


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.sampled_from([None, *Flag])), max_size=8),
    st.integers(min_value=1, max_value=40),
)
def test_messages_survive_however_the_channel_cuts_them(said: list[tuple[bytes, Flag | None]], size: int) -> None:
    sent = [Message(data, flag) for data, flag in said]
    raw = b"".join(message.encode() for message in sent)
    reader = Reader()
    got = [message for at in range(0, len(raw), size) for message in reader.feed(raw[at : at + size])]
    assert got == sent


def test_the_longest_message_is_as_long_as_others_allow() -> None:
    raw = Message(bytes(DATA_BYTES_MAX), Flag.FIN).encode()
    assert len(raw) <= MESSAGE_BYTES_MAX
    assert list(Reader().feed(raw)) == [Message(bytes(DATA_BYTES_MAX), Flag.FIN)]


def test_a_longer_message_is_refused_by_its_length_alone() -> None:
    with pytest.raises(Malformed, match="at most"):
        list(Reader().feed(b"\xff\xff\xff\x7f"))


def test_an_unknown_flag_says_nothing() -> None:
    assert messages.decode(b"\x08\x09") == Message()


# ---- descriptions


@pytest.mark.parametrize("vector", VECTORS["descriptions"], ids=lambda vector: vector["name"])
def test_a_description_of_the_vectors(vector: dict[str, Any]) -> None:
    text = "".join(f"{line}\r\n" for line in vector["lines"])
    if "error" in vector:
        with pytest.raises(Malformed, match=vector["error"]):
            description.read(text)
        return
    found = description.read(text)
    assert [candidate.text() for candidate in found.candidates] == vector["candidates"]
    assert (found.ufrag, found.setup, found.mid) == (vector["ufrag"], vector["setup"], vector["mid"])
    assert description.read(found.text()) == found


def test_what_is_written_is_read() -> None:
    candidates = (Candidate("1", 7, "203.0.113.7", 4001, "host"), Candidate("2", 3, "2001:db8::1", 9, "srflx"))
    said = _description(candidates=candidates)
    assert description.read(said.text()) == said


@given(st.text(max_size=400))
def test_nonsense_is_refused_as_malformed(text: str) -> None:
    for raw in (text, f"v=0\r\n{text}", f"{_description().text()}{text}"):
        try:
            description.read(raw)
        except Malformed:
            continue


@pytest.mark.parametrize("what", ["ice-ufrag", "ice-pwd", "fingerprint", "setup", "sctp-port", "mid"])
def test_nothing_may_be_missing(what: str) -> None:
    lines = [line for line in _description().text().splitlines() if not line.startswith(f"a={what}:")]
    with pytest.raises(Malformed, match=what if what != "fingerprint" else "SHA-256"):
        description.read("\r\n".join(lines))


def test_two_fingerprints_are_one_too_many() -> None:
    other = ":".join(["CD"] * 32)
    with pytest.raises(Malformed, match="one SHA-256"):
        description.read(_description().text() + f"a=fingerprint:sha-256 {other}\r\n")


def test_candidates_are_bounded() -> None:
    many = "".join(f"a=candidate:1 1 udp 1 203.0.113.7 {port} typ host\r\n" for port in range(1, 100))
    assert len(description.read(_description().text() + many).candidates) == 32


# ---- candidates


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("candidate:1 1 udp 2130706431 192.0.2.7 4001 typ host", "192.0.2.7"),
        ("a=candidate:1 1 UDP 1 2001:db8::7 1 typ srflx raddr 10.0.0.1 rport 5 generation 0", "2001:db8::7"),
        ("candidate:1 1 tcp 1 192.0.2.7 9 typ host tcptype active", None),
        ("candidate:1 1 udp 1 0f0bd8b2-6a0b-4d35-93ad-8a6ec4a0b6d6.local 9 typ host", None),
        ("candidate:1 1 udp 1 router.example 9 typ host", None),
        ("candidate:1 2 udp 1 192.0.2.7 9 typ host", None),
        ("candidate:1 1 udp 1 192.0.2.7 0 typ host", None),
        ("candidate:1 1 udp 1 fe80::1%eth0 9 typ host", None),
        ("candidate:1 1 udp 99999999999 192.0.2.7 9 typ host", None),
        ("candidate:" + "1" * 600, None),
        ("", None),
    ],
)
def test_only_addresses_over_udp_are_candidates(text: str, ip: str | None) -> None:
    found = parse(text)
    assert (found.ip if found is not None else None) == ip


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("public", {"198.51.100.1"}),
        ("private", {"198.51.100.1", "10.0.0.1", "100.64.0.1"}),
        ("loopback", {"198.51.100.1", "10.0.0.1", "100.64.0.1", "127.0.0.1"}),
        ("none", set()),
    ],
)
def test_no_candidate_reaches_further_in_than_the_path_of_the_signalling(path: Scope, allowed: set[str]) -> None:
    known = ("198.51.100.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0")
    told = {ip for ip in known if within(Candidate("1", 1, ip, 1, "host"), path)}
    assert told == allowed


def test_the_address_behind_a_translated_one_is_not_told() -> None:
    found = parse("candidate:1 1 udp 1 198.51.100.1 5 typ srflx raddr 10.0.0.1 rport 6")
    assert found is not None
    assert found.text() == "candidate:1 1 udp 1 198.51.100.1 5 typ srflx raddr 0.0.0.0 rport 9"


# ---- signalling


@pytest.mark.parametrize("vector", VECTORS["signals"], ids=lambda vector: vector["name"])
def test_a_signal_of_the_vectors(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    if "error" in vector:
        with pytest.raises(Malformed):
            signalling.decode(raw)
        return
    signal = signalling.decode(raw)
    assert (signal.kind.name, signal.text) == (vector["kind"], vector["text"])
    assert signal.encode()[1:] == raw


def test_candidates_come_as_json() -> None:
    said = json.dumps({"candidate": "candidate:1 1 udp 1 192.0.2.7 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0})
    found = signalling.candidate(said)
    assert found is not None
    assert found.ip == "192.0.2.7"
    assert [signalling.candidate(end) for end in ("", "null", '""')] == [None] * 3


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"candidate": 1}', "[" * 1000, "x" * 5000])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        signalling.candidate(text)


def test_a_description_fits_into_a_signal() -> None:
    text = "x" * description.DESCRIPTION_CHARS_MAX
    assert len(Signal(Kind.OFFER, text).encode()) <= signalling.SIGNAL_BYTES_MAX + 3


# ---- what the two processes say


@given(st.lists(st.tuples(st.sampled_from(local.Say), st.text(max_size=50)), max_size=6), st.integers(1, 20))
def test_what_one_process_says_the_other_hears(said: list[tuple[local.Say, str]], size: int) -> None:
    raw = b"".join(local.Said(kind, text).encode() for kind, text in said) + b"stream"
    reader, heard = local.Reader(), []
    for at in range(0, len(raw), size):
        reader.feed(raw[at : at + size])
        while len(heard) < len(said) and (found := reader.next()) is not None:
            heard.append((found.kind, found.text))
    assert heard == said
    assert reader.rest() == b"stream"


@pytest.mark.parametrize("raw", [bytes(5), b"\x00\x01\x00\x00o", b"\x00\x00\x00\x01?", b"\x00\x00\x00\x02o\xff"])
def test_other_bytes_are_refused(raw: bytes) -> None:
    reader = local.Reader()
    reader.feed(raw)
    with pytest.raises(Malformed):
        reader.next()
