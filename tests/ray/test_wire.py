"""Laws 3 and 9 on a cluster: what an agent writes arrives as it is, and its process holds nothing but its wire."""

import json
import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from runwire.v1.engine_pb2 import RunRequest

from tests.agents.odd import ODD
from tests.laws.test_3_an_event_is_encoded_once import bodies, raw
from tests.support.clients import caller, terminal
from tests.support.cluster import Cluster
from tests.support.services import Service

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with cluster.engine(agents="tests.agents.odd,tests.agents.dirt") as started:
        yield started


async def test_the_bytes_that_the_agent_wrote(service: Service) -> None:
    """What is written in a way that no encoder would arrives so; so does what is no event: nobody has looked."""
    async with caller(service.address) as alice:
        run: Any = alice.channel.unary_stream("/runwire.v1.EngineService/Run", None, None)
        for input, bytes_of_it in (("", ODD), ("garbage", b"\x12\x03\xff\xff\xff")):
            call = run(RunRequest(agent="odd", input=input).SerializeToString(), metadata=alice.metadata)
            assert bytes_of_it in bodies(await raw(call))
            assert await call.code() is grpc.StatusCode.OK


async def test_what_a_run_has(service: Service) -> None:
    """A run has its channel and the standard streams, nothing of the engine's settings, and is closed to others."""
    async with caller(service.address) as alice:
        seen = json.loads(terminal(await alice.run("look")).agent_completed.output)
    kinds = sorted(entry.partition(":")[2] for entry in seen["descriptors"])
    assert kinds == ["/dev/null", "anon_inode", "pipe", "pipe", "pipe", "socket", "socket", "socket"], seen
    assert seen["environment"] == []
    assert (seen["dumpable"], seen["core"], seen["threads"]) == (0, [0, 0], 1)
    assert seen["leader"]
    assert not seen["grpc"]
    assert 600 < seen["alarm"] < 700
    assert seen["cpu"] < 600 * (os.cpu_count() or 1) * 100
