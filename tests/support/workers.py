"""Workers whose every word is the test's: the runs' side of the engine, without a process."""

import asyncio

from runwire.v1 import events_pb2 as pb

from engine_service.wire import ANSWER, ASKED, EVENT, LAST, NOTE, WAITING, Work, frame
from engine_service.workers import WELL, WorkerError


def work(user_id: str = "alice", run_id: str = "1", agent: str = "root") -> Work:
    return Work(run_id=run_id, user_id=user_id, agent=agent)


class HandWorker:
    """A worker by hand: says what it is told to say, and ends as it is told to end."""

    pid = 0

    def __init__(self, work: Work) -> None:
        self.work = work
        self.graces: list[float] = []
        """With how much grace it was told to stop, each time."""
        self.closed = 0
        self.told: list[pb.InputAnswered] = []
        """How its questions were settled."""
        self.saved: list[int] = []
        """Which of its checkpoints are saved."""
        self.how = WELL
        self.may_close = asyncio.Event()
        self.may_close.set()
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._seq = 0

    def say(self, text: str = "x") -> None:
        """Say one event."""
        self._seq += 1
        event = pb.Event(seq=self._seq, agent=self.work.agent, agent_message=pb.AgentMessage(delta=text))
        self.write(frame(EVENT, event.SerializeToString()))

    def end(self) -> None:
        """Say the terminal event."""
        self._seq += 1
        event = pb.Event(seq=self._seq, agent=self.work.agent, agent_completed=pb.AgentCompleted(output="done"))
        self.write(frame(LAST, event.SerializeToString()))

    def note(self, text: str) -> None:
        self.write(frame(NOTE, text.encode()))

    def write(self, data: bytes) -> None:
        self._said.put_nowait(data)

    def fall_silent(self) -> None:
        """Close the channel."""
        self._said.put_nowait(b"")

    async def read(self) -> bytes:
        return await self._said.get()

    def tell(self, tag: int, body: bytes) -> None:
        if tag == ANSWER:
            self.told.append(pb.InputAnswered.FromString(body))
        else:
            self.saved.append(int(body))

    def ask(self, request_id: str, seconds: float = 60.0) -> None:
        """Ask something."""
        self._seq += 1
        event = pb.Event(seq=self._seq, agent=self.work.agent)
        event.time.FromNanoseconds(10**18)
        event.input_requested.request_id = request_id
        event.input_requested.expires_at.FromNanoseconds(10**18 + int(seconds * 10**9))
        self.write(frame(ASKED, event.SerializeToString()))

    def wait(self, is_waiting: bool) -> None:  # noqa: FBT001 - it is what it says
        """Say whether it does nothing but wait."""
        self.write(frame(WAITING, b"\1" if is_waiting else b""))

    def stop(self, grace: float) -> None:
        self.graces.append(grace)
        self.fall_silent()

    async def close(self) -> str:
        self.closed += 1
        await self.may_close.wait()
        return self.how


class HandWorkers:
    """Gives each run a worker by hand."""

    def __init__(self) -> None:
        self.given: list[HandWorker] = []
        self.is_out = False
        """Whether there are none to be had."""
        self.may_start = asyncio.Event()
        self.may_start.set()

    async def start(self, work: Work) -> HandWorker:
        await self.may_start.wait()
        if self.is_out:
            raise WorkerError("there are none")
        self.given.append(HandWorker(work))
        return self.given[-1]
