"""What agents prepare before their runs' processes are forked, and what must not get there."""

import asyncio
import socket
from pathlib import Path

import pytest
from runwire.v1.engine_pb2 import ListAgentsRequest

from engine_service import Agent, RunContext
from engine_service.runtime import leftovers
from engine_service.runtime.warm_up import rehearsed, who_warms_up
from tests.support.clients import caller, terminal
from tests.support.services import engine as start_engine


async def test_it_is_called_once_before_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all agents that have it from one class; what it leaves open is closed, named, and of no use to a run."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        monkeypatch.setenv("WARM_UP_CONNECTS_TO", str(port))
        with start_engine(agents="tests.agents.warmed") as service:
            async with caller(service.address) as alice:
                for agent in ("one", "other"):
                    answer = terminal(await alice.run(agent)).agent_completed.output
                    assert answer == "Base True BrokenPipeError"
            [warned] = [record for record in service.records if "left connections open" in record.get("event", "")]
            assert warned["left"] == [f"Base: a connection to 127.0.0.1:{port}"]
        ours, _ = listening.accept()
        with ours:
            assert ours.recv(100) == b""  # nobody has it any more, and nothing was said


async def test_the_setting_says_where_agents_run_that_do_not() -> None:
    """With ISOLATION=task they are tasks, and nothing warms up: nothing is forked. An agent's own word goes first."""
    with start_engine(agents="tests.agents.warmed,tests.agents.apart", ISOLATION="task") as service:
        async with caller(service.address) as alice:
            listed = await alice.stub.ListAgents(ListAgentsRequest(), metadata=alice.metadata)
            isolations = {agent.name: agent.isolation for agent in listed.agents}
            assert (isolations["one"], isolations["apart"]) == ("task", "process")
            failed = terminal(await alice.run("one")).agent_failed
            assert failed.message  # there is no process that warmed up


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("warm_fails", "Cold.warm_up failed: FileNotFoundError: no such index"),
        ("warm_hangs", "the agent 'Endless' is still not warmed up after 2 seconds"),
    ],
)
async def test_what_cannot_warm_up_stops_the_boot(module: str, says: str) -> None:
    """It does so with a line that names it."""
    with start_engine(agents=f"tests.agents.{module}", IMPORT_TIMEOUT="2") as service:
        assert await asyncio.to_thread(service.wait) == 2
        [line] = service.lines
        assert says in line


class Base(Agent):
    @classmethod
    async def warm_up(cls) -> None: ...

    async def run(self, context: RunContext, input: str) -> str:
        await context.say(input)
        return f"{input}!"


class One(Base): ...


class Two(Base):
    @classmethod
    async def warm_up(cls) -> None: ...


class Three(Agent):
    async def run(self, context: RunContext, input: str) -> str:
        return ""


def test_who_warms_up() -> None:
    """Each class that says how, once."""
    assert who_warms_up([One, Two, One, Three, Base]) == (Base, Two)


async def test_a_rehearsed_run() -> None:
    """It is a run, whose events go nowhere."""
    assert await rehearsed(One, "hello") == "hello!"


def test_a_socket_that_leads_nowhere(tmp_path: Path) -> None:
    """Whoever holds it finds that the other side has hung up; its number stays taken."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "here"))
        listening.listen()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "here"))
            theirs, _ = listening.accept()
            with theirs:
                assert connection.fileno() in leftovers.sockets()
                assert leftovers.close(connection.fileno()) == "a connection"
                assert theirs.recv(1) == b""
                assert connection.recv(1) == b""
                with pytest.raises(BrokenPipeError):
                    connection.sendall(b"?")
