"""The address book: what is tried first, what rests, what strangers cannot push out, and whose addresses are taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.address_book import (
    FAILURES_FREE,
    PEERS_KNOWN_MAX,
    RETRY_MS,
    RETRY_MS_MAX,
    RETRY_RELAYED_MS_MAX,
    AddressBook,
    Known,
)
from wire.limits import ADDRESSES_PER_PEER_MAX
from wire.peer import PeerId, to_text

NOW = 1_700_000_000_000


def peer(n: int) -> PeerId:
    """Some peer."""
    return PeerId(n.to_bytes(32, "big"))


def at(n: int) -> str:
    """Some public address."""
    return f"/ip4/203.0.113.{n}/tcp/4001"


def fail(book: AddressBook, address: str, now: int = NOW) -> None:
    """An address of the first peer fails until it rests."""
    for _ in range(FAILURES_FREE + 1):
        book.failed(peer(1), address, now)


def test_what_worked_last_is_tried_first_and_what_failed_last() -> None:
    book = AddressBook()
    book.learn(peer(1), [at(1), at(2), at(3), at(4)], NOW)
    book.worked(peer(1), at(3), NOW)
    book.worked(peer(1), at(2), NOW + 1)
    book.failed(peer(1), at(1), NOW)
    assert book.addresses(peer(1), NOW + RETRY_MS) == [at(2), at(3), at(4), at(1)]


def test_an_address_that_failed_rests_longer_each_time() -> None:
    book = AddressBook()
    book.learn(peer(1), [at(1)], NOW)
    now, waited = NOW, list[int]()
    for _ in range(FAILURES_FREE):
        book.failed(peer(1), at(1), NOW)
        assert book.addresses(peer(1), NOW) == [at(1)]
    for _ in range(12):
        book.failed(peer(1), at(1), now)
        rest = book.rest_ms(peer(1), now)
        waited.append(rest)
        assert book.addresses(peer(1), now + rest - 1) == []
        assert book.addresses(peer(1), now + rest) == [at(1)]
        now += rest
    assert waited == [min(RETRY_MS * 2**n, RETRY_MS_MAX) for n in range(12)]


def test_a_way_through_a_relay_rests_less() -> None:
    book = AddressBook()
    through = f"{at(9)}/p2p/{to_text(peer(9))}/p2p-circuit"
    book.learn(peer(1), [through], NOW)
    for _ in range(12):
        book.failed(peer(1), through, NOW)
    assert book.rest_ms(peer(1), NOW) == RETRY_RELAYED_MS_MAX


def test_a_peer_that_is_heard_from_is_dialled_at_once() -> None:
    book = AddressBook()
    book.learn(peer(1), [at(1)], NOW)
    fail(book, at(1))
    assert book.addresses(peer(1), NOW) == []
    book.alive(peer(1))
    assert book.addresses(peer(1), NOW) == [at(1)]


def test_telling_of_an_address_again_does_not_wake_it() -> None:
    book = AddressBook()
    book.learn(peer(1), [at(1)], NOW)
    fail(book, at(1))
    book.learn(peer(1), [at(1)], NOW)
    assert book.addresses(peer(1), NOW) == []


def test_a_clock_that_was_set_back_makes_nothing_rest() -> None:
    book = AddressBook()
    book.learn(peer(1), [at(1)], NOW)
    fail(book, at(1))
    assert book.addresses(peer(1), NOW - 3_600_000) == [at(1)]


def test_news_do_not_push_out_the_address_that_worked() -> None:
    book = AddressBook()
    book.worked(peer(1), at(1), NOW)
    for n in range(2, 60):
        book.learn(peer(1), [at(n)], NOW)
    kept = book.addresses(peer(1), NOW)
    assert kept[0] == at(1)
    assert len(kept) == ADDRESSES_PER_PEER_MAX


def test_names_out_of_the_air_do_not_push_out_peers_that_were_reached() -> None:
    book = AddressBook()
    book.worked(peer(0), at(1), NOW)
    for n in range(1, 2 * PEERS_KNOWN_MAX):
        book.learn(peer(n), [at(2)], NOW)
    assert book.figures() == {"known": PEERS_KNOWN_MAX, "reached": 1}
    assert book.addresses(peer(0), NOW) == [at(1)]


def test_of_too_many_peers_that_were_reached_the_oldest_is_forgotten() -> None:
    book = AddressBook()
    for n in range(PEERS_KNOWN_MAX + 1):
        book.worked(peer(n), at(1), NOW + n)
    assert len(book) == PEERS_KNOWN_MAX
    assert book.known(peer(0)) == []
    assert book.reached(2) == [peer(PEERS_KNOWN_MAX), peer(PEERS_KNOWN_MAX - 1)]


def test_addresses_of_networks_that_we_are_not_in_are_not_taken_from_others() -> None:
    book = AddressBook()
    book.reach = frozenset(("public",))
    book.learn(peer(1), ["/ip4/127.0.0.1/tcp/22", "/ip4/192.168.1.1/tcp/80", "/ip6/::1/tcp/22", at(1)], NOW)
    assert book.addresses(peer(1), NOW) == [at(1)]


def test_what_was_stored_is_told_once_and_again_if_it_could_not_be_stored() -> None:
    book = AddressBook()
    book.learn(peer(1), [at(1)], NOW)
    changes = book.changes()
    assert changes == {peer(1): [Known(at(1), NOW)]}
    assert book.changes() == {}
    book.touch(changes)
    assert book.changes() == changes


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 12), st.integers(0, 100_000)), max_size=60)
)
def test_a_second_book_that_follows_the_changes_is_the_same(steps: list[tuple[int, int, int, int]]) -> None:
    book, told = AddressBook(), dict[PeerId, list[Known]]()
    for what, who, where, now in steps:
        [
            lambda who, where, now: book.learn(who, [at(where), at(where + 1)], now),
            book.worked,
            book.failed,
            lambda who, where, now: book.alive(who),
        ][what](peer(who), at(where) if what in (1, 2) else where, now)  # type: ignore[operator] # one call for all four
        told.update(book.changes())
    assert {who: known for who, known in told.items() if known} == {
        peer(n): book.known(peer(n)) for n in range(4) if book.known(peer(n))
    }
    assert all(len(known) <= ADDRESSES_PER_PEER_MAX for known in told.values())
