"""Browser frames and the contract: the only place that knows both."""

from typing import Any, Protocol

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from runwire.v1.engine_pb2 import RunResponse
from runwire.v1.gateway_pb2 import ClientFrame

from edge_gateway.proto_json import encoder

MAX_DEPTH = 64
"""Levels of JSON. What the standard library's parser does at the end of its stack is not always an exception."""


class FrameError(Exception):
    """A frame that cannot be understood. The message says why, to whoever sent it."""


class Codec(Protocol):
    """How frames of one subprotocol are written."""

    subprotocol: str
    is_text: bool

    def decode(self, frame: str | bytes) -> ClientFrame:
        """Read a browser's frame. Raises FrameError."""
        ...

    def encode(self, response: bytes) -> bytes:
        """Write a RunResponse, given as the engine's bytes."""
        ...


class ProtoCodec:
    """Binary frames: the contract's messages, and on the way out the engine's own bytes."""

    subprotocol = "runwire.v1.proto"
    is_text = False

    def decode(self, frame: str | bytes) -> ClientFrame:
        """Read a browser's frame."""
        if isinstance(frame, str):
            raise FrameError("A text frame came where binary was agreed on.")
        try:
            message = ClientFrame.FromString(frame)
        except DecodeError as error:
            raise FrameError("That is no ClientFrame.") from error
        size = message.ByteSize()
        message.DiscardUnknownFields()
        if message.ByteSize() != size:
            raise FrameError("The frame has a field that the contract doesn't.")
        return message

    def encode(self, response: bytes) -> bytes:
        """Pass the engine's bytes on."""
        return response


class JsonCodec:
    """Text frames: canonical proto3 JSON."""

    subprotocol = "runwire.v1.json"
    is_text = True

    def __init__(self) -> None:
        self._encode = encoder(RunResponse.DESCRIPTOR)

    def decode(self, frame: str | bytes) -> ClientFrame:
        """Read a browser's frame."""
        if isinstance(frame, bytes):
            raise FrameError("A binary frame came where text was agreed on.")
        try:
            document = orjson.loads(frame)
        except orjson.JSONDecodeError as error:
            raise FrameError("That is no JSON.") from error
        if not isinstance(document, dict):  # json_format takes [] for an empty message
            raise FrameError("A frame is a JSON object.")
        if _is_deep(document):
            raise FrameError(f"That is nested more than {MAX_DEPTH} levels deep.")
        try:
            return json_format.Parse(frame, ClientFrame())
        except json_format.ParseError as error:
            raise FrameError(f"That is no ClientFrame as proto3 JSON: {error}") from error
        except ValueError as error:
            raise FrameError("That is no ClientFrame as proto3 JSON.") from error

    def encode(self, response: bytes) -> bytes:
        """Write the engine's bytes as JSON."""
        return orjson.dumps(self._encode(RunResponse.FromString(response)))


CODECS: tuple[Codec, ...] = (JsonCodec(), ProtoCodec())


def _is_deep(document: Any) -> bool:
    """Tell whether a document has too many levels, without a stack that could end."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for values in inner for each in values if isinstance(each, dict | list)]
        if not level:
            return False
    return True
