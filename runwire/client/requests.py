"""What a client asks, as the contract has it."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from runwire.v1 import engine_pb2 as pb
from runwire.v1 import events_pb2

Verdict = Literal["accepted", "declined"]
Said = tuple[Literal["user", "assistant"], str]
"""Who said something before, and what."""

ROLES = {"user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
OUTCOMES = {"accepted": events_pb2.INPUT_OUTCOME_ACCEPTED, "declined": events_pb2.INPUT_OUTCOME_DECLINED}


class RunOptions(TypedDict, total=False):
    """What may be said of a run, besides its agent and its input."""

    thread_id: str
    run_id: str
    """A UUID. One is made otherwise."""
    history: Iterable[Said]
    parameters: Mapping[str, Any]
    resume_window: float
    """Seconds that the run outlives a lost connection. Without it, the run ends with its connection."""


def run(
    agent: str,
    input: str,
    *,
    thread_id: str = "",
    run_id: str = "",
    history: Iterable[Said] = (),
    parameters: Mapping[str, Any] | None = None,
    resume_window: float = 0.0,
) -> pb.RunRequest:
    """Ask for a run."""
    request = pb.RunRequest(agent=agent, input=input, thread_id=thread_id, run_id=run_id)
    for role, text in history:
        request.history.add(role=ROLES[role], text=text)
    if parameters:
        request.parameters.update(dict(parameters))
    if resume_window:
        request.resume_window.FromNanoseconds(int(resume_window * 1e9))
    return request


def answer(run_id: str, request_id: str, content: Mapping[str, Any] | None, outcome: Verdict) -> pb.AnswerRequest:
    """Answer a question."""
    request = pb.AnswerRequest(run_id=run_id, request_id=request_id, outcome=OUTCOMES[outcome])
    if content:
        request.content.update(dict(content))
    return request
