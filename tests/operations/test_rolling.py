"""A rolling restart as the manifests do it: the new one is ready, the old one waits in preStop, and then drains."""

import asyncio
import json
import signal
import urllib.request
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from tests.support.clients import JSON, frames, opening, socket
from tests.support.services import ROOT, Service, free_address, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import PATIENCE

pytestmark = pytest.mark.operations

USERS = 50
ENDINGS = {"agentCompleted", "agentFailed", "agentCancelled"}
MANIFESTS = ROOT / "deploy" / "kubernetes"


def manifest(file: str, kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((MANIFESTS / file).read_text())
    found: dict[str, Any] = next(each for each in documents if each["kind"] == kind)
    return found


POD = manifest("engine.yaml", "Deployment")["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
SETTINGS = {
    name.removeprefix("RUNWIRE_ENGINE_"): value
    for name, value in manifest("settings.yaml", "ConfigMap")["data"].items()
    if name.startswith(("RUNWIRE_ENGINE_DRAIN", "RUNWIRE_ENGINE_MAX"))
}


def is_ready(service: Service) -> bool:
    """Ask as a kubelet does."""
    path = CONTAINER["readinessProbe"]["httpGet"]["path"]
    try:
        with urllib.request.urlopen(f"http://{service.operations}{path}", timeout=PATIENCE) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def leave(service: Service) -> None:
    """Be told to leave as a kubelet tells: preStop, SIGTERM, and so long until SIGKILL."""
    _, seconds = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    await asyncio.sleep(float(seconds))
    service.signal(signal.SIGTERM)
    left = POD["terminationGracePeriodSeconds"] - float(seconds)
    assert await asyncio.to_thread(service.wait, left) == 0


async def use(front: Service, user: str, stop: asyncio.Event, seen: Counter[str]) -> None:
    """Ask one question after the other, as somebody at a console does."""
    while not stop.is_set():
        async with socket(front.address) as connection:
            await connection.send(opening(JSON, "reporter", "Hello", user=user, parameters={"words": 20}))
            said = [json.loads(frame) for frame in await frames(connection)]
        events = [event for frame in said for event in frame.get("events", ())]
        ending = next((name for name in events[-1] if name in ENDINGS), "unfinished") if events else "nothing"
        is_whole = [event["seq"] for event in events] == list(range(1, len(events) + 1))
        seen[f"{connection.close_code} {ending} {'whole' if is_whole else 'broken'}"] += 1
        await asyncio.sleep(0.2)


async def test_nobody_sees_a_failure() -> None:
    """Two engines behind one gateway are replaced one after the other, while fifty users ask and ask."""
    with ExitStack() as stack:
        addresses = [free_address() for _ in range(4)]

        def started(address: str) -> Service:
            agents = "tests.agents.talkers"
            return stack.enter_context(start_engine(agents=agents, LISTEN=address, **SETTINGS))

        old = [started(address) for address in addresses[:2]]
        # A headless service's name has the addresses of those that are ready; here all that there will be are named.
        front = stack.enter_context(start_gateway(",".join(addresses)))
        stop, seen = asyncio.Event(), Counter[str]()
        await until(lambda: front.figures()["runwire_gateway_engines_serving"] == 2)
        users = [asyncio.create_task(use(front, f"user{number}", stop, seen)) for number in range(USERS)]
        await until(lambda: seen.total() >= USERS)
        for leaving, address in zip(old, addresses[2:], strict=True):
            new = started(address)  # maxSurge 1, maxUnavailable 0
            await until(lambda new=new: is_ready(new))  # type: ignore[misc]
            await leave(leaving)
        before = seen.total()
        await until(lambda: seen.total() >= before + USERS)
        stop.set()
        await asyncio.gather(*users)
        assert set(seen) == {"1000 agentCompleted whole"}, seen
        assert seen.total() > 5 * USERS
