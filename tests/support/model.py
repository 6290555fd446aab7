"""State machines of Hypothesis that do what callers do, to a real engine."""

import asyncio
import os
from typing import Any, ClassVar

import grpc.aio
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.support.services import Service, engine

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "12"))
PATIENCE = 30
"""Seconds, for each thing that is done."""


class Machine(RuleBasedStateMachine):
    """Does things to an engine, one after the other, on a loop of its own."""

    service: ClassVar[Service]
    loop: ClassVar[asyncio.AbstractEventLoop]
    channels: ClassVar[list[grpc.aio.Channel]]

    def do(self, awaitable: Any) -> Any:
        """Wait until something is done."""
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, PATIENCE))


def run_machine(machine: type[Machine], *more: str, **options: Any) -> None:
    """Start an engine, and do to it whatever the machine may do, in many orders; beside others at these addresses."""
    with engine(MAX_RUNS_PER_USER="64", **options) as service, asyncio.Runner() as runner:
        machine.service, machine.loop = service, runner.get_loop()
        machine.channels = [runner.run(_channel(address)) for address in (service.address, *more)]
        many = settings(
            max_examples=EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        )
        run_state_machine_as_test(machine, settings=many)
        for channel in machine.channels:
            runner.run(channel.close())


async def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address)
