"""A server of models that speaks HTTP as OpenAI's does, and says what its script says."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support import responses

Document = dict[str, Any]
MODEL = "scripted-1"
USAGE = {
    "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "prompt_tokens_details": {"cached_tokens": 60},
}  # fmt: skip
STATUSES = {"401": "Unauthorized", "429": "Too Many Requests", "500": "Internal Server Error"}
CALLS: dict[str, list[tuple[str, Document]]] = {
    "one tool": [("weather", {"city": "Oslo"})],
    "two tools": [("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})],
    "pay twice": [("pay", {"amount": 40, "to": "alice"}), ("pay", {"amount": 41, "to": "bob"})],
    "pay": [("pay", {"amount": 40, "to": "alice"})],
    "book a table": [("book", {})],
    "book two tables": [("book", {}), ("book", {})],
    "pay a deposit": [("pay", {})],
    "weigh it": [("weigh", {"what": "a letter"})],
    "a tool that fails": [("broken", {})],
    "a tool in the wrong way": [("weather", {"town": "Oslo"})],
}
"""Which tools the model calls when it is asked so."""
TAILS: dict[str, Document] = {
    "a stream that is cut": {"cut": True},
    "refuse": {"refusal": "no"},
    "an error in the middle": {"error": {"message": "a secret of the provider"}},
}
"""What comes after its words."""


class ModelServer:
    """Answers `POST /v1/chat/completions` and `/v1/responses`. What is asked last chooses what is said."""

    def __init__(self) -> None:
        self.asked: list[Document] = []
        """The bodies of all requests."""
        self.left = threading.Event()
        """Set when a client left in the middle of an answer."""
        self.left_at = 0.0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _request(reader):
                self.asked.append(request)
                await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left_at = time.monotonic()
            self.left.set()
        finally:
            writer.close()

    async def _answer(self, request: Document, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = _last_user(request)
        if asked in STATUSES:
            body = b'{"error": {"message": "a secret of the provider", "type": "x"}}'
            extra = b"Retry-After: 7\r\n" if asked == "429" else b""
            head = f"HTTP/1.1 {asked} {STATUSES[asked]}\r\nContent-Type: application/json\r\n"
            writer.write(head.encode() + extra + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = responses.Answer(MODEL) if request.get("input") else None
        async for delta in self._deltas(asked, request, reader):
            if delta == {"cut": True}:
                writer.close()
                return
            writer.write(_framed(answer.events(delta) if answer else _chunks(delta)))
            await writer.drain()
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()

    async def _deltas(self, asked: str, request: Document, reader: asyncio.StreamReader) -> AsyncIterator[Document]:
        results = _results(request)
        calls = CALLS.get(asked, [])
        if asked == "a tool in the wrong way" and results:
            calls = [("weather", {"city": "Oslo"})] if len(results) == 1 else []
        elif results:
            calls = []
        handing_on = [name for name in _tools(request) if name.startswith("transfer_to")]
        if asked == "hand it on" and handing_on and not results:
            calls = [(handing_on[0], {"agent_name": "researcher"} if handing_on[0] == "transfer_to_agent" else {})]
        if asked == "an answer with a shape" and request.get("tools") and not results:
            output = next(tool["function"]["name"] for tool in request["tools"] if "weather" not in str(tool))
            calls = [(output, {"city": "Oslo", "degrees": 7})]
        if calls:
            yield {"tool_calls": [_call(place, len(results), *call) for place, call in enumerate(calls)]}
        else:
            yield {"role": "assistant", "content": ""}
            if asked == "think":
                yield {"reasoning_content": "let me see"}
            for word in _words(asked, request, results):
                yield {"content": word}
        if asked == "never stop":
            await reader.read(1)  # until it leaves
            raise ConnectionResetError
        if asked in TAILS:
            yield dict(TAILS[asked])
        yield {"finish": "tool_calls" if calls else "stop"}


def _words(asked: str, request: Document, results: list[str]) -> list[str]:
    if asked == "what was said":
        said = [
            f"{message['role']}: {_text(message)}" for message in request["messages"] if message["role"] != "system"
        ]
        return [" | ".join(said)]
    if results:
        return [" and ".join(results), " it is."]
    if asked == "an answer with a shape":  # of those who want it as words
        return ['{"city": "Oslo", ', '"degrees": 7}']
    return ["The ", "answer ", "is ", "words."]


def _call(place: int, turn: int, name: str, arguments: Document) -> Document:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"index": place, "id": f"call_{turn}_{place}", "type": "function", "function": function}


def _framed(documents: list[Document]) -> bytes:
    """Write documents as server-sent events, in one chunk."""
    named = (f"event: {each['type']}\n" if "type" in each else "" for each in documents)
    data = "".join(f"{name}data: {json.dumps(each)}\n\n" for name, each in zip(named, documents, strict=True)).encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n" if data else b""


def _chunks(delta: Document) -> list[Document]:
    if "error" in delta:
        return [delta]
    finish = delta.pop("finish", None)
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body: Document = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    chunks = [body]
    if finish:
        chunks.append(body | {"choices": [], "usage": USAGE})
    return chunks


def _text(message: Document) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _tools(request: Document) -> list[str]:
    return [tool["function"]["name"] for tool in request.get("tools") or []]


def _last_user(request: Document) -> str:
    return next(_text(message) for message in reversed(request["messages"]) if message["role"] == "user")


def _results(request: Document) -> list[str]:
    """Return what tools returned since the user spoke last."""
    messages = request["messages"]
    last = max(place for place, message in enumerate(messages) if message["role"] == "user")
    return [_unwrapped(_text(message)) for message in messages[last:] if message["role"] == "tool"]


def _unwrapped(text: str) -> str:
    """Return what a tool returned: there is a framework that puts it into a dictionary."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return str(found["result"]) if isinstance(found, dict) and set(found) == {"result"} else text


async def _request(reader: asyncio.StreamReader) -> Document | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    body: Document = json.loads(await reader.readexactly(length))
    return body | responses.as_chat(body) if "input" in body else body


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Serve, in a thread of its own."""
    served, ready, loops = ModelServer(), threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def serve() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await served.serve(ready.set, stop)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield served
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
