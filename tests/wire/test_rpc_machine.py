"""Two cores back to back under any interleaving: no call is ever lost silently, and nothing is left of any."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wire.errors import Busy, Expired, QuorateError, Refused
from wire.peer import PeerId
from wire.rpc import caller as calls
from wire.rpc import server as serving
from wire.rpc.frames import Refusal
from wire.rpc.server import ANSWERS_BYTES_MAX
from wire.rpc.share import POOL_BYTES

PEER = PeerId(b"p" * 32)
METHODS = {"one": True, "many": False}
SIZES = st.sampled_from([0, 1, 90, 5_000, 65_536, 65_537, 200_000, 262_144, 4_000_000])
REQUESTS_MAX = 6


def message(number: int, turn: int, size: int) -> bytes:
    """A message that could only be this one."""
    return (f"{number}/{turn}/".encode() + bytes(size))[: max(size, 12)]


class Call:
    """What the test knows of one call."""

    def __init__(self, *, unary: bool) -> None:
        self.unary = unary
        self.asked: list[bytes] = []
        self.said_all = unary
        self.answers: list[bytes] = []
        self.answered_all = False
        self.heard_there: deque[bytes] = deque()
        self.heard_here: deque[bytes] = deque()
        self.taken_there = self.taken_here = 0
        self.running = False
        self.stopped = False
        self.outcome: QuorateError | str | None = None


class TwoCores(RuleBasedStateMachine):
    """One channel between a caller and a server, until it is lost; then the next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.done: list[Call] = []
        self.connect()

    def connect(self) -> None:
        self.caller = calls.Caller(PEER, calls_max=REQUESTS_MAX + 2)
        self.server = serving.Server(METHODS, requests_max=REQUESTS_MAX)
        self.there: deque[bytes] = deque()
        self.back: deque[bytes] = deque()
        self.calls: dict[int, Call] = {}

    def open_calls(self, *, streams: bool = False) -> list[int]:
        return [n for n, call in self.calls.items() if call.outcome is None and not (streams and call.unary)]

    def running(self) -> list[int]:
        return [n for n, call in self.calls.items() if call.running]

    # ---- the application that calls

    @rule(size=SIZES, timeout_s=st.sampled_from([0.5, 2.0, 60.0]), zipping=st.booleans(), name=st.sampled_from("oom"))
    def start(self, size: int, timeout_s: float, zipping: bool, name: str) -> None:
        unary = name == "o"
        try:
            number = self.caller.start(b"one" if unary else b"many", timeout_s, self.now)
        except Busy:
            assert len(self.caller) == REQUESTS_MAX + 2
            return
        call = self.calls[number] = Call(unary=unary)
        if unary:
            call.asked.append(message(number, 0, size))
            self.caller.post(number, call.asked, last=True, zipping=zipping)

    @rule()
    def start_what_is_not_served(self) -> None:
        if len(self.caller) < REQUESTS_MAX + 2:
            number = self.caller.start(b"none", 60.0, self.now)
            self.calls[number] = Call(unary=True)
            self.caller.post(number, [b"hello"], last=True)

    @precondition(lambda self: self.open_calls(streams=True))
    @rule(data=st.data(), size=SIZES, last=st.booleans(), halves=st.booleans())
    def say(self, data: st.DataObject, size: int, last: bool, halves: bool) -> None:
        number = data.draw(st.sampled_from(self.open_calls(streams=True)))
        call = self.calls[number]
        if not call.said_all:
            whole = message(number, len(call.asked), size)
            call.asked.append(whole)
            call.said_all = last
            self.caller.post(number, [whole[:7], whole[7:]] if halves else [whole], last=last)

    @precondition(lambda self: self.open_calls(streams=True))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.open_calls(streams=True)))
        if not self.calls[number].said_all:
            self.calls[number].said_all = True
            self.caller.finish(number)

    @precondition(lambda self: self.open_calls())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.open_calls()))
        self.calls[number].outcome = "cancelled"
        self.caller.cancel(number)

    @rule()
    def take_here(self) -> None:
        for number, call in self.calls.items():
            if call.heard_here:
                assert call.heard_here.popleft() == call.answers[call.taken_here]
                call.taken_here += 1
                self.caller.taken(number)

    # ---- the application that answers

    @rule()
    def take_there(self) -> None:
        for number, call in self.calls.items():
            if call.heard_there:
                assert call.heard_there.popleft() == call.asked[call.taken_there]
                call.taken_there += 1
                self.server.taken(number)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), size=SIZES, last=st.booleans(), zipping=st.booleans())
    def answer(self, data: st.DataObject, size: int, last: bool, zipping: bool) -> None:
        number = data.draw(st.sampled_from(self.running()))
        call = self.calls[number]
        if call.answered_all:
            return
        whole = message(number, len(call.answers), size)
        last = last or call.unary
        if self.server.post(number, [whole], last=last, zipping=zipping):
            call.answers.append(whole)
            call.answered_all = last
        if last or not self.server.answers(number):
            self.end_handler(number)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), code=st.sampled_from(["refused", "busy", "new word"]))
    def refuse(self, data: st.DataObject, code: str) -> None:
        number = data.draw(st.sampled_from(self.running()))
        self.server.refuse(number, Refusal(code, "no", 5))
        self.end_handler(number)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def finish_answers(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.running()))
        if not self.calls[number].unary:
            self.calls[number].answered_all = True
            self.server.finish(number)
            self.end_handler(number)

    @rule()
    def stop_handlers(self) -> None:
        for number, call in self.calls.items():
            if call.running and call.stopped:
                self.end_handler(number)

    def end_handler(self, number: int) -> None:
        self.calls[number].running = False
        self.server.done(number)

    # ---- the channel

    @rule(batches=st.integers(1, 4))
    def deliver_there(self, batches: int) -> None:
        for _ in range(batches):
            batch = self.caller.next_batch(self.now)
            if batch is not None:
                self.there.append(batch)
        if self.there:
            self.on_server(self.server.receive(self.there.popleft(), self.now))

    @rule(batches=st.integers(1, 4))
    def deliver_back(self, batches: int) -> None:
        for _ in range(batches):
            batch, events = self.server.next_batch()
            self.on_server(events)
            if batch is not None:
                self.back.append(batch)
        if self.back:
            self.on_caller(self.caller.receive(self.back.popleft()))

    @rule()
    def lose_the_channel(self) -> None:
        for number in self.caller.lost():
            assert self.calls[number].outcome is None
            self.calls[number].outcome = "lost"
        self.server.lost()
        for number in self.running():
            self.end_handler(number)
        self.check_over()
        self.connect()

    @rule(seconds=st.sampled_from([0.1, 1.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.on_caller(self.caller.expire(self.now))
        self.on_server(self.server.expire(self.now))
        assert min(self.caller.next_deadline_s, self.server.next_deadline_s) > self.now

    def on_caller(self, events: Sequence[calls.Event]) -> None:
        for event in events:
            call = self.calls[event.id]
            assert call.outcome is None, "a call ends once"
            if isinstance(event, calls.Arrived):
                call.heard_here.append(bytes(event.message))
                call.outcome = "answered" if event.last else None
            else:
                call.outcome = event.error if event.error is not None else "closed"
                assert event.error is None or isinstance(event.error, Busy | Expired | Refused), "nobody broke a rule"

    def on_server(self, events: Sequence[serving.Event]) -> None:
        for event in events:
            assert not isinstance(event, serving.Broke), f"honest cores break no rule: {event}"
            call = self.calls[event.id]
            if isinstance(event, serving.Asked):
                assert (event.name, bytes(event.message)) == ("one", call.asked[0])
                call.running = True
            elif isinstance(event, serving.Opened):
                call.running = True
            elif isinstance(event, serving.Arrived):
                call.heard_there.append(bytes(event.message))
            elif isinstance(event, serving.Stopped):
                assert call.running
                call.stopped = True

    # ---- what always holds

    @invariant()
    def nobody_holds_more_than_its_share(self) -> None:
        for core in (self.caller, self.server):
            assert max(core.held[1:]) <= sum(POOL_BYTES)
        assert self.server.held[0] <= ANSWERS_BYTES_MAX
        assert len(self.server) <= REQUESTS_MAX

    def check_over(self) -> None:
        assert all(call.outcome is not None for call in self.calls.values())
        assert (len(self.caller), len(self.server)) == (0, 0)
        assert self.caller.held == self.server.held == (0, 0, 0)

    def teardown(self) -> None:
        """Let everything come to its end: every call has an outcome, an answer is the one that was given."""
        for _ in range(400):
            if not self.open_calls() and not len(self.server) and not any(self.server.held):
                break
            self.take_here()
            self.take_there()
            for number in self.running():
                if not self.calls[number].stopped:
                    self.server.refuse(number, Refusal("refused", "the end"))
                self.end_handler(number)
            self.deliver_there(1)
            self.deliver_back(1)
        if self.open_calls():
            self.pass_time(100.0)
            for _ in range(400):
                self.stop_handlers()
                self.deliver_there(1)
                self.deliver_back(1)
        for call in self.calls.values():
            if call.outcome == "answered":
                assert list(call.heard_here) == call.answers[call.taken_here :]
        self.check_over()


TestTwoCores = TwoCores.TestCase
TestTwoCores.settings = settings(max_examples=60, stateful_step_count=40)
