"""Objects to agents: classes, plain functions, and what other people's frameworks make."""

import functools
import importlib.metadata
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from engine_service.runtime.agent import Agent, Answer, RunContext
from engine_service.wire import RegistryError

ADAPTERS = "runwire.adapters"
"""Entry points, each named after the package whose objects it makes agents of."""

Function = Callable[[RunContext, str], Awaitable[str | Answer | None]]
Adapt = Callable[[Any, str], type[Agent] | None]
"""Makes an agent of an object, with a name; None of what is no agent in its framework either."""


def agent_of(found: object, name: str) -> type[Agent] | None:
    """Return the agent that an object is, or can be made; None if it is none."""
    if inspect.isclass(found):
        return found if issubclass(found, Agent) and found is not Agent else None
    if inspect.iscoroutinefunction(found):
        return _of_function(found, name)
    return foreign(found, name)


def foreign(found: object, name: str) -> type[Agent] | None:
    """Return the agent that a framework's object can be made; None if it is no framework's, or none of its agents."""
    adapt = _adapter(type(found))
    return adapt(found, name) if adapt else None


def renamed(agent: type[Agent], name: str) -> type[Agent]:
    """Return an agent under another name."""
    return made(agent, name, agent.description())


def made(base: type[Agent], name: str, about: str, **members: Any) -> type[Agent]:
    """Make a class of an agent's."""
    return type(name, (base,), {"name": name, "__doc__": about, "__module__": base.__module__, **members})


def _of_function(function: Function, name: str) -> type[Agent]:
    async def run(_: Agent, context: RunContext, input: str) -> str | Answer | None:
        return await function(context, input)

    try:
        inspect.signature(function).bind("context", "input")
    except TypeError as error:
        where = f"{function.__module__}.{function.__qualname__}"
        raise RegistryError(f"{where}: an agent's function must take a context and an input") from error
    base: Any = Agent
    return made(base, name, inspect.getdoc(function) or "", run=run, __module__=function.__module__)


@functools.cache  # looking through all that is installed takes milliseconds, and a module has many objects
def _points() -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=ADAPTERS))


def _adapter(kind: type) -> Adapt | None:
    """Find who makes agents of a framework's objects. It is imported only now: so is whatever it needs."""
    modules = [base.__module__ for base in kind.__mro__]
    for point in _points():
        if any(module == point.name or module.startswith(f"{point.name}.") for module in modules):
            try:
                adapt: Adapt = point.load()
            except Exception as error:
                raise RegistryError(f"agents of {point.name} cannot be had: {type(error).__name__}: {error}") from error
            return adapt
    return None
