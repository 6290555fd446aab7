"""What a gateway makes of how engines' calls end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from engine_service.calls.health import Health
from tests.support.clients import JSON, frames, opening, socket
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.services import until

SERVICE = "runwire.v1.EngineService"


async def is_cancelled(_: bytes, context: Any) -> None:
    """End as calls do that gRPC cancels because its server ends."""
    await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")


async def says_so(_: bytes, context: Any) -> None:
    """End with an engine's own word."""
    await context.abort_with_status(to_status(Status(code=grpc.StatusCode.CANCELLED.value[0], message="Enough.")))


@asynccontextmanager
async def engine_whose_runs(end: Any) -> AsyncIterator[str]:
    """Serve what is an engine as far as its health goes, and return its address."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Run": grpc.unary_stream_rpc_method_handler(end)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    health = Health((SERVICE,))
    health.add_to(server)
    health.set(is_serving=True)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield address
    health.close()
    await server.stop(None)


@pytest.mark.parametrize(("end", "codes"), [(is_cancelled, [1000, 1000]), (says_so, [1000, 4001])])
async def test_an_engine_that_ends_is_away(end: Any, codes: list[int]) -> None:
    """What gRPC cancels as its server ends is no word of an engine's: another is asked. Its own word is told on."""
    async with engine_whose_runs(end) as ending:
        with start_engine() as back, start_gateway(f"{ending},{back.address}") as front:
            await until(lambda: front.figures()["runwire_gateway_engines_serving"] == 2)
            found: list[int] = []
            for _ in codes:  # each of both is the first to be asked once
                async with socket(front.address) as connection:
                    await connection.send(opening(JSON, "echo"))
                    await frames(connection)
                found.append(connection.close_code or 0)
    assert sorted(found) == codes
