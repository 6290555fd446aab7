"""What a caller may ask: requests, checked, to work."""

import datetime
import math
import re
import uuid
from collections.abc import Iterable

from google.protobuf.json_format import MessageToDict
from runwire.v1 import engine_pb2 as pb

from engine_service.agent import Message, Work
from engine_service.refusal import invalid

MAX_THREAD_ID = 256
MAX_TEXT = 1024 * 1024
MAX_MESSAGES = 10_000
MAX_PARAMETERS = 256 * 1024
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NO_UUID = "must be a UUID, like 123e4567-e89b-42d3-a456-426614174000"
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
ROLES = {pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}


def work_of(
    request: pb.RunRequest,
    user_id: str,
    deadline: datetime.datetime | None = None,
    trace_id: str = "",
    max_resume_window: float = math.inf,
) -> Work:
    """Check a request, and return what is to be done. Raises INVALID_ARGUMENT, naming every field that is wrong."""
    if violations := _violations(request, max_resume_window):
        raise invalid(violations)
    try:
        parameters = MessageToDict(request.parameters)
    except ValueError as error:
        raise invalid({"parameters": "must hold no number that JSON has no word for"}) from error
    return Work(
        run_id=request.run_id.lower() or str(uuid.uuid4()),
        user_id=user_id,
        agent=request.agent,
        input=request.input,
        thread_id=request.thread_id,
        history=tuple(Message(ROLES[message.role], message.text) for message in request.history),  # type: ignore[arg-type]
        parameters=parameters,
        deadline=deadline,
        trace_id=trace_id,
    )


def trace_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the trace that a call is part of, by its W3C traceparent; nothing if it has none that can be read."""
    parent = str(dict(metadata).get("traceparent", ""))
    found = TRACEPARENT.fullmatch(parent)
    return found[1] if found else ""


def window_of(request: pb.RunRequest) -> float:
    """Return for how many seconds a run is to outlive its caller."""
    return request.resume_window.seconds + request.resume_window.nanos / 1e9


def checked_run_id(run_id: str) -> str:
    """Check a run id that has to be there."""
    if not UUID.fullmatch(run_id.lower()):
        raise invalid({"run_id": NO_UUID})
    return run_id.lower()


def _violations(request: pb.RunRequest, max_resume_window: float) -> dict[str, str]:
    checks = {
        "run_id": (
            bool(request.run_id) and not UUID.fullmatch(request.run_id.lower()),
            NO_UUID,
        ),
        "thread_id": (_size(request.thread_id) > MAX_THREAD_ID, f"must be at most {MAX_THREAD_ID} bytes"),
        "input": (_size(request.input) > MAX_TEXT, f"must be at most {MAX_TEXT} bytes"),
        "history": (
            len(request.history) > MAX_MESSAGES or sum(_size(message.text) for message in request.history) > MAX_TEXT,
            f"must be at most {MAX_TEXT} bytes all together, in at most {MAX_MESSAGES} messages",
        ),
        "history.role": (
            any(message.role not in ROLES for message in request.history[:MAX_MESSAGES]),
            "must be ROLE_USER or ROLE_ASSISTANT in every message",
        ),
        "parameters": (request.parameters.ByteSize() > MAX_PARAMETERS, f"must be at most {MAX_PARAMETERS} bytes"),
        "resume_window": (
            not 0 <= window_of(request) <= max_resume_window,
            f"must be between 0 and {max_resume_window:g} seconds",
        ),
    }
    return {field: description for field, (wrong, description) in checks.items() if wrong}


def _size(string: str) -> int:
    return len(string.encode())
