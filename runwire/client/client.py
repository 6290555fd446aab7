"""What a service that runs agents holds: its engines, and who it is to them."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self, TypedDict, Unpack

import grpc
from runwire.v1 import engine_pb2 as pb

from runwire.client import events, requests
from runwire.client.engines import Engines, Token
from runwire.client.events import AgentInfo, RunInfo
from runwire.client.position import PATIENCE, Position
from runwire.client.requests import RunOptions, Verdict
from runwire.client.run import Run


class ClientOptions(TypedDict, total=False):
    """What may be said of a client, besides its engines."""

    token: Token
    """Says who calls: a string, or a function that gives one, async or not."""
    tls: grpc.ChannelCredentials | bool
    """Credentials as `grpc.ssl_channel_credentials` makes them, or True for what this machine trusts."""
    silence: float
    """Seconds without a message until a connection is taken for lost: 60, or more where heartbeats are rare."""


class Client:
    """Runs agents. Many runs share one client, which belongs to one event loop.

    `engines` are addresses, `HOST:PORT`: comma-separated, or a sequence.
    """

    def __init__(self, engines: str | Sequence[str] = "127.0.0.1:50051", **options: Unpack[ClientOptions]) -> None:
        named = [each.strip() for each in (engines.split(",") if isinstance(engines, str) else engines)]
        if not all(named) or not named:
            raise ValueError(f"{engines!r} are no addresses of engines: they are HOST:PORT, comma-separated")
        tls = options.get("tls", False)
        credentials = grpc.ssl_channel_credentials() if tls is True else tls or None
        self._engines = Engines(named, credentials, options.get("token"))
        self._silence = options.get("silence")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def acting_for(self, user: str) -> Self:
        """Return a client whose runs are a user's: for a service whose token lets it act for others.

        It shares this one's connections, and ends with it.
        """
        acting = copy(self)
        acting._engines = self._engines.acting_for(user)  # noqa: SLF001 - our own kind
        return acting

    async def close(self) -> None:
        """End what is under way. Runs with a `resume_window` go on for so long."""
        await self._engines.close()

    def run(self, agent: str, input: str = "", **options: Unpack[RunOptions]) -> Run:
        """Run an agent. With a `resume_window` the run outlives lost connections, and is joined again."""
        asked = requests.run(agent, input, **options)
        position = Position(asked.run_id, window=options.get("resume_window", 0.0))
        asked.run_id = position.run_id
        return Run(self._engines, asked, position, self._silence)

    def resume(self, run_id: str, after_seq: int = 0) -> Run:
        """Join a run again that was begun with a `resume_window`, after the last event that was seen."""
        position = Position(run_id, window=PATIENCE, seq=after_seq, begun=True)
        return Run(self._engines, pb.RunRequest(), position, self._silence)

    async def answer(
        self, run_id: str, request_id: str, content: Mapping[str, Any] | None = None, *, outcome: Verdict = "accepted"
    ) -> None:
        """Answer a question of a run, whoever follows it. Said twice, it is taken once. Raises RefusedError."""
        await self._engines.ask("Answer", requests.answer(run_id, request_id, content, outcome))

    async def cancel(self, run_id: str) -> None:
        """Stop a run, whoever follows it. Raises RefusedError."""
        await self._engines.ask("Cancel", pb.CancelRequest(run_id=run_id))

    async def agents(self) -> list[AgentInfo]:
        """List the agents there are. Raises RefusedError."""
        return events.agents(await self._engines.ask("ListAgents", pb.ListAgentsRequest()))

    async def runs(self) -> list[RunInfo]:
        """List one's own runs, newest first: those that go on, and those that can be read. Raises RefusedError."""
        return events.runs(await self._engines.ask("ListRuns", pb.ListRunsRequest(), everywhere=True))
