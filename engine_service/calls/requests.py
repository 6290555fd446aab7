"""What a caller may ask: requests, checked, to work."""

import asyncio
import math
import re
import uuid
from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from runwire.v1 import engine_pb2 as pb

from engine_service.runs.refusal import invalid
from engine_service.schema import ParametersSchema
from engine_service.wire import MAX_QUESTION, Work
from runwire import structs
from runwire.service.values import Field, ValuesError, count, fields, shape_of

MAX_THREAD_ID = 256
MAX_TEXT = 1024 * 1024
MAX_MESSAGES = 10_000
MAX_PARAMETERS = 256 * 1024
PIECE = 1_000
"""Fields, and messages, that are looked at at once."""
ROOM = 64
"""Bytes that a message of the history may have beside its text."""
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NO_UUID = "must be a UUID, like 123e4567-e89b-42d3-a456-426614174000"
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
HISTORY, PARAMETERS = (pb.RunRequest.DESCRIPTOR.fields_by_name[name].number for name in ("history", "parameters"))
STRUCT, ANSWER = shape_of(Struct.DESCRIPTOR), shape_of(pb.AnswerRequest.DESCRIPTOR)


class Asked(NamedTuple):
    """What was asked. What may be much stays as it came, too: whoever uses it decodes it, beside the agent."""

    request: pb.RunRequest
    history: bytes
    parameters: bytes


async def read(data: bytes) -> Asked:
    """Read a RunRequest as it came, but for what its parameters hold. What that costs is bounded, whatever came.

    Raises INVALID_ARGUMENT.
    """
    said: list[bytes] = []
    parameters: list[Field] = []
    try:
        for number, field in enumerate(fields(data), 1):
            if field.number == HISTORY:
                said.append(data[field.begin : field.end])
            elif field.number == PARAMETERS:
                parameters.append(field)
            if number % PIECE == 0:
                await asyncio.sleep(0)
        history = b"".join(said)
        if len(history) > MAX_TEXT + ROOM * MAX_MESSAGES:
            raise invalid({"history": f"must be at most {MAX_TEXT} bytes all together"})
        request = pb.RunRequest.FromString(_without(data, parameters))
    except ValuesError as error:
        raise invalid({"request": str(error)}) from error
    except DecodeError as error:
        raise invalid({"request": "cannot be read as a RunRequest"}) from error
    # Where a message comes in pieces, they are one when they are laid end to end.
    return Asked(request, history, b"".join(data[field.content : field.end] for field in parameters))


async def read_answer(data: bytes) -> pb.AnswerRequest:
    """Read an AnswerRequest as it came. Raises INVALID_ARGUMENT."""
    if len(data) > MAX_QUESTION:
        raise invalid({"content": f"must be at most {MAX_QUESTION} bytes"})
    try:
        await count(data, ANSWER)
        return pb.AnswerRequest.FromString(data)
    except ValuesError as error:
        raise invalid({"content": str(error)}) from error
    except DecodeError as error:
        raise invalid({"request": "cannot be read as an AnswerRequest"}) from error


async def work_of(
    asked: Asked, user_id: str, max_resume_window: float = math.inf, schema: ParametersSchema | None = None
) -> Work:
    """Check what was asked, and return what is to be done. Raises INVALID_ARGUMENT, naming all that is wrong."""
    request = asked.request
    violations = _violations(request, max_resume_window)
    violations |= await _wrong_history(request)
    violations |= await _wrong_parameters(asked, schema)
    if violations:
        raise invalid(violations)
    return Work(
        run_id=request.run_id.lower() or str(uuid.uuid4()),
        user_id=user_id,
        agent=request.agent,
        input=request.input,
        thread_id=request.thread_id,
        history=asked.history,
        parameters=asked.parameters,
    )


def trace_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the trace that a call is part of, as W3C writes it; nothing if it has none that can be read."""
    found = TRACEPARENT.match(str(dict(metadata).get("traceparent", "")))
    return found[0] if found else ""


def window_of(request: pb.RunRequest) -> float:
    """Return for how many seconds a run is to outlive its caller."""
    return request.resume_window.seconds + request.resume_window.nanos / 1e9


def checked_run_id(run_id: str) -> str:
    """Check a run id that has to be there."""
    if not UUID.fullmatch(run_id.lower()):
        raise invalid({"run_id": NO_UUID})
    return run_id.lower()


def _without(data: bytes, fields: list[Field]) -> bytes:
    begins = [0, *(field.end for field in fields)]
    ends = [*(field.begin for field in fields), len(data)]
    return b"".join(data[begin:end] for begin, end in zip(begins, ends, strict=True)) if fields else data


async def _wrong_history(request: pb.RunRequest) -> dict[str, str]:
    """Say what is wrong with the history, if anything is."""
    size, roles = 0, set[int]()
    for begin in range(0, len(request.history), PIECE):
        messages = request.history[begin : begin + PIECE]
        size += sum(_size(message.text) for message in messages)
        roles |= {message.role for message in messages}
        await asyncio.sleep(0)
    violations: dict[str, str] = {}
    if size > MAX_TEXT or len(request.history) > MAX_MESSAGES:
        violations["history"] = f"must be at most {MAX_TEXT} bytes all together, in at most {MAX_MESSAGES} messages"
    if not roles <= {pb.ROLE_USER, pb.ROLE_ASSISTANT}:
        violations["history.role"] = "must be ROLE_USER or ROLE_ASSISTANT in every message"
    return violations


async def _wrong_parameters(asked: Asked, schema: ParametersSchema | None) -> dict[str, str]:
    """Say what is wrong with the parameters, if anything is."""
    if len(asked.parameters) > MAX_PARAMETERS:
        return {"parameters": f"must be at most {MAX_PARAMETERS} bytes"}
    try:
        await count(asked.parameters, STRUCT, before=len(asked.request.history))
        parameters = Struct.FromString(asked.parameters)  # so that it can be read where it is used
    except ValuesError as error:
        return {"parameters": str(error)}
    except DecodeError:
        return {"parameters": "cannot be read"}
    violations = schema.violations(structs.struct(parameters)) if schema else {}
    return {f"parameters.{name}": sentence for name, sentence in violations.items()}


def _violations(request: pb.RunRequest, max_resume_window: float) -> dict[str, str]:
    checks = {
        "run_id": (
            bool(request.run_id) and not UUID.fullmatch(request.run_id.lower()),
            NO_UUID,
        ),
        "thread_id": (_size(request.thread_id) > MAX_THREAD_ID, f"must be at most {MAX_THREAD_ID} bytes"),
        "input": (_size(request.input) > MAX_TEXT, f"must be at most {MAX_TEXT} bytes"),
        "resume_window": (
            not 0 <= window_of(request) <= max_resume_window,
            f"must be between 0 and {max_resume_window:g} seconds",
        ),
    }
    return {field: description for field, (wrong, description) in checks.items() if wrong}


def _size(string: str) -> int:
    return len(string.encode())
