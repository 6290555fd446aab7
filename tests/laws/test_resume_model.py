"""Whatever callers do to resumable runs, in whatever order: events are exactly 1 … n, for each of them."""

import asyncio
import uuid
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, precondition, rule
from runwire.v1.events_pb2 import Event

from tests.support.clients import Caller, kind, status, taken
from tests.support.model import Machine, run_machine

StatusCode = grpc.StatusCode
USERS = ("alice", "bob")
LONG, SHORT = Duration(seconds=60), Duration(nanos=200_000_000)


class Model:
    """What a run should be."""

    def __init__(self, user: str, numbers: int | None) -> None:
        self.user = user
        self.run_id = str(uuid.uuid4())
        self.numbers = numbers
        """How many things it says before it ends; a run without waits until it is cancelled."""
        self.cancelled = False
        self.seen: list[Event] = []
        """What its callers have seen of it, without a gap."""
        self.call: Any = None
        """Whoever is attached."""

    @property
    def is_seen(self) -> bool:
        """Whether its terminal event was."""
        return bool(self.seen) and kind(self.seen[-1]) in {"agent_completed", "agent_cancelled"}

    @property
    def must_end(self) -> bool:
        """Whether it ends without anything being done to it."""
        return self.numbers is not None or self.cancelled

    def see(self, events: list[Event], after: int) -> None:
        """Take in what a caller got who read on from a position."""
        assert [event.seq for event in events] == list(range(after + 1, after + 1 + len(events)))
        known = self.seen[after : after + len(events)]
        assert events[: len(known)] == known, "an event is another than it was"
        self.seen += events[len(known) :]

    def check(self) -> None:
        """Compare a whole run with what it should be."""
        said = [event.agent_message.delta for event in self.seen if kind(event) == "agent_message"]
        if self.numbers is None:
            assert said in ([], ["waiting"])
        else:
            assert said == [f"{self.run_id} {number}" for number in range(len(said))]
        if kind(self.seen[-1]) == "agent_cancelled":
            assert self.cancelled
        else:
            assert len(self.seen) == (self.numbers or 0) + 2


class Callers(Machine):
    """Two users, and what they do to their runs."""

    runs: Bundle[Model] = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.callers: dict[str, Any] = {user: Caller(self.channels[0], user) for user in USERS}
        self.made: list[Model] = []
        self.passed = False

    @rule(target=runs, user=st.sampled_from(USERS), numbers=st.sampled_from([None, 0, 1, 30, 3000]))
    def run(self, user: str, numbers: int | None) -> Model:
        model = Model(user, numbers)
        model.call = self.open(model)
        self.do(self.read(model, model.call, 0, upto=1))
        self.made.append(model)
        return model

    def open(self, model: Model, window: Duration = LONG) -> Any:
        agent, parameters = ("waiter", {}) if model.numbers is None else ("counter", {"times": model.numbers})
        return self.callers[model.user].call(
            agent, run_id=model.run_id, resume_window=window, parameters=parameters, timeout=30
        )

    async def read(self, model: Model, call: Any, after: int, upto: int | None) -> None:
        model.see(await taken(call, upto), after)

    def resume(self, model: Model, after: int) -> Any:
        return self.callers[model.user].resume(model.run_id, after, timeout=30)

    @rule(model=runs)
    def break_off(self, model: Model) -> None:
        if model.call:
            model.call.cancel()
            model.call = None

    @rule(model=runs, back=st.integers(0, 5), more=st.integers(1, 500))
    def resume_and_read(self, model: Model, back: int, more: int) -> None:
        """Read on from where one was, or a little before, and take over from whoever reads."""
        after = max(len(model.seen) - back, 0)
        old, model.call = model.call, self.resume(model, after)
        exists = 2 if model.numbers is None else model.numbers + 2
        upto = after + more if model.must_end else min(after + more, exists)
        if after < upto:
            self.do(self.read(model, model.call, after, upto))
        if old:
            assert self.do(status(old)) in {StatusCode.ABORTED, StatusCode.OK}

    @rule(model=runs)
    def resume_twice_at_once(self, model: Model) -> None:
        """One of the two gets all of it; the other gets a part, and is told that it goes on elsewhere."""
        if not model.must_end:
            return

        async def both() -> list[Any]:
            calls = [self.resume(model, 0) for _ in range(2)]
            return await asyncio.gather(*(taken(call) for call in calls), return_exceptions=True)

        whole = [result for result in self.do(both()) if isinstance(result, list)]
        assert whole, "neither got it"
        for events in whole:
            model.see(events, 0)
        assert model.is_seen
        model.call = None

    @rule(model=runs)
    def cancel(self, model: Model) -> None:
        self.do(self.callers[model.user].cancel(model.run_id))
        model.cancelled = True

    @rule(model=runs)
    def meddle(self, model: Model) -> None:
        """What belongs to another user does not exist, and what isn't there yet is not there."""
        other = next(user for user in USERS if user != model.user)
        assert self.do(status(self.callers[other].resume(model.run_id))) is StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError):
            self.do(self.callers[other].cancel(model.run_id))
        assert self.do(status(self.resume(model, 100_000))) is StatusCode.OUT_OF_RANGE
        assert self.do(status(self.open(model))) is StatusCode.ALREADY_EXISTS

    @rule(model=consumes(runs))
    def read_to_the_end(self, model: Model) -> None:
        self.finish(model)

    @precondition(lambda self: not self.passed)  # it takes its time
    @rule(user=st.sampled_from(USERS), come_back=st.booleans())
    def let_a_window_pass(self, user: str, *, come_back: bool) -> None:
        """A run whose caller is gone for too long is cancelled; it can be read, and then it is forgotten."""
        self.passed = True
        model = Model(user, None)
        call = self.open(model, SHORT)
        self.do(self.read(model, call, 0, upto=2))
        call.cancel()
        model.cancelled = True
        self.service.wait_for(lambda record: record.get("run_id") == model.run_id and record["event"] == "run ended")
        if come_back:
            self.finish(model)
            assert kind(model.seen[-1]) == "agent_cancelled"
        self.do(self.forgotten(model))
        assert self.do(status(self.resume(model, 0))) is StatusCode.NOT_FOUND

    async def forgotten(self, model: Model) -> None:
        """Wait until a run is forgotten. Cancelling one that is over changes nothing, and tells whether it is there."""
        try:
            while True:
                await self.callers[model.user].cancel(model.run_id)
        except grpc.aio.AioRpcError as error:
            assert error.code() is StatusCode.NOT_FOUND

    def finish(self, model: Model) -> None:
        if not model.must_end:
            self.cancel(model)
        after = len(model.seen)
        self.do(self.read(model, self.resume(model, after), after, None))
        assert model.is_seen
        model.check()

    def teardown(self) -> None:
        for model in self.made:
            self.finish(model)


@pytest.mark.timeout(240)
def test_callers() -> None:
    run_machine(Callers)
