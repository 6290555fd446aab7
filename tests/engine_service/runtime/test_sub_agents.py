"""Sub-agents that a framework runs."""

from engine_service import Agent, RunContext, testing


class Desk(Agent):
    """Has others at work, in ways that frameworks have."""

    async def run(self, context: RunContext, input: str) -> str:
        """Do as asked."""
        one = context.sub_agents.begin("a/b")
        assert context.sub_agents.begin("a/b") is one
        two = context.sub_agents.begin("a/b", another=True)
        one.tool_calls.begin("search", {}, "1")
        await two.count("m", input_tokens=3)
        inner = two.sub_agents.begin("deep")
        await inner.say("here")
        if input == "fail":
            context.sub_agents.close("It did not work.")
        else:
            context.sub_agents.end(two, "two")
            context.sub_agents.finish()
        context.sub_agents.end(one, "never told twice")
        return "done"


async def test_each_begins_once_and_ends_once() -> None:
    """Also those below it, and the tools that it called."""
    ran = await testing.run(Desk, "")
    told = [(event.agent.removeprefix("desk"), event.WhichOneof("kind")) for event in ran.events]
    assert told == [
        ("", "agent_started"), ("/a-b", "agent_started"), ("/a-b-2", "agent_started"), ("/a-b", "tool_executing"),
        ("/a-b-2", "model_called"), ("/a-b-2/deep", "agent_started"), ("/a-b-2/deep", "agent_message"),
        ("/a-b-2/deep", "agent_failed"), ("/a-b-2", "agent_completed"), ("/a-b", "tool_completed"),
        ("/a-b", "agent_completed"), ("", "agent_completed"),
    ]  # fmt: skip
    assert ran.events[8].agent_completed.usage.models[0].input_tokens == 3
    assert ran.end.agent_completed.usage.models[0].input_tokens == 3


async def test_what_was_at_work_when_it_failed() -> None:
    """It failed, too."""
    ran = await testing.run(Desk, "fail")
    ends = [(event.agent, event.agent_failed.message) for event in ran.events if event.HasField("agent_failed")]
    assert [agent for agent, _ in ends] == ["desk/a-b-2/deep", "desk/a-b-2", "desk/a-b"]
    assert ran.output == "done"
