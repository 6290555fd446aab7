"""Browser frames and the contract: the only place that knows both."""

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar, cast

import orjson
from google.protobuf.message import DecodeError
from runwire.v1.engine_pb2 import RunResponse
from runwire.v1.gateway_pb2 import ClientFrame

from edge_gateway import json_text
from edge_gateway.json_text import TooMuchError
from edge_gateway.proto_json import JsonError, decoder, encoder
from runwire.service.values import MAX_VALUES, ValuesError, count, shape_of

MAX_DEPTH = 64
"""Levels of JSON. What the standard library's parser does at the end of its stack is not always an exception."""
MUCH = 200
"""Containers of a document, or values in one of them, that take others' time."""
MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of a message that gRPC takes: more would be refused on the way, as if it made sense to come back."""


T = TypeVar("T", dict[str, Any], list[Any])
Document = dict[str, Any]
Container = dict[str, Any] | list[Any]


class FrameError(Exception):
    """A frame that cannot be understood. The message says why, to whoever sent it."""


class Codec(Protocol):
    """How frames of one subprotocol are written."""

    subprotocol: str
    is_text: bool

    async def decode(self, frame: str | bytes) -> ClientFrame:
        """Read a browser's frame, in pieces that give way to others. Raises FrameError."""
        ...

    def encode(self, response: bytes) -> bytes:
        """Write a RunResponse, given as the engine's bytes."""
        ...


class ProtoCodec:
    """Binary frames: the contract's messages, and on the way out the engine's own bytes."""

    subprotocol = "runwire.v1.proto"
    is_text = False

    def __init__(self) -> None:
        self._shape = shape_of(ClientFrame.DESCRIPTOR)

    async def decode(self, frame: str | bytes) -> ClientFrame:
        """Read a browser's frame."""
        if isinstance(frame, str):
            raise FrameError("A text frame came where binary was agreed on.")
        try:
            await count(frame, self._shape)
            message = ClientFrame.FromString(frame)
        except ValuesError as error:
            raise FrameError(f"A request {error}.") from error
        except DecodeError as error:
            raise FrameError("That is no ClientFrame.") from error
        size = message.ByteSize()
        message.DiscardUnknownFields()
        if message.ByteSize() != size:
            raise FrameError("The frame has a field that the contract doesn't.")
        return _sendable(message)

    def encode(self, response: bytes) -> bytes:
        """Pass the engine's bytes on."""
        return response


class JsonCodec:
    """Text frames: canonical proto3 JSON."""

    subprotocol = "runwire.v1.json"
    is_text = True

    def __init__(self) -> None:
        self._encode = encoder(RunResponse.DESCRIPTOR)
        self._decode = decoder(ClientFrame)

    async def decode(self, frame: str | bytes) -> ClientFrame:
        """Read a browser's frame."""
        if isinstance(frame, bytes):
            raise FrameError("A binary frame came where text was agreed on.")
        text = frame.encode()
        try:
            members = await json_text.members(text)
            if len(text) > json_text.PIECE:
                await asyncio.sleep(0)
            document: Any = orjson.loads(text)
        except TooMuchError as error:
            raise FrameError(f"A request must have at most {MAX_VALUES} values.") from error
        except orjson.JSONDecodeError as error:
            raise FrameError("That is no JSON.") from error
        if not isinstance(document, dict):
            raise FrameError("A frame is a JSON object.")
        document = cast("Document", document)
        await _check(document, members)
        try:
            message = await self._decode(document)
        except JsonError as error:
            raise FrameError(f"That is no ClientFrame as proto3 JSON: {error}.") from error
        return _sendable(message)

    def encode(self, response: bytes) -> bytes:
        """Write the engine's bytes as JSON."""
        return orjson.dumps(self._encode(RunResponse.FromString(response)))


CODECS: tuple[Codec, ...] = (JsonCodec(), ProtoCodec())


async def _check(document: Document, members: int) -> None:
    """Look at a document before it is taken for a message."""
    found = 0
    for level in _levels(document):
        await _give_way(level)
        found += sum(len(each) for each in level if isinstance(each, dict))
    if found != members:
        raise FrameError("An object has two members of the same name.")  # the parser kept one of them
    run: Document = _inner(document, "run", {})
    values = len(_inner(run, "history", []))
    for level in _levels(_inner(run, "parameters", {})):
        await _give_way(level)
        values += sum(map(len, level))
    if values > MAX_VALUES:
        raise FrameError(f"A request must have at most {MAX_VALUES} values.")


async def _give_way(level: list[Container]) -> None:
    """Let others have their turn before much is looked at. A small frame, as nearly all are, has nobody wait."""
    if len(level) > MUCH or any(len(each) > MUCH for each in level):
        await asyncio.sleep(0)


def _inner(document: Document, name: str, nothing: T) -> T:
    """Return what a document has by a name, if that is of the right kind; what is wrong with it is said elsewhere."""
    value = document.get(name)
    return value if isinstance(value, type(nothing)) else nothing


def _levels(document: Document) -> Iterator[list[Container]]:
    """Go through a document's containers, level by level, without a stack that could end. Raises FrameError."""
    level: list[Container] = [document]
    for _ in range(MAX_DEPTH):
        yield level
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for values in inner for each in values if isinstance(each, dict | list)]
        if not level:
            return
    raise FrameError(f"That is nested more than {MAX_DEPTH} levels deep.")


def _sendable(frame: ClientFrame) -> ClientFrame:
    """Refuse what gRPC would not carry."""
    if frame.ByteSize() > MAX_MESSAGE:
        raise FrameError(f"A request must be at most {MAX_MESSAGE} bytes, as the engine gets it.")
    return frame
