"""What the console shows of a run's connections."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.console import ask, ends, opened
from tests.support.services import Service, both
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.valkey import valkey

pytestmark = pytest.mark.console

AGENTS = "tests.agents.probes,tests.agents.rogues,tests.agents.dirt,tests.agents.talkers,tests.agents.asking"


@pytest.fixture(scope="module")
def front() -> Iterator[Service]:
    with both(AGENTS=AGENTS, HEARTBEAT="1", MAX_RUNS_PER_USER="50") as (_, service):
        yield service


@pytest.fixture
def page(chrome: Browser, front: Service) -> Iterator[Page]:
    with opened(chrome, front, viewport={"width": 1360, "height": 860}) as shown:
        yield shown


def test_the_same_as_bytes(page: Page) -> None:
    """Once a run is over it can be read again as protobuf: the same events, in fewer bytes, word for word."""
    turn = ask(page, "echo", "word for word")
    ends(turn, "done")
    page.click("#tab-network")
    page.click("#network .bytes")
    frames = page.locator("#network .frames")
    expect(frames).to_contain_text("connected, as runwire.v1.proto")
    expect(frames.locator("li").last).to_contain_text("closed with 1000")
    frames.locator("button", has_text="binary").last.click()
    raw = page.locator("#network .raw")
    expect(raw).to_contain_text(re.compile(r"0000  0a 24"))  # field 1, 36 bytes: the run's id
    expect(raw).to_contain_text('"word for word"')
    assert turn.locator(".id").inner_text() in raw.inner_text()


def test_heartbeats(page: Page) -> None:
    """A run that says nothing still works: its heartbeats are there, and the page says so."""
    turn = ask(page, "waiter", "wait")
    page.click("#tab-network")
    expect(page.locator("#network .frames")).to_contain_text(re.compile(r"← heartbeat, \d+ B"), timeout=10_000)
    expect(turn.locator(".quiet")).to_contain_text(re.compile(r"still working, \d+ s"))
    turn.locator(".cancel").click()
    ends(turn, "cancelled")


def test_an_agent_that_ends_its_process(page: Page) -> None:
    """It asks first; then the run ends with a sentence, and everything else goes on."""
    page.get_by_role("button", name="End your own process").click()
    turn = page.locator(".turn")
    turn.locator(".asked button", has_text="Yes").click()
    ends(turn, "failed")
    expect(turn.locator(".failure")).to_contain_text("killed by SIGKILL")
    ends(ask(page, "echo", "still here"), "done")


def test_what_came_while_one_was_away(page: Page, front: Service) -> None:
    """A page that was left says how much came meanwhile, and shows all of it."""
    turn = ask(page, "ticker", "tick")
    expect(turn.locator(".answer")).to_contain_text("5")
    page.goto("about:blank")

    def said() -> int:
        [run] = page.request.get(f"http://{front.address}/v1/runs").json()["runs"][:1]
        return int(run["lastSeq"])

    before = said()
    while said() < before + 5:
        pass
    page.goto(f"http://{front.address}/")
    turn = page.locator(".turn")
    expect(turn.locator(".away")).to_contain_text(re.compile(r"While you were away: \d+ events\."))
    ends(turn, "done")
    expect(turn.locator(".answer")).to_have_text("".join(str(tick) for tick in range(60)))


def test_the_engine_is_killed(chrome: Browser) -> None:
    """The engine dies in the middle of a run: the page tries to reach it, and says so when the run is lost."""
    with start_engine(agents=AGENTS) as back, start_gateway(back.address) as front, opened(chrome, front) as page:
        address = back.address
        turn = ask(page, "waiter", "wait")
        expect(turn.locator(".answer")).to_have_text("waiting")
        back.kill()
        expect(turn.locator(".state")).to_contain_text("reconnecting")
        expect(page.locator("#engine")).to_have_class("down", timeout=10_000)
        with start_engine(agents=AGENTS, LISTEN=address):
            expect(page.locator("#engine")).to_have_class("up", timeout=15_000)
            ends(turn, "lost")
            expect(turn.locator(".failure")).to_contain_text("Your run was lost.")
            turn.locator(".again").click()
            expect(page.locator(".turn .answer").last).to_have_text("waiting", timeout=10_000)


def test_the_engine_is_killed_and_another_goes_on(chrome: Browser) -> None:
    """What was said since the agent had saved is taken back, and said anew: each word stands there once."""
    with (
        valkey() as store,
        start_engine(agents="tests.agents.savers", STORE=store.url) as one,
        start_engine(agents="tests.agents.savers", STORE=store.url) as other,
        start_gateway(f"{one.address},{other.address}") as front,
        opened(chrome, front) as page,
    ):
        turn = ask(page, "saver", "count", '{"times": 40, "every": 9, "pause": 0.05, "text": "n"}')
        expect(turn.locator(".answer")).to_contain_text("n12")
        [owner] = [each for each in (one, other) if any(has_begun(record) for record in each.records)]
        owner.kill()
        ends(turn, "done", 20_000)
        expect(turn.locator(".answer")).to_have_text("".join(f"n{number}" for number in range(40)))
        recovered = page.locator(".rows .row.recovered")
        expect(recovered).to_contain_text("attempt 2")
        recovered.click()
        expect(page.locator(".about")).to_contain_text("n9")


def has_begun(record: dict[str, object]) -> bool:
    return record.get("event") == "run started"


def test_the_gateway_is_restarted(chrome: Browser) -> None:
    """The gateway is restarted: a run goes on where it was, and one begun meanwhile begins when it is back."""
    with start_engine(agents=AGENTS) as back:
        with start_gateway(back.address, DRAIN_GRACE="0.1") as front:
            address = front.address
            page = opened(chrome, front).page
            waiting = ask(page, "waiter", "wait")
            expect(waiting.locator(".answer")).to_have_text("waiting")
            front.stop()
        waiting = page.locator(".turn").first
        expect(waiting.locator(".state")).to_contain_text("reconnecting")
        patient = ask(page, "echo", "patience")
        expect(patient.locator(".state")).to_contain_text("reconnecting")
        with start_gateway(back.address, LISTEN=address):
            expect(patient.locator(".answer")).to_have_text("patience", timeout=20_000)
            expect(waiting.locator(".state")).to_have_text("continued at 2", timeout=20_000)
            waiting.locator(".cancel").click()
            ends(waiting, "cancelled")
            page.close()


def test_what_another_page_asks(page: Page, chrome: Browser, front: Service) -> None:
    """What was asked on one page is found, and answered, on another of the same user's."""
    with opened(chrome, front, "erin") as one, opened(chrome, front, "erin") as other:
        turn = ask(one, "asker", "Well?")
        expect(turn.locator(".asked")).to_be_visible()
        expect(other.locator("#elsewhere .message")).to_have_text(["Question 0?"], timeout=10_000)
        other.locator("#elsewhere button", has_text="No").click()
        ends(turn, "done")
        expect(other.locator("#elsewhere")).to_be_hidden(timeout=10_000)
    expect(page.locator("#elsewhere")).to_be_hidden()
