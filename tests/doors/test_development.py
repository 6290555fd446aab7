"""Development mode is explicit, loud, and never public."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from runwire.v1.engine_pb2 import AnswerRequest, ListRunsRequest
from runwire.v1.events_pb2 import FAILURE_REASON_CRASHED, INPUT_OUTCOME_ACCEPTED, Event
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support import visible
from tests.support.clients import JSON, PROTO, Caller, caller, events_of, frames, kind, opening, socket, taken, terminal
from tests.support.services import Service, http_status, looks_inside, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway


def refusal(**settings: str) -> str:
    """Return the line with which an engine refused to start."""
    with start_engine(**settings) as service:
        assert service.wait() == 2, service.records
        [line] = service.lines
        return line


KEY = {"JWT_SECRET": "x" * 40}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"DEVELOPMENT": "false"}, "RUNWIRE_ENGINE_JWT_KEY_FILE"),
        ({"DEVELOPMENT": "false"}, "RUNWIRE_ENGINE_DEVELOPMENT=true"),
        ({"JWT_SECRET": ""}, "RUNWIRE_ENGINE_JWT_SECRET is set and empty"),
        ({"JWT_SECRET": "", "DEVELOPMENT": "true"}, "RUNWIRE_ENGINE_JWT_SECRET is set and empty"),
        ({"JWT_KEY_FILE": ""}, "RUNWIRE_ENGINE_JWT_KEY_FILE is set and empty"),
        ({"DEVELOPMENT": "true", **KEY}, "excludes keys"),
        ({"DEVELOPMENT": "true", "LISTEN": "0.0.0.0:0"}, "which is not loopback"),
        ({"DEVELOPMENT": "true", "DEVELOPMENT_NETWORK": "8.8.8.0/24"}, "must be a private network"),
        ({"DEVELOPMENT": "true", "DEVELOPMENT_NETWORK": "0.0.0.0/0"}, "must be a private network"),
        ({"JWT_SECRET": "x" * 31}, "at least 32 bytes"),
        ({"AGENTS": "", **KEY}, "there are no agents"),
        ({"RUN_AS": "nobody-of-this-name"}, "there is no such user"),
    ],
)
def test_what_stops_the_boot(settings: dict[str, str], says: str) -> None:
    """Without keys and without DEVELOPMENT there is no boot, nor with a key that failed to come or is too short."""
    assert says in refusal(**settings)


def test_a_secret_is_no_flag() -> None:
    """What everybody can read in the list of processes is refused, and a file is named instead."""
    for flag in ("--jwt-secret=" + "x" * 40, "--jwt-secret"):
        with start_engine(flag) as service:
            assert service.wait() == 2
            assert "JWT_SECRET_FILE" in service.lines[0]
            assert "xxxx" not in service.lines[0]


def test_it_is_said_loudly() -> None:
    """An engine in development warns of it; one that root starts warns that agents are root, in one line each."""
    with start_engine() as service:
        service.wait_for(lambda record: "dev:NAME" in record["event"])
        warnings = [record["event"] for record in service.records if record.get("level") == "warning"]
        assert any("dev:NAME" in warning for warning in warnings)
        assert len(warnings) <= 2


def test_demo_agents() -> None:
    """They are there in development, and not where there are keys, unless that is said; those that crash never are."""
    for settings, triage, crashing in (
        ({}, True, True),
        (KEY, False, False),
        ({"DEMO_AGENTS": "false"}, False, False),
        (KEY | {"DEMO_AGENTS": "true"}, True, False),
    ):
        with start_engine(**settings) as service:
            assert service.address
            serving = service.wait_for(lambda record: record["event"] == "serving")
            assert ("triage" in serving["agents"], "try_crashing" in serving["agents"]) == (triage, crashing)


async def test_agents_to_try() -> None:
    """What they do to themselves is told as an ending; what a neighbour counts meanwhile is counted."""
    with start_engine() as service:
        async with caller(service.address, "alice") as alice, caller(service.address, "bob") as bob:
            counting = asyncio.create_task(taken(bob.call("try_counting", parameters={"beats": 10, "pace": 0.01})))
            for agent in ("try_crashing", "try_quitting"):
                ending = terminal(await answering(alice, alice.call(agent)))
                assert ending.agent_failed.reason == FAILURE_REASON_CRASHED
            ending = terminal(await taken(alice.call("try_computing", parameters={"times": 1, "seconds": 0.1})))
            assert ending.agent_completed.output == "All of it is computed."
            flood = await taken(alice.call("try_flooding", parameters={"words": 300}))
            assert [kind(event) for event in flood].count("tool_completed") == 3
            assert terminal(await counting).agent_completed.output == "10 beats"


async def answering(user: Caller, call: Any) -> list[Event]:
    """Read a call to its end, and say yes to whatever is asked."""
    events: list[Event] = []
    run_id = ""
    async for response in call:
        run_id = response.run_id or run_id
        events += response.events
        for event in response.events:
            if kind(event) == "input_requested":
                asked = event.input_requested.request_id
                request = AnswerRequest(run_id=run_id, request_id=asked, outcome=INPUT_OUTCOME_ACCEPTED)
                await user.stub.Answer(request, metadata=user.metadata)
    return events


async def close_of(front: Service, **headers: str) -> tuple[int, str]:
    async with connect(f"ws://{front.address}/v1/stream", additional_headers=headers) as connection:
        await connection.send(opening(JSON, "echo", user="ceo"))
        await frames(connection)
        return connection.close_code or 0, connection.close_reason or ""


def agents_of(front: Service, **headers: str) -> int:
    return http_status(front, "/v1/agents", **headers)


@pytest.fixture(scope="module")
def back() -> Iterator[Service]:
    with start_engine() as service:
        assert service.address
        yield service


@pytest.mark.parametrize(
    ("settings", "headers", "code"),
    [
        ({}, {}, 1000),
        ({"LISTEN": "0.0.0.0:0"}, {}, 4009),
        ({"LISTEN": "0.0.0.0:0", "DEVELOPMENT_NETWORK": "172.18.0.0/16"}, {}, 1000),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, {}, 4009),
        ({}, {"X-Forwarded-For": "203.0.113.7"}, 4009),
        ({}, {"Forwarded": "for=203.0.113.7"}, 4009),
        ({}, {"X-Real-IP": "203.0.113.7"}, 4009),
        ({}, {"Host": "evil.example:8080"}, 4009),
        ({"LISTEN": "0.0.0.0:0", "DEVELOPMENT_NETWORK": "172.18.0.0/16"}, {"Host": "evil.example"}, 4009),
    ],
)
async def test_a_gateway_that_may_be_public(
    back: Service, settings: dict[str, str], headers: dict[str, str], code: int
) -> None:
    """It carries nobody to an engine in development: 4009, and says why; the list of agents is refused the same way."""
    with start_gateway(back.address, **settings) as front:
        if "Host" in headers:
            found = await _named(front, headers["Host"])
        else:
            found, reason = await close_of(front, **headers)
            assert ("development" in reason) is (code == 4009)
            assert await asyncio.to_thread(agents_of, front, **headers) == (200 if code == 1000 else 403)
        assert found == code


async def _named(front: Service, host: str) -> int:
    """Return the close code for a page whose name was made to point here."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(
        f"GET /v1/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    body = b'{"run": {"agent": "echo"}}'
    writer.write(bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
    head = await reader.readexactly(4)
    writer.write(bytes([0x88, 0x80, 0, 0, 0, 0]))  # or the gateway would wait for it
    await reader.read()
    writer.close()
    await writer.wait_closed()  # or the gateway's end, for which nothing else here is done, would wait for it
    return int.from_bytes(head[2:4], "big")


async def test_callers_from_elsewhere() -> None:
    """On a network that was named, an engine believes those inside it and this machine, and nobody else."""
    with start_engine(LISTEN="0.0.0.0:0", DEVELOPMENT_NETWORK="10.99.0.0/16") as service:
        outside = _address()
        async with caller(f"127.0.0.1:{service.port}") as near:
            assert terminal(await near.run("echo", "hi")).agent_completed.output == "hi"
        if outside:
            async with caller(f"{outside}:{service.port}") as far:
                with pytest.raises(Exception, match="not signed in"):
                    await far.run("echo")


def _address() -> str | None:
    """Return an address of this machine that isn't loopback, if it has one."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family.name == "AF_INET" and not address.address.startswith("127."):
                return address.address
    return None


def test_tokens_in_clear_are_warned_of() -> None:
    """A gateway that sends tokens to a remote engine without TLS says so once; to one on this machine it may."""
    with start_gateway("192.0.2.1:50051") as front:
        front.wait_for(lambda record: "in clear" in record["event"])
        assert sum("in clear" in record["event"] for record in front.records) == 1
    with start_gateway("127.0.0.1:50051") as front:
        assert front.address
        assert not [record for record in front.records if record["level"] == "warning"]


def test_versions() -> None:
    """`--version` says which it is, and nothing else."""
    for command in ("engine-service", "edge-gateway"):
        with Service(command, "--version") as service:
            assert service.wait() == 0
            assert service.lines[0].startswith(f"{command} 0.")


@looks_inside
async def test_agents_have_the_rights_that_were_given(service_as_nobody: Service) -> None:
    """With RUN_AS, agents' modules are imported and runs happen as that user, in no group of root's."""
    async with caller(service_as_nobody.address) as alice:
        events = await alice.run("who")
        told = terminal(events).agent_completed.output
    assert told == "nobody nobody [] /nonexistent"


@pytest.fixture
def service_as_nobody() -> Iterator[Service]:
    """An engine of root's whose agents are nobody's."""
    with start_engine(agents="tests.agents.who", RUN_AS="nobody", before=visible.command()) as service:
        yield service


async def test_what_gateway_and_engine_say_of_heartbeats() -> None:
    """A stream's first message says how long it is quiet at most, as JSON and as a message; later ones don't."""
    with start_engine(HEARTBEAT="90") as engine, start_gateway(engine.address) as front:
        await until(lambda: agents_of(front) == 200)
        async with socket(front.address, JSON) as connection:
            await connection.send(opening(JSON, "echo", "hi"))
            texts = await frames(connection)
        assert '"heartbeat":"90s"' in str(texts[0])
        assert not any("heartbeat" in str(text) for text in texts[1:])
        async with socket(front.address, PROTO) as connection:
            await connection.send(opening(PROTO, "echo", "hi"))
            assert terminal(events_of(await frames(connection))).agent_completed.output == "hi"


@pytest.mark.parametrize("first", ["resume", "run", "answer"])
async def test_nothing_is_answered_for_the_public(first: str) -> None:
    """Neither the first frame nor one that comes at once after it reaches an engine that believes everybody."""
    with start_engine(agents="tests.agents.asking") as back, start_gateway(back.address) as front:
        async with caller(back.address) as alice:
            run_id = str(uuid.uuid4())
            call = alice.call("asker", run_id=run_id, resume_window=Duration(seconds=60))
            [_, asked] = await taken(call, 2)
            request_id = asked.input_requested.request_id
            answer = {"requestId": request_id, "outcome": "INPUT_OUTCOME_ACCEPTED", "runId": run_id}
            begins = {"resume": {"runId": run_id}, "run": {"agent": "asker"}, "answer": answer}
            async with socket(front.address, additional_headers={"X-Forwarded-For": "203.0.113.7"}) as public:
                await public.send(json.dumps({"accessToken": "dev:alice", first: begins[first]}))
                with suppress(ConnectionClosed):
                    await public.send(json.dumps({"answer": answer}))
                assert all(json.loads(frame)["answers"][0]["code"] for frame in await frames(public))
                assert public.close_code == 4009
            runs = (await alice.stub.ListRuns(ListRunsRequest(), metadata=alice.metadata)).runs
            assert [len(run.questions) for run in runs if run.run_id == run_id] == [1]
            call.cancel()
