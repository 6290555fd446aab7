"""A model's server that costs next to nothing.

It has a tool called, and then says fifty words; all of it was written beforehand.
"""

import asyncio
import json
import sys
from typing import Any

MODEL = "scripted-1"
ASKS_TO_PARSE = b"Parse it."
"""What a question has that wants the other tool called. Not less: a tool's description says Parse, too."""
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices} | more
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _answer(*chunks: bytes) -> bytes:
    body = b"".join((*chunks, _chunk({}, choices=[], usage=USAGE), b"data: [DONE]\n\n"))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _call(tool: str, **arguments: str) -> bytes:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return _answer(_chunk({"role": "assistant", "tool_calls": [call]}), _chunk({}, "tool_calls"))


WEATHER, PARSE = _call("weather", city="Oslo"), _call("parse")
WORDS = (_chunk({"content": f"word{number} "}) for number in range(50))
SAID = _answer(_chunk({"role": "assistant", "content": ""}), *WORDS, _chunk({}, "stop"))


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport: Any = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        """Answer, once a request is whole."""
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) if end else 0
        if end and len(body) >= length:
            self._data = body[length:]
            is_done = b'"role":"tool"' in body.replace(b": ", b":")
            self._transport.write(SAID if is_done else PARSE if ASKS_TO_PARSE in body else WEATHER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
