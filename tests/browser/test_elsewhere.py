"""Pages of another origin than the gateway's, in Chromium."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page

from edge_gateway.cors import SEES_PREFLIGHTS
from tests.support.services import Service, engine, free_address, gateway


@contextmanager
def page_of(front: Service, chrome: Browser) -> Iterator[Page]:
    """A page of a gateway's."""
    page = chrome.new_page(bypass_csp=True)
    page.goto(f"http://{front.address}/healthz")
    yield page
    page.close()


def test_a_page_that_is_named(chrome: Browser) -> None:
    """A page elsewhere that is named loads the client from the gateway, runs agents, and lists them with its token."""
    with (
        engine() as back,
        gateway(back.address) as elsewhere,
        gateway(back.address, ORIGINS=f"http://{elsewhere.address}") as front,
        page_of(elsewhere, chrome) as page,
    ):
        found = page.evaluate(
            """async ([address, lists]) => {
                const { run, agents, runs } = await import(`http://${address}/runwire.js`);
                const options = { url: `ws://${address}/v1/stream`, token: "dev:alice" };
                const types = [];
                for await (const { type } of run({ agent: "echo", input: "hi" }, options)) types.push(type);
                const listed = lists ? (await agents(options)).map(({ name }) => name) : ["echo"];
                return [types, listed.includes("echo"), lists ? await runs(options) : []];
                }""",
            [front.address, SEES_PREFLIGHTS],
        )
    assert found == [["agent_started", "agent_message", "agent_completed"], True, []]


@pytest.mark.parametrize("stream", ["WebSocket", "WebSocketStream"])
def test_a_page_that_is_not_named(chrome: Browser, stream: str) -> None:
    """A page elsewhere that isn't named is told so at once, and does not come back."""
    with (
        engine() as back,
        gateway(back.address) as elsewhere,
        gateway(back.address) as front,
        page_of(elsewhere, chrome) as page,
    ):
        found = page.evaluate(
            """async ([address, stream]) => {
                const { run, answer } = await import("/runwire.js");
                const options = { url: `ws://${address}/v1/stream`, onconnection: ({ state }) => states.push(state) };
                if (stream === "WebSocket") options.WebSocket = WebSocket;
                const states = [];
                const found = [];
                const told = ({ code, message, retry }) => found.push([code, message, retry]);
                await run({ agent: "echo", resumeWindow: 60 }, options)[Symbol.asyncIterator]().next().catch(told);
                await answer({ runId: "1", requestId: "2" }, options).catch(told);
                return [found, states];
                }""",
            [front.address, stream],
        )
        front.wait_for(lambda record: record.get("origin") == f"http://{elsewhere.address}")
    sentence = "Pages from there may not open a socket here."
    assert found == [[[4007, sentence, False]] * 2, ["connecting", "closed"]]


def test_a_gateway_that_is_away(chrome: Browser) -> None:
    """A gateway that is away is waited for: nobody says that it refuses."""
    with engine() as back, gateway(back.address) as elsewhere, page_of(elsewhere, chrome) as page:
        found = page.evaluate(
            """async (address) => {
            const { run } = await import("/runwire.js");
            const states = [];
            const abort = new AbortController();
            const onconnection = ({ state, error }) => {
              states.push([state, error?.code ?? 0]);
              if (states.length === 3) abort.abort(new Error("enough"));
            };
            const options = { url: `ws://${address}/v1/stream`, onconnection, signal: abort.signal };
            await run({ agent: "echo" }, options)[Symbol.asyncIterator]().next().catch(() => {});
            return states;
            }""",
            free_address(),
        )
    assert found[:3] == [["connecting", 0], ["waiting", 1006], ["reconnecting", 0]]
