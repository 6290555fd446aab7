"""Agents that want something of a cluster."""

import asyncio
import os
import sys

from engine_service import Agent, Answer, RunContext


class Placed(Agent):
    """Says where it is, and what it was given there."""

    isolation = "ray"
    resources = {"num_cpus": 0.5, "num_gpus": 0.25, "runtime_env": {"env_vars": {"RUNWIRE_TEST": "given"}}}

    async def run(self, context: RunContext, input: str) -> Answer:
        gpus, given = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("RUNWIRE_TEST")
        has_ray = any(name.partition(".")[0] == "ray" for name in sys.modules)
        await context.count("a-model", input_tokens=3, output_tokens=4)
        context.files.joinpath("kept").write_text("here", "utf-8")
        return Answer("placed", {"gpus": gpus, "given": given, "has_ray": has_ray, "files": str(context.files)})


class Apart(Agent):
    """Is started afresh."""

    isolation = "ray"
    fork = False

    async def run(self, context: RunContext, input: str) -> str:
        return "apart"


class Demanding(Agent):
    """Wants what there is nowhere."""

    isolation = "ray"
    resources = {"resources": {"unobtainium": 1}}

    async def run(self, context: RunContext, input: str) -> str:
        return "impossible"


class Asker(Agent):
    """Has somebody else asked, who is at home elsewhere."""

    isolation = "process"

    async def run(self, context: RunContext, input: str) -> str:
        return await context.delegate("placed", "")


class Homely(Agent):
    """Stays where the engine is."""

    isolation = "process"

    async def run(self, context: RunContext, input: str) -> str:
        return "at home"


class Lingering(Agent):
    """Says which process it is, and waits, anywhere on the cluster."""

    isolation = "ray"

    async def run(self, context: RunContext, input: str) -> str:
        await context.say(str(os.getpid()))
        await asyncio.Event().wait()
        return ""


class Head(Agent):
    """Has its like asked, on the cluster."""

    isolation = "ray"

    async def run(self, context: RunContext, input: str) -> str:
        return await context.delegate("placed", "")


class Far(Agent):
    """Says which process it is, and waits, on a node of its own."""

    isolation = "ray"
    resources = {"resources": {"far": 0.1}}

    async def run(self, context: RunContext, input: str) -> str:
        await context.say(str(os.getpid()))
        await asyncio.Event().wait()
        return ""


class Chattering(Agent):
    """Prints what is long when it is written down."""

    isolation = "ray"

    async def run(self, context: RunContext, input: str) -> str:
        for what in ("😀", "\x00", '"'):
            print(what * 30_000, flush=True)
        return "said"


class Fanning(Agent):
    """Uses the cluster for itself."""

    isolation = "ray"

    async def run(self, context: RunContext, input: str) -> str:
        import ray  # noqa: PLC0415 - others here have none

        ray.init("auto", log_to_driver=False)
        double = ray.remote(lambda number: 2 * number)
        return str(sum(ray.get([double.remote(number) for number in range(4)])))
