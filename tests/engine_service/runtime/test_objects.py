"""What may be named as an agent."""

from pathlib import Path

import pytest

from engine_service.runtime import registry
from engine_service.wire import RegistryError
from tests.support.clients import caller, terminal
from tests.support.services import engine as start_engine

HERE = "tests.agents.functions"


@pytest.mark.parametrize(
    ("named", "name", "about"),
    [
        (f"{HERE}:greet", "greet", "Greets whoever asks."),
        (f"hello={HERE}:greet", "hello", "Greets whoever asks."),
        (f"{HERE}:Tools.greet", "greet", "Greets whoever asks."),
        (f"{HERE}:both", "both", ""),
        (f"{HERE}:Whole", "whole", "An agent among functions."),
        (f"all={HERE}:Whole", "all", "An agent among functions."),
        (HERE, "whole", "An agent among functions."),
    ],
)
def test_what_is_named(named: str, name: str, about: str) -> None:
    """A class or a function may be named by itself, under its own name or another; a module gives its classes."""
    [(found, (agent, source))] = registry.find([named]).items()
    described = registry.described(agent, source, "process")
    assert (found, described.name, described.text, described.source) == (name, name, about, named)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (f"{HERE}:gret", "there is no 'gret' in the module 'tests.agents.functions'; did you mean 'greet'?"),
        (f"{HERE}:number", "is of the type builtins.int, and no agent: an agent is"),
        (f"{HERE}:Tools", "is of the type builtins.type, and no agent: an agent is"),
        (f"{HERE}:lonely", "tests.agents.functions.lonely: an agent's function must take a context and an input"),
        (f"a={HERE}", "names no object: name=tests.agents.functions:OBJECT"),
        (f"a/b={HERE}:greet", "'a/b' cannot be an agent's name"),
        (f"{HERE}:Agent", "no agent"),
        ("no.such:thing", "there is no module 'no'"),
    ],
)
def test_what_cannot_be_named(named: str, says: str) -> None:
    """What is no agent, or isn't there, is said so, with what may have been meant."""
    with pytest.raises(RegistryError) as raised:
        registry.find([named])
    assert says in str(raised.value)


def test_two_of_a_name() -> None:
    """Two agents of the same name are refused, also when they were named so here."""
    with pytest.raises(RegistryError, match="two agents are named 'whole'"):
        registry.find([HERE, f"whole={HERE}:greet"])


async def test_functions_run() -> None:
    """A function is an agent like any other: fresh for each run, streamed, and told to callers with its docstring."""
    with start_engine(agents=f"{HERE}:greet,again={HERE}:greet,{HERE}:both", DEMO_AGENTS="false") as service:
        assert service.wait_for(lambda record: record["event"] == "serving")["agents"] == ["again", "both", "greet"]
        async with caller(service.address) as alice:
            assert terminal(await alice.run("greet", "world")).agent_completed.output == "hello world"
            assert terminal(await alice.run("again")).agent_completed.output == "hello alice"
            assert terminal(await alice.run("both", "x")).agent_completed.data["path"] == "both"


FIFTH = {
    "fifth/__init__.py": "class Bot:\n    def __init__(self, greeting): self.greeting = greeting\n",
    "fifth_runwire.py": (
        "from engine_service import Agent\n"
        "from engine_service.runtime.objects import made\n"
        "from fifth import Bot\n\n"
        "class BotAgent(Agent):\n"
        "    async def run(self, context, input):\n"
        "        await context.say(self.target.greeting)\n"
        "        return self.target.greeting + input\n\n"
        "def adapt(found, name):\n"
        "    return made(BotAgent, name, 'A bot.', target=found) if isinstance(found, Bot) else None\n"
    ),
    "fifth-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: fifth\nVersion: 1.0\n",
    "fifth-1.0.dist-info/entry_points.txt": "[runwire.adapters]\nfifth = fifth_runwire:adapt\n",
    "my_bots.py": "from fifth import Bot\npolite = Bot('Good day, ')\nrude = Bot('Hey ')\n_hidden = Bot('')\n",
}


async def test_a_framework_of_ones_own(tmp_path: Path) -> None:
    """An entry point makes a framework's objects agents: those of a module, or one of them, with no line of ours."""
    for file, content in FIFTH.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    with start_engine(agents="my_bots,other=my_bots:rude", folder=str(tmp_path), DEMO_AGENTS="false") as service:
        assert service.wait_for(lambda record: record["event"] == "serving")["agents"] == ["other", "polite", "rude"]
        async with caller(service.address) as alice:
            assert terminal(await alice.run("polite", "sir")).agent_completed.output == "Good day, sir"
            assert terminal(await alice.run("other", "you")).agent_completed.output == "Hey you"


async def test_an_adapter_that_cannot_be_imported(tmp_path: Path) -> None:
    """An adapter whose framework cannot be used is said so at boot."""
    for file, content in (FIFTH | {"fifth_runwire.py": "import nothing_of_the_kind\n"}).items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    with start_engine(agents="my_bots", folder=str(tmp_path)) as service:
        assert service.wait() == 2
        assert "agents of fifth cannot be had: ModuleNotFoundError" in service.lines[-1]
