"""What a client does when connections end, told once: the Python client and the browser's do the same."""

import asyncio
import json
from pathlib import Path
from typing import Any, overload

import grpc

from runwire.client import Client, PlainClient, PlainRun, Run, RunwireError
from tests.support.node import CLIENT, node
from tests.support.scripted import RUN_ID, STORIES, Stories, Story, stories

NAMES = {grpc.StatusCode.UNAVAILABLE: "lost", grpc.StatusCode.DATA_LOSS: "ended"}
"""What the stories call a connection that is lost, and a stream that ends too soon."""
PLAYER = Path(__file__).with_name("stories.mjs")


@overload
def asked(client: Client, script: dict[str, Any]) -> Run: ...


@overload
def asked(client: PlainClient, script: dict[str, Any]) -> PlainRun: ...


def asked(client: Client | PlainClient, script: dict[str, Any]) -> Run | PlainRun:
    """Ask for what a story is about: a run, or to join one."""
    if joins := script.get("joins"):
        return client.resume(RUN_ID, joins)
    return client.run("told", resume_window=script.get("window", 0))


async def python(told: Stories, number: int) -> tuple[list[int], str | None]:
    """Be told a story by an engine."""
    script = told.stories[number].script
    seqs: list[int] = []
    async with Client(told.engine, token=str(number)) as client:
        run = asked(client, script)

        async def read() -> None:
            async for event in run:
                seqs.append(event.seq)
                if event.seq == script.get("cancels_after"):
                    await run.cancel()

        reading = asyncio.create_task(read())
        if script.get("cancels_after") == 0:
            await told.stories[number].was_cut.wait()
            await run.cancel()
        try:
            await reading
        except RunwireError as error:
            return seqs, NAMES.get(error.code, error.code.name)
    return seqs, None


def plain(told: Stories, number: int) -> tuple[list[int], str | None]:
    """Be told a story by an engine, without an event loop."""
    script = told.stories[number].script
    seqs: list[int] = []
    with PlainClient(told.engine, token=str(number)) as client:
        run = asked(client, script)
        try:
            for event in run:
                seqs.append(event.seq)
                if event.seq == script.get("cancels_after"):
                    run.cancel()
        except RunwireError as error:
            return seqs, NAMES.get(error.code, error.code.name)
    return seqs, None


def check(story: Story, seqs: list[int], raised: str | None) -> None:
    about = story.script["story"]
    assert story.asked == story.expected, about
    first = story.script.get("joins", 0) + 1
    assert seqs == list(range(first, story.script.get("given", 0) + 1)), about
    assert raised == story.script.get("raises"), about


async def test_python() -> None:
    """The Python client does what the stories say."""
    async with stories() as told:
        ends = await asyncio.gather(*(python(told, number) for number in range(len(STORIES))))
        for story, (seqs, raised) in zip(told.stories, ends, strict=True):
            check(story, seqs, raised)


async def test_plain() -> None:
    """The plain client does, too: in threads, beside a loop."""
    async with stories() as told:
        numbers = [number for number, script in enumerate(STORIES) if script.get("cancels_after") != 0]
        ends = await asyncio.gather(*(asyncio.to_thread(plain, told, number) for number in numbers))
        for number, (seqs, raised) in zip(numbers, ends, strict=True):
            check(told.stories[number], seqs, raised)


async def test_javascript() -> None:
    """The browser's client does, too."""
    async with stories() as told:
        results: list[dict[str, Any]] = json.loads(
            await asyncio.to_thread(node, PLAYER, CLIENT.as_uri(), told.gateway, json.dumps(STORIES))
        )
        for story, result in zip(told.stories, results, strict=True):
            check(story, result["seqs"], result["raised"])


def test_every_way_is_told() -> None:
    """There is a story of each way in which a connection may begin, and end."""
    connections = [connection for script in STORIES for connection in script["connections"]]
    assert {connection["asks"] for connection in connections} >= {"run", 0, 1, 2}
    assert {connection.get("ends", "OK") for connection in connections} == {
        "OK",
        "lost",
        "restarting",
        "cancel",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAUTHENTICATED",
        "INVALID_ARGUMENT",
        "INTERNAL",
    }
