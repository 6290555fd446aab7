"""Names to classes: which agents there are."""

import difflib
import importlib
import importlib.metadata
import inspect
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Self, cast, get_args

from engine_service import resources
from engine_service.runtime import objects
from engine_service.runtime.agent import Agent
from engine_service.runtime.plain import is_plain, plain
from engine_service.schema import ParametersSchema, SchemaError, travelling
from engine_service.wire import MAX_SCHEMA, Description, Isolation, RegistryError, Terms

DEMO = "engine_service.agents.triage"
NEIGHBOURS = "engine_service.agents.neighbours"
ASSISTANT = "engine_service.agents.assistant"
GROUP = "runwire.agents"
AN_AGENT = (
    "a subclass of engine_service.Agent, an async function (context, input) that is named as module:function, "
    "or an agent of a framework that there is an adapter for"
)
ELSEWHERE = {"jail", "ray"}
"""Isolations of agents that are nowhere else, not as others' sub-agents either."""
ISOLATIONS: tuple[str, ...] = get_args(Isolation)
ONE_OF_THESE = f"{', '.join(map(repr, ISOLATIONS[:-1]))} or {ISOLATIONS[-1]!r}"


def sources(modules: Iterable[str], *, demo: bool, neighbours: bool, assistant: bool) -> tuple[str, ...]:
    """Return where agents are found: what is built in, what installed packages offer, and these modules."""
    installed = (point.value for point in importlib.metadata.entry_points(group=GROUP))
    built_in = [name for name, wanted in ((DEMO, demo), (NEIGHBOURS, neighbours), (ASSISTANT, assistant)) if wanted]
    return tuple(dict.fromkeys((*built_in, *installed, *modules)))


def load(modules: Iterable[str]) -> dict[str, type[Agent]]:
    """Import modules, and return their agents by name."""
    return {name: agent for name, (agent, _) in find(modules).items()}


def find(modules: Iterable[str], on_import: Callable[[str], None] | None = None) -> dict[str, tuple[type[Agent], str]]:
    """Import modules, saying which before each; return their agents by name, each with the module that was named."""
    agents: dict[str, tuple[type[Agent], str]] = {}
    for text in modules:
        spec = Spec.read(text)
        if on_import:
            on_import(spec.module)
        for agent in _agents(spec):
            _check(agent)
            other, _ = agents.setdefault(agent.name, (agent, text))
            if other is not agent and not _is_same(other, agent):
                raise RegistryError(f"two agents are named {agent.name!r}: {_path(other)} and {_path(agent)}")
    return dict(sorted(agents.items()))


def at_home(agents: Mapping[str, type[Agent]], terms: Terms) -> dict[str, type[Agent]]:
    """Return the agents that may run where these terms hold: none that belongs elsewhere."""
    here = "jail" if terms.jail else "ray" if terms.is_cluster else "process"
    return {
        name: agent for name, agent in agents.items() if (agent.isolation or terms.isolation) not in ELSEWHERE - {here}
    }


def described(agent: type[Agent], source: str, isolation: Isolation) -> Description:
    """Describe an agent; if it doesn't say where its runs happen, they do so there."""
    return Description(
        agent.name,
        agent.description(),
        agent.isolation or isolation,
        source,
        is_public=agent.public,
        is_forked=agent.fork,
        parameters=_parameters(agent),
        resources=_resources(agent),
    )


def _parameters(agent: type[Agent]) -> str:
    """Return what an agent's callers may send along, as it travels. Raises RegistryError."""
    written: Any = agent.parameters_schema
    if written is None:
        return ""
    if not (isinstance(written, Mapping) and is_plain(written)):
        raise RegistryError(f"{_path(agent)}: parameters_schema has to be a dict of plain values")
    try:
        document = ParametersSchema(travelling(cast("Mapping[str, Any]", written))).document
    except SchemaError as error:
        raise RegistryError(f"{_path(agent)}: parameters_schema is no JSON Schema of an object: {error}") from error
    encoded = json.dumps(plain(document))
    if len(encoded) > MAX_SCHEMA:
        raise RegistryError(f"{_path(agent)}: parameters_schema has more than {MAX_SCHEMA} bytes")
    return encoded


def _resources(agent: type[Agent]) -> str:
    """Return what an agent's runs need of a cluster, as it travels. Raises RegistryError."""
    try:
        return resources.written(agent.resources) if agent.resources else ""
    except ValueError as error:
        raise RegistryError(f"{_path(agent)}: resources {error}") from error


class Spec(NamedTuple):
    """What was named: a module, an object of it if one was named, and what to call that if it was said."""

    text: str
    module: str
    path: str
    name: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `module`, `module:object` or `name=module:object`."""
        name, _, place = text.rpartition("=")
        module, _, path = place.partition(":")
        return cls(text, module, path, name)


def _agents(spec: Spec) -> Iterator[type[Agent]]:
    module = _import(spec.module)
    if spec.path:
        yield _object(module, spec)
        return
    if spec.name:
        raise RegistryError(f"{spec.text!r} names no object: name={spec.module}:OBJECT")
    classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Agent)]
    found = [value for value in classes if value is not Agent]
    agents = [agent for agent in found if not inspect.isabstract(agent)]
    if found and not agents:
        raise RegistryError(f"{_path(found[0])} is no agent yet: it has no run")
    agents = agents or [
        agent
        for name, value in vars(module).items()
        if not (name.startswith("_") or inspect.isclass(value) or inspect.ismodule(value))
        and (agent := objects.foreign(value, name))
    ]
    if not agents:
        raise RegistryError(f"there is no agent in the module {spec.text!r}: an agent is {AN_AGENT}")
    yield from agents


def _object(module: ModuleType, spec: Spec) -> type[Agent]:
    found: object = module
    for part in spec.path.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise RegistryError(f"{spec.text!r}: there is no {spec.path!r} in the module {spec.module!r}{meant}")
        found = getattr(found, part)
    name = spec.name or spec.path.rpartition(".")[2]
    agent = objects.agent_of(found, name)
    if agent is None:
        raise RegistryError(f"{spec.text!r} is {_what(found)}, and no agent: an agent is {AN_AGENT}")
    if inspect.isabstract(agent):
        raise RegistryError(f"{_path(agent)} is no agent yet: it has no run")
    return objects.renamed(agent, name) if spec.name and agent.name != name else agent


def _what(found: object) -> str:
    kind = type(found)
    return f"of the type {kind.__module__}.{kind.__qualname__}"


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise RegistryError(f"the agents module {name!r} cannot be imported: {_why(name, error)}") from error


def _why(name: str, error: Exception) -> str:
    """Say what went wrong, and where in the author's own files."""
    if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
        return f"there is no module {error.name!r}; is its folder on PYTHONPATH?"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    ours = [frame for frame in frames if frame.filename != __file__]
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {error}{where}"


def _check(agent: type[Agent]) -> None:
    _parameters(agent)
    _resources(agent)
    if agent.isolation not in {None, *ISOLATIONS}:
        raise RegistryError(f"{_path(agent)}: isolation must be {ONE_OF_THESE}, not {agent.isolation!r}")
    if not agent.name or "/" in agent.name:
        raise RegistryError(f"{_path(agent)}: {agent.name!r} cannot be an agent's name")
    if not inspect.iscoroutinefunction(agent.run):
        raise RegistryError(f"{_path(agent)}: run must be an async function")
    try:
        inspect.signature(agent.run).bind("self", "context", "input")
    except TypeError as error:
        raise RegistryError(f"{_path(agent)}: run must take a context and an input") from error
    try:
        inspect.signature(agent).bind()
    except TypeError as error:
        raise RegistryError(f"{_path(agent)}: its constructor must need no arguments") from error


def _is_same(one: type[Agent], other: type[Agent]) -> bool:
    """Tell whether two agents were made of the same object, which was named twice."""
    target = vars(one).get("target")
    return target is not None and target is vars(other).get("target")


def _path(agent: type[Agent]) -> str:
    return f"{agent.__module__}.{agent.__qualname__}"
