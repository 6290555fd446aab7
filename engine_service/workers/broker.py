"""The broker, as the engine sees it: a process of its own, and a successor when it dies."""

import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import structlog
from runwire.v1.events_pb2 import ModelCalled, Usage

from engine_service.broker.messages import (
    CODEC,
    MAX_MESSAGE,
    Called,
    Grant,
    Leave,
    Left,
    Listen,
    Noted,
    Refused,
    Revoke,
    Said,
    Serve,
    Serving,
)
from engine_service.wire import CALLED, NANOSECONDS, Work
from engine_service.workers import Worker
from engine_service.workers.helper import Helper, HelperError
from runwire.service.rates import Rates

BOOT = 30.0
"""Seconds that the broker may take until it serves."""
FEW = 6
"""Failures of a model's server that are told in a minute."""
FAILURES = {"unreachable", "timeout", "key", "redirect"}
BACKLOG = 1024

Spend = Callable[[str, int], Awaitable[int | None]]
"""Counts tokens that somebody used, and returns what they may still use today; None for as many as they like."""


class BrokerError(HelperError):
    """The broker cannot be had. The message says what to do."""


@dataclass
class Known:
    """A run that calls models."""

    grant: Grant
    run_id: str
    user_id: str
    worker: Worker | None = None
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter[str])


class BrokerProcess:
    """Starts the broker, tells it of runs, and tells runs of their calls."""

    def __init__(self, serve: Serve, spend: Spend) -> None:
        self._serve = serve
        self._spend = spend
        self._log = structlog.get_logger()
        self._runs: dict[str, Known] = {}
        self._doors: dict[int, socket.socket] = {}
        self._count = 0
        self._failures = Rates(FEW)
        self._helper = Helper("broker", "engine_service.broker", max_message=MAX_MESSAGE, on_message=self._hear)
        self.address = ""
        """Where it listens for runs that are in no jail."""

    async def begin(self) -> None:
        """Start it. Raises BrokerError."""
        door = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.address = f"127.0.0.1:{door.getsockname()[1]}"
        try:
            await self._start()
        except BaseException:
            door.close()
            raise
        self.listen(door)

    async def close(self) -> None:
        """End it."""
        await self._helper.close()
        for door in self._doors.values():
            door.close()

    async def grant(self, work: Work) -> str:
        """Return a token for a run that is about to begin."""
        token = secrets.token_urlsafe(32)
        spent = _tokens(work.recovery.usage) if work.recovery else 0
        left = await self._spend(work.pays, 0)
        grant = Grant(token, work.run_id, spent, left, work.pays)
        self._runs[token] = Known(grant, work.run_id, work.user_id)
        self._say(grant)
        return token

    def follow(self, token: str, worker: Worker) -> None:
        """Learn where the run happens: it hears of its calls."""
        if run := self._runs.get(token):
            run.worker = worker

    def revoke(self, token: str) -> None:
        """Let a token be worth nothing, since its run has ended."""
        if run := self._runs.pop(token, None):
            self._say(Revoke(token))
            if run.calls or run.refused:
                self._log.info(
                    "models called",
                    run_id=run.run_id,
                    user_id=run.user_id,
                    calls=run.calls,
                    tokens=run.tokens,
                    seconds=round(run.seconds, 3),
                    refused=dict(run.refused),
                )

    def listen(self, door: socket.socket) -> Callable[[], None]:
        """Take calls there, too, and return what ends that: runs of before may be at other doors."""
        self._count += 1
        number = self._count
        self._doors[number] = door
        self._say(Listen(number), door.fileno())

        def leave() -> None:
            if closed := self._doors.pop(number, None):
                closed.close()
                self._say(Leave(number))

        return leave

    async def _start(self) -> None:
        try:
            await self._helper.start(CODEC.written(self._serve), BOOT, _accept)
        except HelperError as error:
            raise BrokerError(
                f"the broker, which calls model servers for runs, does not start: {error}; its output is above"
            ) from error
        for number, door in self._doors.items():
            self._say(Listen(number), door.fileno())
        for run in self._runs.values():
            self._say(replace(run.grant, spent=run.grant.spent + run.tokens))

    def _hear(self, data: bytes) -> None:
        if not data:
            self._helper.keep_starting(self._start)
            return
        match CODEC.read(data):
            case Called() as called:
                self._on_called(called)
            case Refused() as refused:
                self._on_refused(refused)
            case _:
                pass

    def _on_refused(self, refused: Refused) -> None:
        """Count it, and tell an operator of what is theirs to mend; not of each time."""
        if run := self._runs.get(refused.token):
            run.refused[refused.code] += 1
        if refused.code in FAILURES and not self._failures.take(refused.upstream):
            self._log.warning("a model's server failed", upstream=refused.upstream, why=refused.message)

    def _on_called(self, called: Called) -> None:
        """Tell the run of its call, and then let the call's answer end."""
        if run := self._runs.get(called.token):
            tokens = called.input_tokens + called.output_tokens
            run.calls += 1
            run.tokens += tokens
            run.seconds += called.elapsed
            if run.worker:
                run.worker.tell(CALLED, _told(called))
        self._helper.keep(self._count_for(called.pays, called.input_tokens + called.output_tokens))
        self._say(Noted(called.number))

    async def _count_for(self, pays: str, tokens: int) -> None:
        left = await self._spend(pays, tokens)
        if left is not None:
            self._say(Left(pays, left))

    def _say(self, message: Said, *descriptors: int) -> None:
        """Say it; not to one that is dead: its successor is told of all that there is."""
        self._helper.say(CODEC.written(message), *descriptors)


def _accept(answer: bytes) -> None:
    if not isinstance(CODEC.read(answer), Serving):
        raise HelperError("it says what nobody asked for")


def _tokens(usage: bytes) -> int:
    """Return how many tokens the attempts before have used."""
    return sum(model.input_tokens + model.output_tokens for model in Usage.FromString(usage).models)


def _told(called: Called) -> bytes:
    """Write what a call took, for its run."""
    told = ModelCalled(
        model=called.model or called.upstream,
        input_tokens=called.input_tokens,
        output_tokens=called.output_tokens,
        cached_input_tokens=called.cached_input_tokens,
    )
    told.elapsed.FromNanoseconds(int(called.elapsed * NANOSECONDS))
    if called.to_first_word is not None:
        told.to_first_word.FromNanoseconds(int(called.to_first_word * NANOSECONDS))
    return told.SerializeToString()
