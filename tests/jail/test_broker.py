"""The broker: what of a run's calls goes to a model server, what comes back, and what never does."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runwire.v1.engine_pb2 import AnswerRequest
from runwire.v1.events_pb2 import INPUT_OUTCOME_DECLINED

from tests.jail.conftest import AGENTS, KEY, broker_of, told, tried
from tests.support.clients import Caller, caller, kind, kinds, terminal
from tests.support.services import Service, until
from tests.support.services import engine as start_engine
from tests.support.upstream import Upstream, upstream


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream() as started:
        yield started


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "openai"
    file.write_text(f"{KEY}\n")
    return file


def start(server: Upstream, key: Path, **settings: str) -> Service:
    names = {"UPSTREAMS": f"openai={server.url},other={server.url}", "UPSTREAM_KEYS": f"openai={key},other={key}"}
    return start_engine(agents=AGENTS, MAX_RUNS_PER_USER="64", **names | settings)


@pytest.fixture(scope="module")
def service(server: Upstream, key: Path) -> Iterator[Service]:
    with start(server, key, UPSTREAM_AUTH="other=x-api-key", TOKENS_PER_RUN="1000") as started:
        yield started


@pytest.fixture
async def alice(service: Service) -> AsyncIterator[Caller]:
    async with caller(service.address) as user:
        yield user


def asking(words: str = "words", **body: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": words}], "stream": True, **body}


async def asked(user: Caller, agent: str = "prisoner", **about: Any) -> tuple[int, dict[str, str], str]:
    """Ask a model server, and return what comes back: the status, the headers, the body."""
    about.setdefault("body", asking())
    status, headers, body = told(await tried(user, f"ask_broker {json.dumps(about)}", agent))
    return status, {name.lower(): value for name, value in headers.items()}, body


def code(body: str) -> str:
    """Return why a call was not carried."""
    error = json.loads(body)["error"]
    assert error["message"].endswith((".", ")."))
    return str(error["code"])


@pytest.mark.parametrize("agent", ["prisoner", "free"])
async def test_a_call_is_carried(server: Upstream, alice: Caller, agent: str) -> None:
    """What is asked arrives, with the key that the run hasn't; what is answered comes back, in a jail and without."""
    status, headers, body = await asked(alice, agent)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert [word for word in ("one ", "two ", "three") if f'"{word}"' in body] == ["one ", "two ", "three"]
    path, sent, _ = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert sent["Authorization"] == f"Bearer {KEY}"
    assert KEY not in body + str(headers)


async def test_how_a_key_is_sent(server: Upstream, alice: Caller) -> None:
    """Each server gets it in the header that it was said to have."""
    await asked(alice, path="/other/chat/completions")
    _, sent, _ = server.asked[-1]
    assert sent["x-api-key"] == KEY
    assert "Authorization" not in sent


async def test_what_does_not_go_on(server: Upstream, alice: Caller) -> None:
    """Neither a caller's credentials nor for whom they would ask, nor what would be tried out, nor cookies."""
    names = (
        "OpenAI-Organization",
        "OpenAI-Project",
        "OpenAI-Beta",
        "Cookie",
        "X-Forwarded-For",
        "Forwarded",
        "X-Api-Key",
    )
    await asked(alice, headers=dict.fromkeys(names, "mine") | {"Host": "another.example"})
    _, sent, _ = server.asked[-1]
    assert not {name.lower() for name in names} & {name.lower() for name in sent}
    assert sent["Host"] == f"127.0.0.1:{server.port}"
    assert "mine" not in sent.values()


async def test_what_does_not_come_back(alice: Caller) -> None:
    """What a provider says of an account is all its users': limits, cookies, and words about a key."""
    _, headers, body = await asked(alice, body=asking("status 429"))
    assert headers["retry-after"] == "7"
    assert not {"x-ratelimit-remaining-tokens", "set-cookie"} & headers.keys()
    status, _, body = await asked(alice, body=asking("status 401"))
    assert (status, code(body)) == (401, "key")
    assert "sk-abc" not in body


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/openai/files", "POST"),
        ("/openai/models", "GET"),
        ("/openai/chat/completions", "GET"),
        ("/openai/chat/completions", "DELETE"),
        ("/openai/chat/completions?x=1", "POST"),
        ("/openai/chat/completions/../../files", "POST"),
        ("/openai/%2e%2e/files", "POST"),
        ("/openai//chat/completions", "POST"),
        ("/openai/chat%2fcompletions", "POST"),
        ("/openai/responses/resp_1", "POST"),
        ("/nobody/chat/completions", "POST"),
        ("http://169.254.169.254/openai/chat/completions?x", "POST"),
        ("/openai", "POST"),
        ("/", "POST"),
        ("*", "OPTIONS"),
    ],
)
async def test_what_cannot_be_called(server: Upstream, alice: Caller, path: str, method: str) -> None:
    """Only what is listed, as it is listed."""
    before = len(server.asked)
    status, _, body = await asked(alice, path=path, method=method)
    assert status in {404, 405}
    assert code(body)
    assert len(server.asked) == before


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/?secret"}}
WAYS_OUT = {
    "a tool of the provider": ({"tools": [{"type": "web_search"}]}, "tool"),
    "one of several": ({"tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_url": "x"}]}, "tool"),
    "a search": ({"web_search_options": {}, "plugins": [{"id": "web"}]}, "field"),
    "a server of tools": ({"mcp_servers": [{"url": "x"}]}, "field"),
    "a picture by its address": ({"messages": [{"role": "user", "content": [PICTURE]}]}, "address"),
    "in capitals": ({"messages": [{"content": [{"image_url": {"url": " HTTPS://example.org"}}]}]}, "address"),
    "a file by its address": ({"input": [{"content": [{"type": "input_file", "file_url": "https://x"}]}]}, "address"),
    "a source": ({"messages": [{"content": [{"source": {"type": "url", "url": "http://x"}}]}]}, "address"),
    "a file of somebody's": ({"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]}, "kept"),
    "what was said to somebody": ({"previous_response_id": "resp_1"}, "kept"),
    "a conversation": ({"conversation": "conv_1"}, "kept"),
    "a prompt of somebody's": ({"prompt": {"id": "pmpt_1"}}, "kept"),
    "in the background": ({"background": True}, "kept"),
    "what providers call it otherwise": ({"search_parameters": {"mode": "on"}}, "field"),
    "sources of data": ({"data_sources": [{"type": "search", "parameters": {"endpoint": "https://x"}}]}, "field"),
    "somewhere else": ({"api_base": "https://x"}, "field"),
    "a tool without a type": ({"tools": [{"googleSearch": {}}]}, "tool"),
    "tools that are no list": ({"tools": {"type": "web_search"}}, "tool"),
    "a type that is none": ({"tools": [{"type": ["function"]}]}, "tool"),
    "a model that searches": ({"model": "gpt-5-search-preview"}, "tool"),
    "an address as data": ({"messages": [{"content": [{"file": {"file_data": "https://x/?s"}}]}]}, "address"),
    "a document": ({"messages": [{"content": [{"document_url": "https://x/?s"}]}]}, "address"),
    "a bucket": ({"messages": [{"content": [{"fileData": {"fileUri": "gs://x/y"}}]}]}, "address"),
    "forgiven": ({"messages": [{"content": [{"image_url": {"url": "ht\ttps:\\\\x/?s"}}]}]}, "address"),
    "what a tool has shown": ({"input": [{"output": [{"image_url": "https://x"}], "type": "x"}]}, "address"),
    "an item of somebody's": ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "kept"),
    "what somebody heard": ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "kept"),
    "several": ({"messages": [{"content": [{"pictures": ["https://x"]}]}]}, "address"),
    "no JSON": ("words", "body"),
    "a list": ([], "body"),
}


def of(name: str) -> dict[str, Any]:
    """Return what asks for a way out."""
    extra: Any = WAYS_OUT[name][0]
    return dict(extra)


@pytest.mark.parametrize("name", WAYS_OUT)
async def test_ways_out(server: Upstream, alice: Caller, name: str) -> None:
    """What a provider would do by itself, fetch, or give out of what it keeps, is refused."""
    extra, why = WAYS_OUT[name]
    body = asking() | extra if isinstance(extra, dict) else extra
    before = len(server.asked)
    status, _, answer = await asked(alice, body=body)
    assert (status, code(answer)) == (400, why)
    assert len(server.asked) == before


@pytest.mark.parametrize(
    "body",
    [
        {
            "tools": [
                {"type": "function", "function": {"name": "web_search", "parameters": {"properties": {"url": {}}}}}
            ]
        },
        {"messages": [{"role": "user", "content": "read https://example.org"}]},
        {"messages": [{"role": "user", "content": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": '{"url": "https://x"}'}}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"url": "https://x"}}]}]},
        {"messages": [{"role": "user", "content": "\ud800 half a character"}]},
        {"tools": [{"name": "f", "input_schema": {"properties": {"url": {"default": "https://x"}}}}]},
        {"tools": [{"type": "custom", "name": "f"}], "store": True, "background": False, "previous_response_id": None},
    ],
)
async def test_what_is_no_way_out(server: Upstream, alice: Caller, body: dict[str, Any]) -> None:
    """Words are words, and tools of one's own are one's own; nothing is kept."""
    status, _, answer = await asked(alice, body=asking() | body)
    assert status == 200, answer
    assert not server.asked[-1][2].get("store")


async def test_an_operator_may_allow_them(server: Upstream, key: Path) -> None:
    """Then they go on."""
    with start(server, key, UPSTREAM_ALLOW="openai=tools+addresses") as service:
        async with caller(service.address) as alice:
            for name in ("a tool of the provider", "a picture by its address"):
                status, _, _ = await asked(alice, body=asking() | of(name))
                assert status == 200
            status, _, _ = await asked(alice, path="/other/responses", body=of("a tool of the provider"))
            assert status == 400


async def test_a_name_without_end(service: Service, alice: Caller) -> None:
    """What a call is about may be as long as it likes: nobody else notices."""
    for body in (asking(model="m" * 300_000), asking("status 404", model="m" * 300_000)):
        assert (await asked(alice, body=body))[0] in {200, 404}
    assert (await asked(alice, path=f"/{'x' * 5000}/chat/completions"))[0] == 404
    assert (await asked(alice))[0] == 200
    assert not [record for record in service.records if record.get("event") == "the broker died"]


async def test_responses_are_not_kept(server: Upstream, alice: Caller) -> None:
    """Where a provider keeps what is said unless it is told not to, it is told."""
    await asked(alice, path="/openai/responses", body={"model": "m", "input": "words"})
    assert server.asked[-1][2]["store"] is False


async def test_no_redirects(alice: Caller) -> None:
    """A server that would send us elsewhere is not followed."""
    status, _, body = await asked(alice, body=asking("elsewhere"))
    assert (status, code(body)) == (502, "redirect")


async def test_whose_token(service: Service, alice: Caller) -> None:
    """A run's token is worth nothing after it; the placeholder is refused with what to do; nobody's is nobody's."""
    *_, token = told(await tried(alice, "who"))
    await until(lambda: any(record.get("event") == "run ended" for record in service.records))
    status, _, body = await asked(alice, token=token)
    assert (status, code(body)) == (401, "token")
    status, _, body = await asked(alice, token="runwire-gives-each-run-its-own")
    assert (status, code(body)) == (401, "placeholder")
    assert "inside the run" in body
    for each in ("", "x", KEY):
        assert (await asked(alice, token=each))[0] == 401


async def test_a_call_is_told(service: Service, alice: Caller) -> None:
    """What a call took is told where the agent tells nothing, and is the run's: once, before its end."""
    events = await alice.run("prisoner", f"ask_broker {json.dumps({'body': asking()})}")
    [called] = [event.model_called for event in events if kind(event) == "model_called"]
    assert (called.model, called.input_tokens, called.output_tokens, called.cached_input_tokens) == ("m-1", 10, 20, 1)
    assert called.elapsed.ToNanoseconds() >= called.to_first_word.ToNanoseconds() > 0
    [used] = terminal(events).agent_completed.usage.models
    assert (used.model, used.requests, used.input_tokens) == ("m-1", 1, 10)
    record = service.wait_for(lambda record: record["event"] == "models called" and record["user_id"] == "alice")
    assert {"run_id", "calls", "tokens", "seconds"} <= record.keys()


async def test_what_is_refused_is_told(service: Service, alice: Caller) -> None:
    """An operator reads in the log what of a run's calls was not carried, and why."""
    assert (await asked(alice, body=asking() | of("in the background")))[0] == 400
    record = service.wait_for(
        lambda record: record["event"] == "models called" and record.get("refused") == {"kept": 1}
    )
    assert record["calls"] == 0


@pytest.mark.force
async def test_a_run_that_is_refused_all_the_time(service: Service, alice: Caller) -> None:
    """After a while it is not listened to any more; others are."""
    statuses = told(await tried(alice, f"ask_and_be_refused {json.dumps({'path': '/openai/files'})}"))
    assert statuses[:200] == [404] * 200
    assert set(statuses[200:]) == {429}
    assert (await asked(alice))[0] == 200
    assert service.wait_for(lambda record: record["event"] == "models called" and record["refused"] == {"path": 200})


async def test_a_server_that_is_not_there(key: Path) -> None:
    """The run is told so, and so is the operator, with the server's name."""
    settings = {"UPSTREAMS": "openai=http://127.0.0.1:1/v1", "UPSTREAM_KEYS": f"openai={key}"}
    with start_engine(agents=AGENTS, **settings) as service:
        async with caller(service.address) as alice:
            status, _, body = await asked(alice)
            assert (status, code(body)) == (502, "unreachable")
        failed = service.wait_for(lambda record: record["event"] == "a model's server failed")
        assert failed["upstream"] == "openai"
        assert "refused" in failed["why"]


async def test_tokens_that_nobody_asked_for(server: Upstream, alice: Caller) -> None:
    """We have the server say what a call takes; who did not ask, and looks for a choice, finds one without words."""
    _, _, body = await asked(alice)
    assert server.asked[-1][2]["stream_options"] == {"include_usage": True}
    last = json.loads(body.split("data: ")[-2])
    assert (last["usage"]["prompt_tokens"], last["choices"][0]["delta"]) == (10, {})
    assert body.endswith("data: [DONE]\n\n")
    _, _, body = await asked(alice, body=asking(stream_options={"include_usage": True}))
    assert '"prompt_tokens": 10' in body


async def test_tokens_that_a_server_does_not_tell(alice: Caller) -> None:
    """They are as many as there are bytes for."""
    events = await alice.run("prisoner", f"ask_broker {json.dumps({'body': asking('no usage')})}")
    [called] = [event.model_called for event in events if kind(event) == "model_called"]
    assert called.input_tokens > 10
    assert called.output_tokens > 30


async def test_what_a_run_may_use(server: Upstream, key: Path) -> None:
    """A run that has used its tokens is told so, and the next one has its own."""
    with start(server, key, TOKENS_PER_RUN="50") as service:
        async with caller(service.address) as alice:
            told_of = told(await tried(alice, f"ask_often {json.dumps({'body': asking()})}"))
            assert [status for status, _ in told_of] == [200, 200, 402]
            assert "50 tokens that a run may" in told_of[-1][1]
            assert (await asked(alice))[0] == 200


@pytest.mark.force
async def test_a_slow_reader_stops_the_server(server: Upstream, alice: Caller) -> None:
    """Who reads nothing of an answer without an end makes the server wait; nobody keeps it meanwhile."""
    before = server.written
    call = alice.call("prisoner", f"ask_and_not_read {json.dumps({'body': asking('without end')})}")
    reading = asyncio.create_task(call.read())
    seen = -1
    while server.written == before or server.written != seen:
        seen = server.written
        await asyncio.sleep(0.5)
    assert 0 < server.written - before < 24 * 1024 * 1024
    server.left.clear()
    call.cancel()
    await asyncio.wait((reading,))
    assert await asyncio.to_thread(server.left.wait, 10), "and when it leaves, the server sees it"


@pytest.mark.force
async def test_who_connects_and_says_nothing(service: Service, alice: Caller) -> None:
    """There are so many of them, and no more: others call as before."""
    async with caller(service.address, "mallory") as mallory:
        call = mallory.call("prisoner", "connect_often")
        reading = asyncio.create_task(call.read())
        broker = psutil.Process(broker_of(service))
        await until(lambda: broker.num_fds() > 200)
        for _ in range(5):
            assert (await asked(alice))[0] == 200
        assert broker.num_fds() < 400
        call.cancel()
        await asyncio.wait((reading,))


@pytest.mark.force
async def test_what_is_not_heard_out_counts(server: Upstream, key: Path) -> None:
    """A call whose run hangs up before there is an answer has cost what was asked."""
    with start(server, key, TOKENS_PER_RUN="100") as service:
        async with caller(service.address) as alice:
            about = {"body": asking("late " + "x" * 200)}
            statuses = told(await tried(alice, f"ask_and_hang_up {json.dumps(about)}"))
            assert statuses[-1] == 402
            assert len(statuses) < 5


async def test_connections_are_warm(server: Upstream, alice: Caller) -> None:
    """One run's connection is the next one's."""
    server.connections.clear()
    for _ in range(5):
        await asked(alice)
    assert len(server.connections) == 1


async def test_the_broker_dies(server: Upstream, key: Path) -> None:
    """Another takes its place: runs that go on keep their tokens, and what they have used."""
    with start(server, key, TOKENS_PER_RUN="50") as service:
        service.wait_for(lambda record: record["event"] == "serving")
        async with caller(service.address) as alice:
            about = json.dumps({"body": asking()})
            call = alice.call("prisoner", f"ask_around_a_pause {about}")
            events: list[Any] = []
            async for response in call:
                events += response.events
                if any(kind(event) == "agent_reported" and event.agent_reported.name == "asked" for event in events):
                    break
            psutil.Process(broker_of(service)).kill()
            service.wait_for(lambda record: record["event"] == "the broker died")
            async for response in call:
                events += response.events
            statuses = told(terminal(events).agent_completed.output)
            assert statuses in ([200, 200, 402], [200, 402, 402]), "what was cut off at its last word has cost as much"
            assert kinds(events).count("model_called") == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"UPSTREAMS": "openai"}, "NAME=VALUE"),
        ({"UPSTREAMS": "openai=ftp://x"}, "https://"),
        ({"UPSTREAMS": "Open AI=https://x"}, "small letters"),
        (
            {"UPSTREAMS": "openai=https://x", "UPSTREAM_KEYS": "openai=/nowhere"},
            "/nowhere, with the key of openai, isn't there",
        ),
        ({"UPSTREAMS": "openai=https://x", "UPSTREAM_KEYS": "other=/dev/null"}, "which UPSTREAMS has not"),
        ({"UPSTREAMS": "openai=http://example.org", "UPSTREAM_KEYS": "openai=/dev/null"}, "in clear"),
        ({"UPSTREAMS": "openai=https://x", "UPSTREAM_ALLOW": "openai=everything"}, "addresses, tools"),
        ({"TOKENS_PER_RUN": "10"}, "UPSTREAMS"),
        ({"UPSTREAMS": "openai=https://x", "TOKENS_PER_USER_PER_DAY": "10"}, "STORE"),
        ({"JAIL_REQUIRE": "network,walls"}, "JAIL_REQUIRE"),
        ({"JAIL_READ": "/nowhere"}, "JAIL_READ names /nowhere"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, str], says: str) -> None:
    """They stop the boot, with a line that says what to do."""
    with start_engine(**settings) as service:
        assert service.wait() == 2
        [line] = service.lines
        assert says in line


@pytest.mark.force
async def test_agents_that_change(server: Upstream, key: Path, tmp_path: Path) -> None:
    """After a reload runs of before, in a jail of before, reach model servers as those of after do."""
    module = tmp_path / "young.py"
    text = (
        "import asyncio\nfrom tests.agents.prisoners import ask_broker\nfrom engine_service import Agent\n"
        "class Young(Agent):\n"
        "    isolation = 'jail'\n"
        "    async def run(self, context, input):\n"
        "        reply = await context.ask('Go on?') if input else None\n"
        "        return '{word} ' + await asyncio.to_thread(ask_broker, '')\n"
    )
    module.write_text(text.format(word="old"))
    settings = {"UPSTREAMS": f"openai={server.url}", "UPSTREAM_KEYS": f"openai={key}"}
    with start_engine("--reload", agents="young", folder=str(tmp_path), **settings) as service:
        async with caller(service.address) as alice:
            call = alice.call("young", "wait")
            events: list[Any] = []
            async for response in call:
                events += response.events
                if any(kind(event) == "input_requested" for event in events):
                    break
            module.write_text(text.format(word="newer"))
            service.wait_for(lambda record: record["event"] == "agents reloaded" and "young" in record["agents"])
            assert terminal(await alice.run("young")).agent_completed.output.startswith("newer [200")
            asked_for = next(event.input_requested for event in events if kind(event) == "input_requested")
            answer = AnswerRequest(
                run_id=response.run_id, request_id=asked_for.request_id, outcome=INPUT_OUTCOME_DECLINED
            )
            await alice.stub.Answer(answer, metadata=alice.metadata)
            async for response in call:
                events += response.events
            assert terminal(events).agent_completed.output.startswith("old [200")
