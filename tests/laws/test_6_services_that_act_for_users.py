"""Law 6: a service acts for a user only where its own credential says so, and is named beside them."""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import grpc
import jwt
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from runwire.v1 import engine_pb2 as pb
from runwire.v1.engine_pb2_grpc import EngineServiceStub
from runwire.v1.events_pb2 import INPUT_OUTCOME_ACCEPTED, Event

from runwire.client import Client, PlainClient, RefusedError
from tests.support.clients import frames, kind, socket, terminal
from tests.support.services import Record, Service
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.valkey import valkey

SECRET = "a secret that is long enough for HS256 to be worth something"
SETTINGS = {
    "JWT_SECRET": SECRET,
    "JWT_CLAIMS": "tenant,roles",
    "JWT_AGENTS_CLAIM": "agents",
    "JWT_ACT_SCOPE": "runwire:act",
    "JWT_APPROVE_SCOPE": "runwire:approve",
    "MAX_RUNS_PER_USER": "3",
}
AGENTS = "tests.agents.claimed,tests.agents.probes,tests.agents.asking"
WINDOW = Duration(seconds=60)


def token(subject: str, **claims: Any) -> str:
    return jwt.encode({"sub": subject, "exp": time.time() + 600, "agents": "*"} | claims, SECRET, "HS256")


ACTS = {"scope": "openid runwire:act"}


class User:
    """Somebody who calls: a user, or a service that acts for one."""

    def __init__(self, channel: grpc.aio.Channel, subject: str, *acts_for: str, **claims: Any) -> None:
        self.stub: Any = EngineServiceStub(channel)
        named = [("runwire-user", user) for user in acts_for]
        self.metadata = (("authorization", f"Bearer {token(subject, **claims)}"), *named)

    def call(self, agent: str, input: str = "", **fields: Any) -> Any:
        return self.stub.Run(pb.RunRequest(agent=agent, input=input, **fields), metadata=self.metadata)

    async def events(self, agent: str, input: str = "", **fields: Any) -> list[Event]:
        return [event async for response in self.call(agent, input, **fields) for event in response.events]

    async def said(self, agent: str = "claimed") -> dict[str, Any]:
        end = terminal(await self.events(agent))
        return MessageToDict(end.agent_completed.data)

    async def asked(self, agent: str, input: str = "") -> tuple[str, str, Any]:
        """Begin a run that asks, and return its id, its question's, and its call."""
        run_id = str(uuid.uuid4())
        call = self.call(agent, input, run_id=run_id, resume_window=WINDOW)
        async for response in call:
            for event in response.events:
                if kind(event) == "input_requested":
                    return run_id, event.input_requested.request_id, call
        raise AssertionError("it asks nothing")

    async def answer(self, run_id: str, request_id: str) -> None:
        request = pb.AnswerRequest(run_id=run_id, request_id=request_id, outcome=INPUT_OUTCOME_ACCEPTED)
        await self.stub.Answer(request, metadata=self.metadata)

    async def cancel(self, run_id: str) -> None:
        await self.stub.Cancel(pb.CancelRequest(run_id=run_id), metadata=self.metadata)

    async def resume(self, run_id: str) -> list[Event]:
        call = self.stub.Resume(pb.ResumeRequest(run_id=run_id), metadata=self.metadata)
        return [event async for response in call for event in response.events]

    async def runs(self) -> dict[str, str]:
        """Return who began which of its runs."""
        found = await self.stub.ListRuns(pb.ListRunsRequest(), metadata=self.metadata)
        return {run.run_id: run.service for run in found.runs}

    async def agents(self) -> list[str]:
        found = await self.stub.ListAgents(pb.ListAgentsRequest(), metadata=self.metadata)
        return [agent.name for agent in found.agents]


@pytest.fixture(scope="module")
def back() -> Iterator[Service]:
    with start_engine(agents=AGENTS, **SETTINGS) as service:
        yield service


@pytest.fixture
async def channel(back: Service) -> Any:
    async with grpc.aio.insecure_channel(back.address) as made:
        yield made


def contains(some: dict[str, str], record: Record) -> bool:
    return record.items() >= some.items()


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), str(error.value.details())


async def test_claims(channel: grpc.aio.Channel) -> None:
    """An agent hears of its caller what the engine was told to tell, and nothing else."""
    about = {"tenant": "acme", "roles": ["admin", "payer"], "email": "alice@acme.example"}
    said = await User(channel, "alice", **about).said()
    assert said == {"user": "alice", "claims": {"tenant": "acme", "roles": ["admin", "payer"]}}
    assert await User(channel, "alice").said() == {"user": "alice", "claims": {}}


@pytest.mark.parametrize(
    ("claim", "sees"),
    [
        ({"agents": "echo"}, ["echo"]),
        ({"agents": "cou* echo"}, ["counter", "echo"]),
        ({"agents": ["cou*", 7]}, ["counter"]),
        ({"agents": {"echo": True}}, []),
        ({"agents": ""}, []),
        ({"agents": None}, []),
    ],
)
async def test_agents_that_one_may_run(channel: grpc.aio.Channel, claim: dict[str, Any], sees: list[str]) -> None:
    """What a caller may not run does not exist for them; a token that says nothing lets nothing be run."""
    alice = User(channel, "alice", **claim)
    assert await alice.agents() == sees
    for agent in ("echo", "waiter"):
        if agent in sees:
            assert kind(terminal(await alice.events(agent))) == "agent_completed"
        else:
            assert (await refused(alice.events(agent)))[0] is grpc.StatusCode.NOT_FOUND


async def test_who_may_not_act_for_others(channel: grpc.aio.Channel) -> None:
    """A token without the scope acts for nobody; and whoever names two users, or none, acts for neither."""
    for scope in ({}, {"scope": "openid"}, {"scope": "runwire:actor"}, {"scope": ["runwire"]}, {"scp": 7}):
        service = User(channel, "backend", "alice", **scope)
        for call in (service.said(), service.runs(), service.agents(), service.cancel(str(uuid.uuid4()))):
            assert (await refused(call))[0] is grpc.StatusCode.PERMISSION_DENIED
    for named in (("alice", "bob"), ("",)):
        assert (await refused(User(channel, "backend", *named, **ACTS).said()))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_service_that_acts_for_users(back: Service, channel: grpc.aio.Channel) -> None:
    """The run is the user's, its claims are the service's, and the log names both, for every call."""
    service = User(channel, "backend", "alice", tenant="ours", **ACTS)
    assert await service.said() == {"user": "alice", "claims": {"tenant": "ours"}}
    assert await User(channel, "backend", **ACTS).said() == {"user": "backend", "claims": {}}
    for scopes in ({"scp": ["runwire:act"]}, {"scp": "other runwire:act"}, {"scope": ["runwire:act"]}):
        assert (await User(channel, "backend", "alice", **scopes).said())["user"] == "alice"
    before = len(back.records)
    await service.agents()
    await service.runs()
    run_id, question, call = await service.asked("claimed", "ask")
    await service.answer(run_id, question)
    with suppress(grpc.aio.AioRpcError):
        await service.resume(run_id)
    await service.cancel(run_id)
    call.cancel()
    both = {"acting": "backend", "user_id": "alice"}
    for method in ("ListAgents", "ListRuns", "Run", "Answer", "Resume", "Cancel"):
        back.wait_for(partial(contains, {"method": method, **both}))
    began = [record for record in back.records[before:] if record.get("event") == "run started"]
    assert [(record["user_id"], record["acting"]) for record in began] == [("alice", "backend")]


async def test_it_sees_what_it_began(channel: grpc.aio.Channel) -> None:
    """A user sees all of their runs; a service those that it began for them, and no other service's, nor user's."""
    user, service = User(channel, "ann"), User(channel, "backend", "ann", **ACTS)
    other, elsewhere = User(channel, "another", "ann", **ACTS), User(channel, "backend", "ben", **ACTS)
    own, own_question, own_call = await user.asked("claimed", "ask")
    acted, question, call = await service.asked("claimed", "ask")
    assert await user.runs() == {own: "", acted: "backend"}
    assert await service.runs() == {acted: "backend"}
    for stranger in (other, elsewhere, User(channel, "backend", **ACTS), User(channel, "bob")):
        assert await stranger.runs() == {}
        for run_id in (own, acted):
            for attempt in (
                stranger.cancel(run_id),
                stranger.resume(run_id),
                stranger.answer(run_id, question),
            ):
                assert (await refused(attempt))[0] is grpc.StatusCode.NOT_FOUND
    for attempt in (service.cancel(own), service.resume(own), service.answer(own, own_question)):
        assert (await refused(attempt))[0] is grpc.StatusCode.NOT_FOUND
    await service.answer(acted, question)
    assert terminal(await service.resume(acted)).agent_completed.data["user"] == "ann"
    assert await user.resume(acted)
    await user.answer(own, own_question)
    for each in (own_call, call):
        each.cancel()


async def test_approvals_want_a_scope_of_their_own(channel: grpc.aio.Channel) -> None:
    """A service without it can neither approve nor decline; its user can, and so can a service that has it."""
    service = User(channel, "backend", "amy", **ACTS)
    run_id, question, call = await service.asked("payer")
    code, why = await refused(service.answer(run_id, question))
    assert (code, why) == (grpc.StatusCode.PERMISSION_DENIED, "You may not approve of tools for others.")
    await User(channel, "amy").answer(run_id, question)
    events = await service.resume(run_id)
    assert [event.input_answered.answered_by for event in events if kind(event) == "input_answered"] == ["amy"]
    trusted = User(channel, "backend", "amy", scope="runwire:act runwire:approve")
    again, question, second = await trusted.asked("payer")
    await trusted.answer(again, question)
    events = await trusted.resume(again)
    assert [event.input_answered.answered_by for event in events if kind(event) == "input_answered"] == ["backend"]
    call.cancel()
    second.cancel()


@pytest.mark.force
async def test_a_service_pushes_out_its_own(channel: grpc.aio.Channel) -> None:
    """However many of a user's runs it begins, those that the user began are there as long as they would be."""
    user, service = User(channel, "kim"), User(channel, "backend", "kim", **ACTS)
    await user.events("echo", run_id=(own := str(uuid.uuid4())), resume_window=WINDOW)
    begun = [str(uuid.uuid4()) for _ in range(101)]
    for run_id in begun:
        await service.events("echo", run_id=run_id, resume_window=WINDOW)
    assert kind(terminal(await user.resume(own))) == "agent_completed"
    assert (await refused(service.resume(begun[0])))[0] is grpc.StatusCode.NOT_FOUND
    assert await service.resume(begun[1])


async def test_the_limits_are_the_services(channel: grpc.aio.Channel) -> None:
    """It has as many runs as one user may, for whomever; its users keep all of theirs."""
    calls = []
    for user in ("u1", "u2", "u3"):
        calls.append(call := User(channel, "busy", user, **ACTS).call("waiter"))
        async for _ in call:
            break
    code, _ = await refused(User(channel, "busy", "u4", **ACTS).events("echo"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert kind(terminal(await User(channel, "u1").events("echo"))) == "agent_completed"
    for call in calls:
        call.cancel()


async def test_the_gateway_forwards_no_such_name(back: Service) -> None:
    """Whatever a browser's request says, it is what its token says."""
    with start_gateway(back.address) as front:
        said = {"runwire-user": "alice", "Authorization": f"Bearer {token('mallory', **ACTS)}"}
        async with socket(front.address, additional_headers=said) as connection:
            await connection.send(json.dumps({"run": {"agent": "claimed"}}))
            events = [event for frame in await frames(connection) for event in json.loads(frame).get("events", ())]
        assert events[-1]["agentCompleted"]["data"]["user"] == "mallory"


async def test_with_the_python_client(back: Service) -> None:
    """A client acts for a user where it is told to, be it plain or not, and for nobody otherwise."""
    async with Client(back.address, token=lambda: token("backend", **ACTS)) as client:
        with pytest.raises(ValueError, match="has to be said"):
            client.acting_for("")
        for user in ("ann", "jürgen", "a b\n"):
            said = (await client.acting_for(user).run("claimed").result()).data
            assert said["user"] == user
        assert (await client.run("claimed").result()).data["user"] == "backend"
    acting = await asyncio.to_thread(plainly, back.address)
    with pytest.raises(RefusedError):
        acting.agents()


def plainly(address: str) -> PlainClient:
    with PlainClient(address, token=token("backend", **ACTS)) as client:
        acting = client.acting_for("ann")
        assert acting.run("claimed").result().data["user"] == "ann"
        assert client.run("claimed").result().data["user"] == "backend"
        return acting


async def test_in_development() -> None:
    """Whoever says their name is believed to be a service, too; it approves of nothing, and nobody acts namelessly."""
    with start_engine(agents=AGENTS) as back:
        async with grpc.aio.insecure_channel(back.address) as channel:
            service = User(channel, "backend", "ann")
            service.metadata = (("authorization", "Bearer dev:backend"), ("runwire-user", "ann"))
            assert (await service.said())["user"] == "ann"
            run_id, question, call = await service.asked("payer")
            assert (await refused(service.answer(run_id, question)))[0] is grpc.StatusCode.PERMISSION_DENIED
            service.metadata = (("runwire-user", "ann"),)
            assert (await refused(service.said()))[0] is grpc.StatusCode.UNAUTHENTICATED
            call.cancel()


async def test_over_several_engines() -> None:
    """What a service began is its own at every engine, and its limit counts at all of them."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(valkey())
        engines = [stack.enter_context(start_engine(agents=AGENTS, STORE=server.url, **SETTINGS)) for _ in range(2)]
        here, there = [await stack.enter_async_context(grpc.aio.insecure_channel(engine.address)) for engine in engines]
        acts = ACTS | {"tenant": "ours"}
        run_id, question, call = await User(here, "backend", "ann", **acts).asked("payer")
        service, other = User(there, "backend", "ann", **acts), User(there, "another", "ann", **ACTS)
        assert await service.runs() == {run_id: "backend"}
        assert await User(there, "ann").runs() == {run_id: "backend"}
        assert await other.runs() == {}
        for attempt in (other.cancel(run_id), other.resume(run_id), other.answer(run_id, question)):
            assert (await refused(attempt))[0] is grpc.StatusCode.NOT_FOUND
        assert (await refused(service.answer(run_id, question)))[0] is grpc.StatusCode.PERMISSION_DENIED
        more = [User(at, "backend", user, **acts).call("waiter") for at, user in ((here, "u1"), (there, "u2"))]
        for each in more:
            async for _ in each:
                break
        code, _ = await refused(User(there, "backend", "u3", **acts).events("echo"))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await service.cancel(run_id)
        assert kind(terminal(await service.resume(run_id))) == "agent_cancelled"
        for each in (call, *more):
            each.cancel()


async def test_what_another_engine_goes_on_with() -> None:
    """A run that goes on elsewhere is still its user's and its service's, with the claims that it began with."""
    settings = SETTINGS | {"DRAIN_GRACE": "5"}
    agents = "tests.agents.savers,tests.agents.claimed"
    async with AsyncExitStack() as stack:
        server = stack.enter_context(valkey())
        engines = [stack.enter_context(start_engine(agents=agents, STORE=server.url, **settings)) for _ in range(2)]
        here, there = [await stack.enter_async_context(grpc.aio.insecure_channel(engine.address)) for engine in engines]
        acts = ACTS | {"tenant": "ours"}
        run_id, question, _ = await User(here, "backend", "ann", **acts).asked("claimed", "save and ask")
        engines[0].stop()
        service = User(there, "backend", "ann", **acts)
        assert await service.runs() == {run_id: "backend"}
        began = engines[1].wait_for(lambda record: record["event"] == "run started")
        assert (began["user_id"], began["acting"]) == ("ann", "backend")
        while not await asked(service, run_id):
            pass
        await service.answer(run_id, question)
        said = MessageToDict(terminal(await service.resume(run_id)).agent_completed.data)
        assert said == {"user": "ann", "claims": {"tenant": "ours"}}


async def asked(user: User, run_id: str) -> bool:
    """Tell whether a run of a user's waits for an answer."""
    found = await user.stub.ListRuns(pb.ListRunsRequest(), metadata=user.metadata)
    return any(run.run_id == run_id and run.questions for run in found.runs)
