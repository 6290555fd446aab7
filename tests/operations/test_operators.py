"""What operators see of runs, and do to them; and that nobody else does."""

import asyncio
import json
import os
import pty
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import jwt
import pytest
from google.protobuf.duration_pb2 import Duration
from runwire.operations.v1 import operations_pb2 as pb
from runwire.operations.v1.operations_pb2_grpc import OperationsServiceStub

from tests.support.clients import Caller, caller, kind, taken, terminal
from tests.support.services import BIN, Service, until
from tests.support.services import engine as start_engine
from tests.support.times import PATIENCE
from tests.support.valkey import valkey

pytestmark = pytest.mark.operations
AGENTS = "tests.agents.probes,tests.agents.asking,tests.agents.tasks,tests.agents.savers"
WINDOW = Duration(seconds=60)
SECRET = "a secret that is long enough for HS256 to be worth something"
NO_OPERATOR = "You are no operator of this engine."


@pytest.fixture(scope="module")
def engine() -> Iterator[Service]:
    with start_engine(agents=AGENTS, RESUME_BUFFER="64KiB") as service:
        yield service


@pytest.fixture
async def back(engine: Service) -> AsyncIterator[Service]:
    """Have an engine that has nothing to do."""
    yield engine
    async with operator(engine) as op:
        for run_id in await op.runs():
            await op.stop(run_id=run_id)
        await op.empty()


class Operator:
    """Who operates an engine, or says so."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: Any = OperationsServiceStub(channel)
        self._options = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": PATIENCE}

    async def runs(self, **which: str) -> dict[str, pb.RunStatus]:
        listed = await self._stub.ListRuns(pb.ListRunsRequest(**which), **self._options)
        return {run.run_id: run for run in listed.runs}

    async def stop(self, **which: str) -> list[str]:
        return list((await self._stub.StopRuns(pb.StopRunsRequest(**which), **self._options)).run_ids)

    async def empty(self) -> None:
        """Wait until nothing runs."""
        async with asyncio.timeout(PATIENCE):
            while await self.runs():  # noqa: ASYNC110 - it is elsewhere
                await asyncio.sleep(0.02)

    async def until(self, run_id: str, **so: Any) -> pb.RunStatus:
        """Wait until something is so of a run."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = (await self.runs()).get(run_id)
                if found and all(getattr(found, name) == value for name, value in so.items()):
                    return found
                await asyncio.sleep(0.02)


@asynccontextmanager
async def operator(service: Service, token: str = "dev:operator") -> AsyncIterator[Operator]:
    async with grpc.aio.insecure_channel(service.admin) as channel:
        yield Operator(channel, token)


async def begun(user: Caller, agent: str, upto: int = 2, **fields: Any) -> tuple[str, Any]:
    """Begin a run, and return its id and its call."""
    run_id = str(uuid.uuid4())
    call = user.call(agent, run_id=run_id, **fields)
    await taken(call, upto)
    return run_id, call


async def test_what_runs(back: Service) -> None:
    """Who runs what since when, in which engine, waiting for what, with how much memory and time."""
    async with caller(back.address, "ann") as ann, caller(back.address, "ben") as ben, operator(back) as op:
        before = time.time()
        waiter, first = await begun(ann, "waiter", thread_id="a thread")
        asker, second = await begun(ben, "asker", input="Which?", resume_window=WINDOW)
        payer, third = await begun(ben, "payer")
        busy, fourth = await begun(ben, "busy", upto=1, input="0.5")
        task, fifth = await begun(ann, "task_waiter")
        await op.until(asker, waiting=pb.WAITING_USER)
        await op.until(payer, waiting=pb.WAITING_USER, tool="pay")
        found = await op.runs()
        assert list(found)[:3] == [waiter, asker, payer]
        assert (found[waiter].user_id, found[waiter].agent, found[waiter].thread_id) == ("ann", "waiter", "a thread")
        assert before - 1 < found[waiter].started.ToNanoseconds() / 1e9 < time.time() + 1
        assert found[waiter].last_seq == 2
        assert found[waiter].waiting == pb.WAITING_UNSPECIFIED
        assert (found[waiter].is_resumable, found[waiter].is_read) == (False, True)
        assert (found[asker].is_resumable, found[asker].is_read) == (True, True)
        assert found[asker].tool == ""
        assert 100_000 < found[waiter].memory_bytes < 100_000_000
        assert (found[task].memory_bytes, found[task].HasField("processor_time")) == (0, False)
        if busy in found:
            assert found[busy].HasField("processor_time")
        assert set(await op.runs(user_id="ann")) == {waiter, task}
        assert set(await op.runs(agent="payer")) == {payer}
        assert await op.runs(user_id="ann", agent="payer") == {}
        second.cancel()
        await op.until(asker, is_read=False)
        for call in (first, third, fourth, fifth):
            call.cancel()
        assert await op.stop(run_id=asker) == [asker]
    async with operator(back) as op:
        await op.empty()


async def test_one_whose_reader_does_not_read(back: Service) -> None:
    async with caller(back.address, "ann") as ann, operator(back) as op:
        run_id, call = await begun(ann, "flood", resume_window=WINDOW)
        await op.until(run_id, waiting=pb.WAITING_READER)
        call.cancel()
        assert await op.stop(user_id="ann") == [run_id]


@pytest.mark.parametrize("which", ["run_id", "user_id", "agent"])
@pytest.mark.parametrize("lasting", [False, True])
async def test_stopping(back: Service, which: str, *, lasting: bool) -> None:
    """Those that are meant end as cancelled, with a sentence; the others go on; and it is in the log, with who did."""
    fields: dict[str, Any] = {"resume_window": WINDOW} if lasting else {}
    async with caller(back.address, "ann") as ann, caller(back.address, "ben") as ben, operator(back) as op:
        run_id, call = await begun(ann, "waiter", **fields)
        other, others_call = await begun(ben, "ticker", **fields)
        wanted = {"run_id": run_id, "user_id": "ann", "agent": "waiter"}[which]
        assert await op.stop(**{which: wanted}) == [run_id]
        *_, end = await taken(call)
        assert end.agent_cancelled.reason == "Stopped by an operator."
        said = back.wait_for(lambda record: record.get("runs") == [run_id])
        assert (said["operator"], said[which], said["many"]) == ("operator", wanted, 1)
        assert await op.stop(**{which: wanted}) == []
        assert other in await op.runs()
        others_call.cancel()
        if lasting:
            await op.stop(run_id=other)


@contextmanager
def both(store: str) -> Iterator[tuple[Service, Service]]:
    """Start two engines that share a store."""
    with start_engine(agents=AGENTS, STORE=store) as one, start_engine(agents=AGENTS, STORE=store) as two:
        yield one, two


async def test_what_is_stopped_does_not_go_on_elsewhere() -> None:
    async with asyncio.timeout(PATIENCE * 2):
        with valkey() as server, both(server.url) as (one, two):
            async with caller(one.address) as ann, operator(one) as op, operator(two) as elsewhere:
                run_id, call = await begun(ann, "dweller", upto=4, resume_window=WINDOW)
                assert run_id in await op.runs()
                assert run_id not in await elsewhere.runs()
                assert await elsewhere.stop(run_id=run_id) == []
                assert await op.stop(run_id=run_id) == [run_id]
                assert kind((await taken(call))[-1]) == "agent_cancelled"
                one.kill()
            async with caller(two.address) as ann:
                assert kind(terminal(await taken(ann.resume(run_id)))) == "agent_cancelled"


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), str(error.value.details())


async def test_nobody_else(back: Service) -> None:
    """Users see nothing of this, signed in or not, over gRPC or HTTP; and nobody stops nothing in particular."""
    async with caller(back.address, "ann") as ann:
        _, call = await begun(ann, "waiter")
        for token, code in (("dev:ann", "PERMISSION_DENIED"), ("nonsense", "UNAUTHENTICATED")):
            async with operator(back, token) as stranger:
                for attempt in (stranger.runs(), stranger.stop(user_id="ann"), stranger.stop()):
                    assert (await refused(attempt))[0].name == code
        assert http(back, None)[0] == 403  # anonymous, in development
        assert http(back, "dev:ann") == (403, f"{NO_OPERATOR}\n")
        assert http(back, "nonsense")[0] == 401
        async with operator(back) as op:
            for which in ({}, {"run_id": ""}, {"user_id": ""}, {"agent": ""}):
                assert (await refused(op.stop(**which)))[0] is grpc.StatusCode.INVALID_ARGUMENT
            assert len(await op.runs()) == 1
        call.cancel()


async def test_an_address_of_its_own(back: Service) -> None:
    """Operators' calls are not to be had where users call, nor users' where operators do."""
    async with grpc.aio.insecure_channel(back.address) as channel:
        assert (await refused(Operator(channel, "dev:operator").runs()))[0] is grpc.StatusCode.UNIMPLEMENTED
    async with caller(back.admin) as ann:
        assert (await refused(ann.run("echo")))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_an_operators_claim() -> None:
    """With real tokens an operator is who has the scope that a setting names; without that setting nobody is."""

    def token(scope: str) -> str:
        return jwt.encode({"sub": "olga", "exp": time.time() + 600, "scope": scope}, SECRET, "HS256")

    settings = {"JWT_SECRET": SECRET, "JWT_ACT_SCOPE": "act"}
    with start_engine(JWT_OPERATOR_SCOPE="runwire:operate", **settings) as back, start_engine(**settings) as without:
        async with operator(back, token("openid runwire:operate")) as olga:
            assert await olga.runs() == {}
        for service, scope in ((back, "openid"), (back, ""), (without, "runwire:operate"), (without, "None")):
            async with operator(service, token(scope)) as nobody:
                assert (await refused(nobody.runs()))[0] is grpc.StatusCode.PERMISSION_DENIED
        async with grpc.aio.insecure_channel(back.admin) as channel:
            metadata = (("authorization", f"Bearer {token('act runwire:operate')}"), ("runwire-user", "ann"))
            stub: Any = OperationsServiceStub(channel)
            code, _ = await refused(stub.ListRuns(pb.ListRunsRequest(), metadata=metadata))
            assert code is grpc.StatusCode.PERMISSION_DENIED, "who acts for a user has a user's rights"


def http(service: Service, token: str | None) -> tuple[int, str]:
    """Return what a request for the page's document gets."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://{service.operations}/v1/runs", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_the_pages_document(back: Service) -> None:
    async with caller(back.address, "ann") as ann:
        run_id, call = await begun(ann, "waiter")
        status, body = http(back, "dev:operator")
        [run] = json.loads(body)["runs"]
        assert (status, run["runId"], run["userId"], run["agent"]) == (200, run_id, "ann", "waiter")
        call.cancel()


async def command(service: Service, *words: str, **env: str) -> tuple[int, str, str]:
    """Do what an operator would in a terminal."""
    process = await asyncio.create_subprocess_exec(
        BIN / "engine-service",
        *words,
        *(() if "--admin" in words else (f"--admin={service.admin}",)),
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, complained = await process.communicate()
    return process.returncode or 0, said.decode(), complained.decode()


async def test_in_a_terminal(back: Service) -> None:
    async with caller(back.address, "ann") as ann:
        assert await command(back, "ps") == (0, "nothing runs\n", "")
        run_id, call = await begun(ann, "payer")
        async with operator(back) as op:
            await op.until(run_id, waiting=pb.WAITING_USER)
        status, said, _ = await command(back, "ps")
        head, row = said.splitlines()
        assert (status, head.split()[:3], row.split()[:3]) == (0, ["RUN", "USER", "AGENT"], [run_id, "ann", "payer"])
        assert "its user, to approve pay" in row
        assert (await command(back, "ps", "--user", "ben"))[1] == "nothing runs\n"
        refusal = f"engine-service: {back.admin}: {NO_OPERATOR}\n"
        assert await command(back, "ps", RUNWIRE_OPERATOR_TOKEN="dev:ann") == (1, "", refusal)
        assert (await command(back, "stop"))[0] == 2
        assert await command(back, "stop", run_id) == (0, f"{run_id}\n", "")
        assert await command(back, "stop", run_id) == (1, "", "engine-service stop: there is no such run\n")
        assert kind((await taken(call))[-1]) == "agent_cancelled"


async def test_several_engines_of_which_one_is_down(back: Service) -> None:
    """The others are asked all the same, and the one is named."""
    async with caller(back.address, "ann") as ann:
        run_id, call = await begun(ann, "waiter")
        for admin in (f"127.0.0.1:1,{back.admin}", f"{back.admin},127.0.0.1:1"):
            status, said, complained = await command(back, "ps", "--admin", admin)
            assert (status, run_id in said, "127.0.0.1:1: no engine answers" in complained) == (1, True, True)
        status, said, complained = await command(back, "stop", "--user", "ann", "--admin", f"127.0.0.1:1,{back.admin}")
        assert (status, said, "127.0.0.1:1: no engine answers" in complained) == (1, f"{run_id}\n", True)
        assert kind((await taken(call))[-1]) == "agent_cancelled"


async def test_a_stop_that_cannot_be_seen_to() -> None:
    """Where another engine may go on with a run all the same, that is said: what it saved cannot be struck out."""
    with valkey() as server, start_engine(agents=AGENTS, STORE=server.url) as back:
        async with caller(back.address) as ann, grpc.aio.insecure_channel(back.admin) as channel:
            run_id, call = await begun(ann, "dweller", upto=4, resume_window=WINDOW)
            server.pause()
            stub: Any = OperationsServiceStub(channel)
            metadata = (("authorization", "Bearer dev:operator"),)
            said = await stub.StopRuns(pb.StopRunsRequest(run_id=run_id), metadata=metadata, timeout=PATIENCE)
            server.go_on()
            assert (list(said.run_ids), list(said.uncertain)) == ([], [run_id])
            call.cancel()


async def test_refusals_are_told(back: Service) -> None:
    """Whoever tries is in the log by name, where there is one, and in the figures."""
    before = back.figures()
    async with operator(back, "dev:ann") as ann, operator(back, "nonsense") as nobody:
        for stranger in (ann, nobody):
            await refused(stranger.runs())
    assert http(back, "dev:ann")[0] == 403
    back.wait_for(lambda record: record.items() >= {"reason": "NO_OPERATOR", "user_id": "ann"}.items())
    await until(lambda: moved(back, before, "NO_OPERATOR") == 2)
    assert moved(back, before, "UNAUTHENTICATED") == 1


def moved(back: Service, before: dict[str, float], reason: str) -> float:
    name = f'runwire_engine_refusals_total{{reason="{reason}"}}'
    return back.figures().get(name, 0) - before.get(name, 0)


async def test_what_has_no_name_of_its_own(back: Service) -> None:
    """In development a page that made its own name point here reads nothing."""
    headers = {"Authorization": "Bearer dev:operator", "Host": "evil.example"}
    request = urllib.request.Request(f"http://{back.operations}/v1/runs", headers=headers)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        await asyncio.to_thread(urllib.request.urlopen, request, timeout=PATIENCE)


async def test_an_engine_that_may_not_look_inside() -> None:
    """Neither root nor with the right to trace: it knows what a run has beyond that which it was forked with."""
    command = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
    with start_engine(agents="tests.agents.dwelling", before=command) as back:
        async with caller(back.address) as ann, operator(back) as op:
            run_id, call = await begun(ann, "dwelling", input="30")
            status = await op.until(run_id)
            assert 25e6 < status.memory_bytes < 60e6
            assert status.HasField("processor_time")
            call.cancel()


async def test_a_table_that_updates(back: Service) -> None:
    """In a terminal it goes on until it is interrupted, and whatever a user calls themselves is only text."""
    async with caller(back.address, "ann") as ann:
        _, call = await begun(ann, "waiter")
        ours, theirs = pty.openpty()
        words = [str(BIN / "engine-service"), "ps", f"--admin={back.admin}"]
        process = await asyncio.create_subprocess_exec(*words, stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = ""
        async with asyncio.timeout(PATIENCE):
            while seen.count("ann") < 2:
                seen += (await asyncio.to_thread(os.read, ours, 4096)).decode()
            call.cancel()
            while "nothing runs" not in seen:
                seen += (await asyncio.to_thread(os.read, ours, 4096)).decode()
        process.send_signal(2)
        assert await process.wait() == 0
        os.close(ours)
