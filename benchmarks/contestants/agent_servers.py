"""Agent servers that people would use instead, each with the smallest agent that streams message deltas."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass

Request = tuple[str, str, bytes]


@dataclass(frozen=True)
class AgentServer:
    """How one of them is started, and asked."""

    name: str
    venv: str
    command: Callable[[int], list[str]]  # of a port; a program of the venv's, and its arguments
    folder: str  # in this one, to start it in
    env: dict[str, str]
    ready: str  # a path that answers GET once it serves
    prepare: Callable[[str], list[Request]]  # of a message: method, path and JSON; the last one streams
    mark: bytes  # is in a response once for each delta, and nowhere else


def adk(text: str) -> list[Request]:
    """Create a session, and run the agent in it."""
    session = uuid.uuid4().hex
    run = {
        "appName": "deltas",
        "userId": "u",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": text}]},
        "streaming": True,
    }
    return [
        ("POST", f"/apps/deltas/users/u/sessions/{session}", b"{}"),
        ("POST", "/run_sse", json.dumps(run).encode()),
    ]


def pydantic_ai(text: str) -> list[Request]:
    """Run the agent in a new thread, as AG-UI says it."""
    run = {
        "threadId": uuid.uuid4().hex,
        "runId": uuid.uuid4().hex,
        "messages": [{"id": "1", "role": "user", "content": text}],
        "state": None,
        "tools": [],
        "context": [],
        "forwardedProps": None,
    }
    return [("POST", "/", json.dumps(run).encode())]


def langgraph(text: str) -> list[Request]:
    """Run the graph once, without a thread of its own."""
    run = {"assistant_id": "deltas", "input": {"text": text}, "stream_mode": "custom", "on_disconnect": "cancel"}
    return [("POST", "/runs/stream", json.dumps(run).encode())]


AGENT_SERVERS = [
    AgentServer(
        name="google-adk api_server",
        venv=".venv-adk",
        command=lambda port: [
            *("adk", "api_server", "--host=127.0.0.1", f"--port={port}", "--log_level=error"),
            *("--no-reload", "--no_use_local_storage", "."),
        ],
        folder="adk",
        env={"OTEL_SDK_DISABLED": "true", "ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS": "false"},
        ready="/health",
        prepare=adk,
        mark=b" of many",
    ),
    AgentServer(
        name="pydantic-ai, AG-UI",
        venv=".venv-pydantic",
        command=lambda port: ["uvicorn", "app:app", "--host=127.0.0.1", f"--port={port}", "--log-level=error"],
        folder="pydantic",
        env={"OTEL_SDK_DISABLED": "true"},
        ready="/",
        prepare=pydantic_ai,
        mark=b" of many",
    ),
    AgentServer(
        name="langgraph dev",
        venv=".venv-langgraph",
        command=lambda port: [
            *("langgraph", "dev", "--host=127.0.0.1", f"--port={port}", "--server-log-level=error"),
            *("--no-browser", "--no-reload", "--n-jobs-per-worker=1000"),  # one run at a time unless told
        ],
        folder="langgraph",
        env={
            "LANGGRAPH_CLI_NO_ANALYTICS": "1",
            "LANGGRAPH_NO_VERSION_CHECK": "true",
            "LANGSMITH_TRACING": "false",
            "LOG_LEVEL": "ERROR",
            "OTEL_SDK_DISABLED": "true",
        },
        ready="/ok",
        prepare=langgraph,
        mark=b" of many",
    ),
]
