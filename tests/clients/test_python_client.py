"""The Python client, as a service uses it."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest

from runwire.client import (
    AgentCancelled,
    AgentCompleted,
    AgentMessage,
    AgentStarted,
    Client,
    EndError,
    InputRequested,
    LostError,
    PlainClient,
    RefusedError,
    RunwireError,
    ToolCompleted,
    ToolExecuting,
)
from runwire.client.engines import Connection
from runwire.client.retries import BURST, Retries
from tests.support.certificates import Authority
from tests.support.proxy import proxy
from tests.support.services import ROOT, Service, engine, free_address, is_gone, until
from tests.support.times import UNIT
from tests.support.valkey import valkey

AGENTS = "tests.agents.probes,tests.agents.asking,tests.agents.rogues,tests.agents.dirt,tests.agents.functions:greet"


@pytest.fixture(scope="module")
def back() -> Iterator[Service]:
    with engine(agents=AGENTS, DEMO_AGENTS="true", MAX_RUNS_PER_USER="1000") as service:
        assert service.address
        yield service


@pytest.fixture
async def client(back: Service) -> AsyncIterator[Client]:
    async with Client(back.address, token="dev:alice") as connected:
        yield connected


async def test_events_are_typed(client: Client) -> None:
    """Events are matched by their classes, and hold plain values."""
    tools = {}
    text = ""
    run = client.run("triage", "My invoice is wrong", thread_id="t", history=[("user", "Hello"), ("assistant", "Yes?")])
    async for event in run:
        match event:
            case AgentStarted(agent="triage", thread_id=thread, input=input):
                assert (event.seq, thread, input) == (1, "t", "My invoice is wrong")
                assert event.time.tzinfo is not None
            case ToolExecuting(call_id=call, tool=tool, arguments=arguments):
                tools[call] = tool, arguments
            case ToolCompleted(call_id=call, tool=tool, error=None):
                assert tools.pop(call)[0] == tool
                assert isinstance(event.elapsed, float)
            case AgentMessage(agent="triage", delta=delta):
                text += delta
            case AgentCompleted(agent="triage", output=output):
                assert event.is_end
                assert output
            case _:
                assert event.type != "unknown"
    assert not tools
    assert run.run_id
    assert run.seq > 3


async def test_the_result_alone(client: Client) -> None:
    """Who wants no events gets the answer, or why there is none."""
    assert (await client.run("echo", "hi").result()).output == "hi"
    with pytest.raises(EndError, match=r"The shop is closed\.") as failed:
        await client.run("rogue", "fail").result()
    assert failed.value.end is not None
    assert failed.value.end.type == "agent_failed"


async def test_lists(client: Client) -> None:
    """It lists the agents there are, and one's own runs with what they ask."""
    assert "echo" in [agent.name for agent in await client.agents()]
    asking = client.run("asker", resume_window=30, thread_id="t")
    async for event in asking:
        if isinstance(event, InputRequested):
            [found] = [run for run in await client.runs() if run.run_id == asking.run_id]
            assert (found.agent, found.thread_id, found.is_over) == ("asker", "t", False)
            assert [question.request_id for question in found.questions] == [event.request_id]
            await client.answer(asking.run_id, event.request_id, outcome="declined")


async def test_questions(client: Client) -> None:
    """A question is answered from the loop that shows it; a wrong answer says what is wrong with which field."""
    run = client.run("orders", resume_window=30)
    async for event in run:
        if not isinstance(event, InputRequested):
            continue
        assert event.reason == "question"
        assert event.schema is not None
        with pytest.raises(RefusedError) as refused:
            await run.answer(event.request_id, {"order": 17})
        assert (refused.value.code, refused.value.retry) == (grpc.StatusCode.INVALID_ARGUMENT, False)
        assert set(refused.value.violations) == {"order", "many"}
        await run.answer(event.request_id, {"order": "17", "many": 2})
        await run.answer(event.request_id, {"order": "17", "many": 2})
        with pytest.raises(RefusedError) as late:
            await run.answer(event.request_id, outcome="declined")
        assert late.value.code is grpc.StatusCode.ABORTED
    assert isinstance(event, AgentCompleted)
    assert event.data["content"] == {"order": "17", "many": 2}


async def test_cancelling(client: Client) -> None:
    """`cancel` stops a run, which still says so; of one's own run one says it from anywhere."""
    run = client.run("waiter")
    events = []
    async for event in run:
        events.append(event)
        if isinstance(event, AgentMessage):
            await client.cancel(run.run_id)
    assert isinstance(events[-1], AgentCancelled)
    await run.cancel()  # over is over


@pytest.mark.parametrize("how", ["break", "cancel"])
async def test_leaving(client: Client, how: str) -> None:
    """Whoever leaves the loop, or is cancelled, ends the run; one with a window goes on, and is joined again."""

    async def first_word() -> None:
        async for event in run:
            if isinstance(event, AgentMessage):
                pids.append(int(event.delta))
                if how == "break":
                    break
                said.set()

    for window in (0, 30):
        pids: list[int] = []
        said = asyncio.Event()
        run = client.run("pid", resume_window=window)
        reading = asyncio.create_task(first_word())
        if how == "cancel":
            await said.wait()
            reading.cancel()
        await asyncio.wait([reading])
        if not window:
            await until(partial(is_gone, pids[0]), UNIT)
            continue
        assert not is_gone(pids[0])
        await run.cancel()
        assert [event.type async for event in run] == ["agent_cancelled"]


async def test_refusals(back: Service, client: Client) -> None:
    """What is refused says with what status, whether it makes sense to try again, and why, in a sentence."""
    for run, code in (
        (client.run("nobody"), grpc.StatusCode.NOT_FOUND),
        (client.run("echo", thread_id="x" * 300), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(RefusedError) as refused:
            await run.result()
        assert (refused.value.code, refused.value.retry) == (code, False)
        assert len(refused.value.message) > 10
    assert set(refused.value.violations) == {"thread_id"}
    with pytest.raises(RefusedError) as unknown:
        await client.cancel("3e9f5d0c-6a4b-4f6e-9d0b-2f8b1c7a5e41")
    assert unknown.value.code is grpc.StatusCode.NOT_FOUND
    async with Client(back.address, token="nonsense") as stranger:
        with pytest.raises(RefusedError) as nobody:
            await stranger.agents()
        assert nobody.value.code is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(TypeError):
        client.run("echo", resume_windows=3)  # type: ignore[call-arg]


async def test_tokens(back: Service) -> None:
    """A token may be a function, async or not; it is asked for each call."""
    asked = Counter[str]()

    def given() -> str:
        asked["plain"] += 1
        return "dev:bob"

    async def fetched() -> str:
        asked["async"] += 1
        return "dev:bob"

    for token in (given, fetched):
        async with Client(back.address, token=token) as client:
            assert (await client.run("greet").result()).output == "hello bob"
            await client.runs()
    assert asked == {"plain": 2, "async": 2}


async def test_silence(back: Service) -> None:
    """A connection on which nothing comes any more is taken for lost; a run with a window is joined anew."""
    async with proxy(back.address) as network, Client(network.address, token="dev:alice", silence=0.5) as client:
        for window in (0, 30):
            run = client.run("ticker", resume_window=window, parameters={"ticks": 40})
            try:
                async for event in run:
                    if event.seq == 5:
                        network.cut("stall")
            except LostError as error:
                assert error.retry
                assert not window
        assert run.seq == 42


async def test_several_engines() -> None:
    """Runs go to the engines in turn, and past one that is away or full; each is asked for what may be at it."""
    settings = {"agents": "tests.agents.dirt", "MAX_RUNS": "1"}
    with engine(**settings) as one, engine(**settings) as other:
        addresses = [one.address, other.address, free_address()]
        async with Client(addresses, token="dev:alice") as client:
            runs = [client.run("pid", resume_window=30) for _ in range(2)]
            said = []
            for run in runs:
                async for event in run:
                    if isinstance(event, AgentMessage):
                        said.append(event.delta)
                        break
            assert len(set(said)) == 2
            assert {run.run_id for run in await client.runs()} == {run.run_id for run in runs}
            for run in runs:  # each is at one of them
                await client.cancel(run.run_id)
                joined = client.resume(run.run_id, 2)
                assert [event.type async for event in joined] == ["agent_cancelled"]


async def test_one_that_drains() -> None:
    """A run that its engine hands over goes on at another, and the loop sees that as an event."""
    with valkey() as store:
        settings = {"STORE": store.url, "agents": "tests.agents.savers"}
        with engine(**settings) as one, engine(**settings) as other:
            services = {one.address: one, other.address: other}
            async with Client(list(services), token="dev:alice") as client:
                run = client.run("saver", resume_window=30, parameters={"times": 30, "pause": 0.05})
                types = []
                async for event in run:
                    types.append(event.type)
                    if event.seq == 10:
                        before = {name: len(await client_runs(name)) for name in services}
                        holder = max(before, key=lambda name: before[name])
                        await asyncio.to_thread(services[holder].stop)
    assert "agent_recovered" in types or types[-1] == "agent_completed"
    assert run.seq == len(types)


async def client_runs(address: str) -> list[object]:
    async with Client(address, token="dev:alice") as client:
        return list(await client.runs())


async def test_tls(tmp_path: Path) -> None:
    """It verifies the engine, and shows a certificate of its own where one is wanted."""
    authority = Authority(tmp_path, "ours")
    served, shown = authority.issue("engine"), authority.issue("caller")
    tls = {"TLS_CERT": served.certificate, "TLS_KEY": served.key, "TLS_CLIENT_CA": authority.file}
    with engine(**{name: str(file) for name, file in tls.items()}) as back:
        trusted, key, certificate = (file.read_bytes() for file in (authority.file, shown.key, shown.certificate))
        credentials = grpc.ssl_channel_credentials(trusted, key, certificate)
        async with Client(f"localhost:{back.port}", token="dev:alice", tls=credentials) as client:
            assert (await client.run("echo", "hi").result()).output == "hi"


def test_plainly(back: Service) -> None:
    """Without an event loop it is the same: events, answers, cancelling, leaving, lists, and refusals."""
    with PlainClient(back.address, token="dev:alice") as client:
        assert [event.type for event in client.run("echo", "hi")][-1] == "agent_completed"
        assert client.run("echo", "hi").result().output == "hi"
        assert "echo" in [agent.name for agent in client.agents()]
        run = client.run("asker", resume_window=30)
        for event in run:
            if isinstance(event, InputRequested):
                assert run.run_id in [found.run_id for found in client.runs()]
                run.answer(event.request_id, outcome="declined")
        run = client.run("pid", resume_window=30)
        for event in run:
            if isinstance(event, AgentMessage):
                break
        run.cancel()
        assert [event.type for event in client.resume(run.run_id, run.seq)] == ["agent_cancelled"]
        with pytest.raises(RefusedError):
            client.run("nobody").result()


async def test_a_token_that_cannot_be_sent(back: Service) -> None:
    """One that gRPC has no characters for is refused at once; the end of a file's line is no part of it."""
    async with Client(back.address, token="dev:aliç") as client:
        for asking in (client.agents(), client.run("echo").result()):
            with pytest.raises(RefusedError) as refused:
                await asking
            assert (refused.value.code, refused.value.retry) == (grpc.StatusCode.UNAUTHENTICATED, False)
    async with Client(back.address, token="dev:alice\n") as client:
        assert (await client.run("echo", "hi").result()).output == "hi"
    nothing: tuple[str | list[str], ...] = ("", "127.0.0.1:1,", [])
    for none in nothing:
        with pytest.raises(ValueError, match="no addresses"):
            Client(none)


async def test_what_is_too_large(client: Client) -> None:
    """A request that is too large for gRPC is not sent again."""
    with pytest.raises(RefusedError) as refused:
        await client.run("echo", "x" * 5_000_000).result()
    assert (refused.value.code, refused.value.retry) == (grpc.StatusCode.RESOURCE_EXHAUSTED, False)


async def test_closed(back: Service) -> None:
    """A client that is closed says so to whoever waits, and to whoever comes later."""
    client = Client(back.address, token="dev:alice")
    run = client.run("waiter")
    events = aiter(run)
    assert [(await anext(events)).seq, (await anext(events)).seq] == [1, 2]
    waiting = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(LostError, match="The client was closed"):
        await waiting
    for asking in (client.agents(), client.run("echo").result()):
        with pytest.raises(RefusedError, match="The client was closed"):
            await asking


async def test_a_cancelled_pause() -> None:
    """Whoever gives up waiting leaves no place behind that others wait for."""
    retries = Retries()
    now = asyncio.get_running_loop().time()
    waiting = [asyncio.create_task(retries.pause(0, 0.0, now + 60)) for _ in range(500)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    before = asyncio.get_running_loop().time()
    assert await retries.pause(0, 0.0, now + 60)
    assert asyncio.get_running_loop().time() < before + UNIT
    woken = asyncio.Event()
    later = asyncio.create_task(retries.pause(8, 0.0, now + 60, woken))
    await asyncio.sleep(0)
    woken.set()
    assert await later


async def test_more_than_a_client_may() -> None:
    """Beyond its burst a client's attempts come one after the other, and not at all where that is too late."""
    retries = Retries(per_second=1.0)
    now = asyncio.get_running_loop().time()
    at_once = await asyncio.gather(*(retries.pause(0, 0.0, now + 0.5) for _ in range(110)))
    assert sum(at_once) in {BURST, BURST + 1}


def test_plainly_closed(back: Service) -> None:
    """A plain client that is closed lets every thread go that waits for it, and says why."""
    client = PlainClient(back.address, token="dev:alice")
    said = threading.Event()
    ends: list[Exception] = []

    def follow(window: float) -> None:
        try:
            for event in client.run("waiter", resume_window=window):
                if isinstance(event, AgentMessage):
                    said.set()
        except RunwireError as error:
            ends.append(error)

    threads = [threading.Thread(target=follow, args=(window,)) for window in (0.0, 30.0)]
    for thread in threads:
        thread.start()
    assert said.wait(UNIT * 5)
    client.close()
    for thread in threads:
        thread.join(UNIT * 5)
        assert not thread.is_alive()
    client.close()
    with pytest.raises(RefusedError, match="The client was closed"):
        client.agents()
    assert [str(error) for error in ends] == ["The client was closed."] * 2


def test_plainly_forgotten(back: Service) -> None:
    """An iteration that is forgotten leaves its run, in whichever thread it is collected."""
    with PlainClient(back.address, token="dev:alice") as client:
        events = iter(client.run("pid"))
        pid = next(int(event.delta) for event in events if isinstance(event, AgentMessage))
        circle: list[object] = [events]
        circle.append(circle)  # so that nothing but the collector finds it
        del events, circle

        async def collect() -> int:
            return gc.collect()

        assert client.wait(collect())
        until = time.monotonic() + 5 * UNIT
        while not is_gone(pid):
            assert time.monotonic() < until
        assert client.agents()


async def test_nothing_is_left(back: Service) -> None:
    """However runs end, nothing of them is left in the client: no call, no task, no descriptor."""

    def left() -> Counter[str]:
        gc.collect()
        ours = ("runwire.client", "grpc.aio", "grpc._cython")
        kinds = Counter(
            type(each).__qualname__ for each in gc.get_objects() if str(type(each).__module__).startswith(ours)
        )
        return kinds + Counter(tasks=len(asyncio.all_tasks()))

    async with Client(back.address, token="dev:leaver") as client:
        await some(client)
        await asyncio.sleep(0.1)
        before = left()
        for _ in range(20):
            await some(client)
        await until(lambda: left() - before == Counter())


async def test_nothing_is_left_of_a_client(back: Service) -> None:
    """One that is closed is gone, and its connections: at once, and not when Python next looks for what is garbage."""
    before, clients = descriptors(), 10
    gc.collect()
    gc.disable()
    try:
        for _ in range(clients):
            async with Client(back.address, token="dev:leaver") as client:
                await some(client)
            del client
        await until(lambda: not any(isinstance(each, Connection) for each in gc.get_objects()))
        await until(lambda: descriptors() < before + clients)  # gRPC has some of its own, and closes them when it can
    finally:
        gc.enable()


async def some(client: Client) -> None:
    """Have runs that end in every way."""
    for agent in ("echo", "rogue", "nobody"):
        with suppress(EndError, RefusedError):
            await client.run(agent, "fail").result()
    async for event in client.run("waiter"):
        if isinstance(event, AgentMessage):
            break
    reading = asyncio.create_task(client.run("waiter").result())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_needs_little() -> None:
    """It imports grpcio and protobuf, and nothing else that is not Python's."""
    script = (
        "import sys, grpc.aio, google.protobuf.json_format; before = set(sys.modules); import runwire.client; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name for name in done.stdout.split() if not name.startswith("_")} <= {"google", "grpc", "runwire"}
