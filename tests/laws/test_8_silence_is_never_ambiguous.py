"""Law 8: silence is never ambiguous."""

import asyncio
import itertools
import signal
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from runwire.v1.events_pb2 import FAILURE_REASON_ENGINE_DRAINING

from tests.support.clients import caller, said
from tests.support.services import engine as start_engine
from tests.support.services import is_gone, until, zygote_of

pytestmark = pytest.mark.measures

SERVICE = "runwire.v1.EngineService"


async def test_a_quiet_run_sends_heartbeats() -> None:
    """After `HEARTBEAT` seconds without an event comes a message without events, again and again."""
    with start_engine(HEARTBEAT="0.1") as service:
        async with caller(service.address) as alice:
            beats = []
            async for response in alice.call("waiter"):
                if not response.events:
                    assert response.run_id
                    beats.append(time.monotonic())
                if len(beats) == 5:
                    break
    gaps = [later - earlier for earlier, later in itertools.pairwise(beats)]
    assert max(gaps) < 1, gaps
    assert sum(gaps) > 4 * 0.09, gaps  # one that was held up on its way is followed the sooner by the next


async def test_draining() -> None:
    """Told to stop, the engine takes no more runs, lets the others finish, ends those that don't, and exits with 0."""
    with start_engine(agents="tests.agents.probes,tests.agents.tasks", DRAIN_GRACE="1.5") as service:
        async with caller(service.address) as alice:
            health: Any = HealthStub(alice.channel)
            watch = health.Watch(HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == HealthCheckResponse.SERVING
            short = alice.call("ticker", parameters={"ticks": 10})
            assert await said(short) == "0"
            longs = [alice.call("waiter"), alice.call("task_waiter")]
            for call in longs:
                assert await said(call) == "waiting"
            zygote = zygote_of(service)

            service.signal(signal.SIGTERM)
            assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await said(alice.call("echo"))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "grpc-status-details-bin" in dict(tuple(caught.value.trailing_metadata() or ()))  # it has RetryInfo
            events = [event async for response in short for event in response.events]
            assert events[-1].agent_completed.output == "done"
            for call in longs:
                [end] = [event async for response in call for event in response.events]
                assert end.agent_failed.reason == FAILURE_REASON_ENGINE_DRAINING
                assert end.agent_failed.retryable
        assert await asyncio.to_thread(service.wait) == 0
        assert is_gone(zygote)


async def test_a_second_signal_ends_it_at_once() -> None:
    """Whoever does not want to wait for the runs signals twice."""
    with start_engine(DRAIN_GRACE="60") as service:
        async with caller(service.address) as alice:
            call = alice.call("waiter")
            assert await said(call) == "waiting"
            zygote = zygote_of(service)
            service.signal(signal.SIGTERM)
            service.wait_for(lambda record: record["event"] == "draining")
            service.signal(signal.SIGTERM)
            assert await asyncio.to_thread(service.wait) == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: is_gone(zygote))
