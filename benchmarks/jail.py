"""What a jail costs beside a process, and the broker beside calling models by oneself; and how others start theirs."""

import asyncio
import json
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web
from google.protobuf.struct_pb2 import Struct

from benchmarks.pairs import compared, summed_up
from tests.support.certificates import Authority
from tests.support.clients import Caller, caller, kind
from tests.support.services import Service
from tests.support.services import engine as start_engine

RUNS = 40
"""In a turn."""
RESULTS = Path(__file__).with_name("jail.json")
FAR = 0.010
"""Seconds that a byte takes one way: 20 ms there and back."""
WORDS = 50
LONG = 2000
"""Words of an answer whose price is taken."""
QUESTION = "My invoice is wrong"


def used(engine: Service) -> float:
    """Return the processor time of an engine and all below it that lives, and of what that has seen die, in seconds."""
    parent = psutil.Process(engine.pid)
    total = 0.0
    for process in (parent, *parent.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


async def first_event(user: Caller, agent: str, input: str, word: str, **fields: Any) -> float:
    """Run an agent to its end, and return after how many milliseconds there was the first event of a kind."""
    started, first = time.perf_counter(), 0.0
    async for response in user.call(agent, input, **fields):
        for event in response.events:
            if not first and kind(event) == word:
                first = time.perf_counter() - started
            assert kind(event) != "agent_failed", event
    return 1000 * first


async def price_of_a_jail() -> dict[str, Any]:
    """Compare runs of triage in processes, and in jails."""
    fast = Struct()
    fast.update({"pace": 0})

    async def turn(engine: Service, user: Caller) -> dict[str, float]:
        before = used(engine)
        firsts = [await first_event(user, "triage", QUESTION, "agent_started", parameters=fast) for _ in range(RUNS)]
        await asyncio.sleep(1.0)  # processes are born again
        return {"processor": 1000 * (used(engine) - before) / RUNS, "first_event": statistics.median(firsts)}

    options = {"DEMO_AGENTS": "true", "MAX_RUNS_PER_USER": "100"}
    with start_engine(**options) as one, start_engine(ISOLATION="jail", **options) as other:
        async with caller(one.address) as process, caller(other.address) as jail:
            for _ in range(2):
                await turn(one, process), await turn(other, jail)
            pairs = await compared(lambda: turn(one, process), lambda: turn(other, jail))
    return {name: summed_up(pairs, name) for name in ("processor", "first_event")}


@asynccontextmanager
async def far_model(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """Have a model server over TLS, behind a wire of 20 ms; its address, and who signed its certificate."""
    authority = Authority(folder, "authority")
    issued = authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    runner = web.ServerRunner(web.Server(_answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * FAR)  # to be connected takes a way there and back, too
        onwards = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_late(reader, onwards[1]), _late(onwards[0], writer))

    wire = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"https://localhost:{wire.sockets[0].getsockname()[1]}/v1", authority.file
    finally:
        wire.close()
        await runner.cleanup()


async def _late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry what comes, each piece as much later."""
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(65536):
            loop.call_later(FAR, writer.write, data)
    except ConnectionError:
        pass
    finally:
        loop.call_later(FAR, writer.close)


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    body = json.loads(await request.read())
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    many = int(body["messages"][-1]["content"])
    for _ in range(many):
        chunk = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": "word "}}], "usage": None}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        if many > WORDS:
            await asyncio.sleep(0)
    usage = {"choices": [], "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": many}}
    await response.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
    return response


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Have these variables, for services that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def price_of_the_broker() -> dict[str, Any]:
    """Compare an assistant that calls its model by itself, and one that does so through the broker."""
    with tempfile.TemporaryDirectory() as folder:
        async with far_model(Path(folder)) as (url, authority):
            key = Path(folder, "key")
            key.write_text("a key")  # noqa: ASYNC240 - before anything is measured
            options = {"ASSISTANT_MODEL": "m", "DEMO_AGENTS": "false", "MAX_RUNS_PER_USER": "100", "AGENTS": ""}
            with environment(SSL_CERT_FILE=str(authority), OPENAI_BASE_URL=url, OPENAI_API_KEY="a key"):
                one = start_engine(agents="", **options)
                other = start_engine(agents="", UPSTREAMS=f"openai={url}", UPSTREAM_KEYS=f"openai={key}", **options)
            with one, other:
                async with caller(one.address) as alone, caller(other.address) as through:
                    return await _compare_calls((one, alone), (other, through))


async def _compare_calls(one: tuple[Service, Caller], other: tuple[Service, Caller]) -> dict[str, Any]:
    async def turn(engine: Service, user: Caller) -> dict[str, float]:
        firsts = [await first_event(user, "assistant", str(WORDS), "agent_message") for _ in range(10)]
        before = used(engine)
        for _ in range(5):
            await first_event(user, "assistant", str(LONG), "agent_message")
        await asyncio.sleep(0.5)
        long = used(engine) - before
        before = used(engine)
        for _ in range(5):
            await first_event(user, "assistant", "1", "agent_message")
        await asyncio.sleep(0.5)
        short = used(engine) - before
        return {
            "first_words": statistics.median(firsts),
            "a_word_us": 1e6 * (long - short) / 5 / LONG,
            "run": 200 * short,
        }

    for side in (one, other):
        await turn(*side)
    pairs = await compared(lambda: turn(*one), lambda: turn(*other))
    return {name: summed_up(pairs, name) for name in ("first_words", "a_word_us", "run")}


async def others() -> dict[str, Any]:
    """Compare how long it takes until something is said: in bubblewrap, and in a jail of ours."""
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        print("bubblewrap cannot be had: apt-get install bubblewrap")
        return {}
    jail = [bubblewrap, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    python = [sys.executable, "-c"]
    commands = {
        "bubblewrap, echo": [*jail, "/bin/echo", "hello"],
        "bubblewrap, Python": [*jail, *python, "print('hello')"],
        "bubblewrap, Python with asyncio and protobuf": [
            *jail, *python, "import asyncio, google.protobuf.struct_pb2; print('hello')",
        ],
    }  # fmt: skip
    fast = Struct()
    fast.update({"pace": 0})
    taken: dict[str, list[float]] = {name: [] for name in (*commands, "a run in a jail")}
    with start_engine(DEMO_AGENTS="true", ISOLATION="jail", MAX_RUNS_PER_USER="100") as engine:
        async with caller(engine.address) as alice:
            await first_event(alice, "triage", QUESTION, "agent_started", parameters=fast)
            for _ in range(20):
                for name, command in commands.items():
                    started = time.perf_counter()
                    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                        assert process.stdout
                        assert process.stdout.readline()
                        taken[name].append(1000 * (time.perf_counter() - started))
                found = await first_event(alice, "triage", QUESTION, "agent_started", parameters=fast)
                taken["a run in a jail"].append(found)
                await asyncio.sleep(0.2)
    return {name: round(statistics.median(each), 2) for name, each in taken.items()}


async def main() -> None:
    """Measure, and write it down."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    wanted = sys.argv[1:]
    for measure in (price_of_a_jail, price_of_the_broker, others):
        if wanted and measure.__name__ not in wanted:
            continue
        print(measure.__doc__)
        results[measure.__name__] = await measure()
        print(json.dumps(results[measure.__name__], indent=2), flush=True)
    RESULTS.write_text(f"{json.dumps(results, indent=2)}\n")


if __name__ == "__main__":
    asyncio.run(main())
