"""Whatever is done to runs that ask, in whatever order: each question ends once, as the first right answer says."""

import uuid
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, rule
from runwire.v1.engine_pb2 import AnswerRequest
from runwire.v1.events_pb2 import INPUT_OUTCOME_ACCEPTED, INPUT_OUTCOME_DECLINED, INPUT_OUTCOME_EXPIRED, Event

from tests.support.clients import Caller, kind, taken, terminal
from tests.support.model import Machine, run_machine

OK, NOT_FOUND, LATE, ABORTED = 0, 5, 9, 10
SAID = st.sampled_from([(INPUT_OUTCOME_ACCEPTED, 1), (INPUT_OUTCOME_ACCEPTED, 2), (INPUT_OUTCOME_DECLINED, None)])

Answer = tuple[int, int | None]


class Model:
    """What a run should be: which questions it asks, and how each was answered first."""

    def __init__(self, many: int, *, expires: bool) -> None:
        self.run_id = str(uuid.uuid4())
        self.many = many
        self.expires = expires
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.is_cancelled = self.may_be_cancelled = False
        self.seen: list[Event] = []
        self.call: Any = None

    @property
    def is_over(self) -> bool:
        return self.is_cancelled or self.expires or len(self.answers) == self.many

    def expected(self, request_id: str, said: Answer) -> int:
        """Tell what an answer gets."""
        if before := self.answers.get(request_id):
            return OK if before == said else ABORTED
        return LATE if self.is_over else OK

    def check(self) -> None:
        """Compare a whole run with what it should be."""
        end = terminal(self.seen)
        settled = [event.input_answered for event in self.seen if kind(event) == "input_answered"]
        ids = [each.request_id for each in settled]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= set(self.asked)
        for each in settled:
            content = MessageToDict(each.content).get("said")
            outcome = (each.outcome, content)
            assert outcome == self.answers.get(each.request_id, (INPUT_OUTCOME_EXPIRED, None))
        if kind(end) == "agent_cancelled":
            assert self.may_be_cancelled
        else:
            assert set(ids) == set(self.asked)
            assert len(ids) == self.many


class Callers(Machine):
    """What a user does to runs that ask."""

    runs: Bundle[Model] = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.alice, self.bob = Caller(self.channels[0], "alice"), Caller(self.channels[0], "bob")
        self.made: list[Model] = []

    @rule(target=runs, many=st.integers(1, 4), expires=st.integers(0, 5))
    def begin(self, many: int, expires: int) -> Model:
        model = Model(many, expires=expires == 0)
        parameters = {"questions": many} | ({"timeout": 0.1} if model.expires else {})
        model.call = self.alice.call(
            "asker", run_id=model.run_id, parameters=parameters, resume_window=Duration(seconds=60)
        )
        self.made.append(model)
        self.do(self.read(model, 1 + many))
        model.asked = [event.input_requested.request_id for event in model.seen if kind(event) == "input_requested"]
        return model

    async def read(self, model: Model, upto: int | None) -> None:
        model.seen += await taken(model.call, upto)

    @rule(model=runs, number=st.integers(0, 3), said=SAID)
    def answer(self, model: Model, number: int, said: Answer) -> None:
        request_id = model.asked[number % model.many]
        if not model.expires:  # or it may have expired, or not yet
            self.answer_one(model, request_id, said)

    def answer_one(self, model: Model, request_id: str, said: Answer) -> None:
        expected = model.expected(request_id, said)
        assert self.do(self.answered(self.alice, model, request_id, said)) == expected
        if expected == OK:
            model.answers[request_id] = said

    @rule(model=runs, number=st.integers(0, 3), said=SAID)
    def meddle(self, model: Model, number: int, said: Answer) -> None:
        request_id = model.asked[number % model.many]
        assert self.do(self.answered(self.bob, model, request_id, said)) == NOT_FOUND
        assert self.do(self.answered(self.alice, model, "nothing", said)) == NOT_FOUND

    async def answered(self, who: Caller, model: Model, request_id: str, said: Answer) -> int:
        request = AnswerRequest(run_id=model.run_id, request_id=request_id, outcome=said[0])  # type: ignore[arg-type]
        if said[1] is not None:
            request.content["said"] = said[1]
        try:
            await who.stub.Answer(request, metadata=who.metadata)
        except grpc.aio.AioRpcError as error:
            return int(error.code().value[0])
        return OK

    @rule(model=runs)
    def leave(self, model: Model) -> None:
        model.call.cancel()

    @rule(model=runs, back=st.integers(0, 3))
    def resume(self, model: Model, back: int) -> None:
        del model.seen[max(len(model.seen) - back, 0) :]
        model.call.cancel()
        model.call = self.alice.resume(model.run_id, len(model.seen))
        self.do(self.read(model, max(len(model.seen), 1 + model.many)) if len(model.seen) <= model.many else _nothing())

    @rule(model=runs)
    def cancel(self, model: Model) -> None:
        self.do(self.alice.cancel(model.run_id))
        model.may_be_cancelled = True  # if it was not just about to end
        model.is_cancelled |= not model.is_over

    @rule(model=consumes(runs))
    def read_to_the_end(self, model: Model) -> None:
        self.finish(model)

    def finish(self, model: Model) -> None:
        for request_id in model.asked:
            if not model.is_over and request_id not in model.answers:
                self.answer_one(model, request_id, (INPUT_OUTCOME_ACCEPTED, 1))
        model.call.cancel()
        model.call = self.alice.resume(model.run_id, len(model.seen))
        self.do(self.read(model, None))
        model.check()

    def teardown(self) -> None:
        for model in self.made:
            self.finish(model)


async def _nothing() -> None:
    pass


@pytest.mark.timeout(240)
def test_askers() -> None:
    run_machine(Callers, agents="tests.agents.asking")
