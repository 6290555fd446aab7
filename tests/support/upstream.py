"""A model server of ours that keeps what it is asked, headers and all, and answers as a test wants."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

WORDS = ("one ", "two ", "three")


class Upstream:
    """Answers everything. What the last message says chooses how."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        """The path, the headers and the body of each request."""
        self.connections = set[object]()
        self.go_on = threading.Event()
        """What an answer that waits waits for."""
        self.left = threading.Event()
        """Set when somebody left in the middle of an answer."""
        self.written = 0
        """Bytes of an answer without an end that somebody took."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.asked.append((request.path_qs, dict(request.headers), body))
        self.connections.add(request.transport)
        said = _last(body)
        if said.startswith("status "):
            headers = {"Retry-After": "7", "X-RateLimit-Remaining-Tokens": "12", "Set-Cookie": "a=b"}
            return web.Response(status=int(said[7:]), text='{"error": {"message": "your key sk-abc"}}', headers=headers)
        if said.startswith("late "):
            await asyncio.sleep(2)  # longer than whoever asks it waits
        if said == "elsewhere":
            return web.Response(status=307, headers={"Location": self.url + "/files"})
        if not body.get("stream"):
            return web.json_response({"model": "m-1", "choices": [], "usage": usage(3, 4)})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            async for piece in self._pieces(said, body):
                await response.write(piece)
        except ConnectionError:
            self.left.set()
        except asyncio.CancelledError:
            self.left.set()
            raise
        return response

    async def _pieces(self, said: str, body: Any) -> AsyncIterator[bytes]:
        for word in WORDS:
            yield event({"model": "m-1", "choices": [{"delta": {"content": word}}], "usage": None})
        if said == "wait":
            await asyncio.to_thread(self.go_on.wait, 30)
        while said == "without end":
            yield event({"choices": [{"delta": {"content": "x" * 60_000}}]})
            self.written += 60_000
        if said != "no usage" and (body.get("stream_options") or {}).get("include_usage"):
            yield event({"model": "m-1", "choices": [], "usage": usage(10, 20)})
        yield b"data: [DONE]\n\n"


def usage(asked: int, said: int) -> dict[str, Any]:
    return {"prompt_tokens": asked, "completion_tokens": said, "prompt_tokens_details": {"cached_tokens": 1}}


def event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _last(body: Any) -> str:
    messages = body.get("messages") or [{}]
    content = messages[-1].get("content", "")
    return content if isinstance(content, str) else ""


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Have one, in a thread of its own."""
    made, ready = Upstream(), threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(made.handle, handler_cancellation=True))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.port = runner.addresses[0][1]
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        ready.set()
        await ended.wait()
        made.go_on.set()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield made
    finally:
        made.go_on.set()
        stop[0]()
        thread.join()
