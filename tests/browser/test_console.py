"""The console, as a person uses it, in a real Chromium."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.support.services import Service, both
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.valkey import valkey

AGENTS = "tests.agents.asking,tests.agents.probes,tests.agents.rogues,tests.agents.dirt,tests.agents.talkers"
SAVERS = "tests.agents.savers"
SIZES = [(380, 800), (1360, 860)]


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, Service]]:
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="100", HEARTBEAT="1") as (back, front):
        yield back, front


@pytest.fixture
def page(chrome: Browser, services: tuple[Service, Service]) -> Iterator[Page]:
    with opened(chrome, services[1]) as shown:
        yield shown


class opened:  # noqa: N801 - reads as what it is
    """A page of the console, whose own errors fail the test."""

    def __init__(self, chrome: Browser, front: Service, **options: object) -> None:
        self.page = chrome.new_page(**options)  # type: ignore[arg-type]
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._console)
        self.page.goto(f"http://{front.address}/")
        expect(self.page.locator("#engine")).to_contain_text("engine ready")

    def _console(self, message: object) -> None:
        text = message.text  # type: ignore[attr-defined]
        if message.type == "error" and "WebSocket" not in text and "Failed to load" not in text:  # type: ignore[attr-defined]
            self.errors.append(text)

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.errors == []


def has_begun(record: dict[str, object]) -> bool:
    return record.get("event") == "run started"


def ask(page: Page, agent: str, question: str) -> None:
    page.select_option("#agent", agent)
    page.fill("#input", question)
    page.click("#start")


def ask_with(page: Page, agent: str, question: str, parameters: str) -> None:
    page.locator("#more summary").click()
    page.select_option("#agent", agent)
    page.fill("#parameters", parameters)
    ask(page, agent, question)


def test_a_run_from_click_to_answer(page: Page) -> None:
    """A person picks an agent, asks, and watches the run to its answer."""
    ask(page, "triage", "My invoice shows a wrong amount!")
    run = page.locator(".run")
    expect(run).to_have_class(re.compile("completed"))
    expect(run.locator(".answer")).to_contain_text("Open the invoice under Billing")
    expect(run.locator(".tool strong").first).to_have_text("search")
    expect(run.locator(".timeline .depth-1.tool strong").first).to_have_text("search")  # the resolver's, indented
    run.locator("summary", has_text="result").first.click()
    expect(run.locator("pre").nth(1)).to_contain_text("An invoice shows a wrong amount")
    run.locator(".raw").click()
    expect(run.locator(".frames")).to_contain_text('"agentStarted"')
    run.locator(".again").click()
    expect(page.locator(".run.completed")).to_have_count(2)


def test_with_the_keyboard_alone(page: Page) -> None:
    """All of it works without a mouse."""
    page.locator("#input").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("Where is my parcel?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".run .answer")).to_contain_text("tracking number")
    again = page.locator(".run .again")
    expect(again).to_be_visible()
    again.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".run.completed")).to_have_count(2)


def test_cancel(page: Page) -> None:
    """A run that is cancelled says so, and can be run again."""
    ask(page, "waiter", "wait")
    run = page.locator(".run")
    expect(run.locator(".answer")).to_have_text("waiting")
    run.locator(".cancel").click()
    expect(run).to_have_class(re.compile("cancelled"))
    expect(run.locator(".timeline")).to_contain_text("Cancelled by its user.")
    expect(run.locator(".again")).to_be_visible()


def test_a_quiet_run_is_seen_to_live(page: Page) -> None:
    """While a run says nothing, its heartbeats show that it is still working."""
    ask(page, "waiter", "wait")
    expect(page.locator(".run .quiet")).to_contain_text(re.compile(r"still working, \d+ s"))
    page.locator(".run .cancel").click()


def test_a_failure_is_unmistakable(page: Page) -> None:
    """A run that fails says why, in a way that nobody overlooks."""
    ask(page, "rogue", "fail")
    run = page.locator(".run")
    expect(run).to_have_class(re.compile("failed"))
    expect(run.locator(".timeline .failed")).to_have_text(re.compile("The shop is closed."))
    ask(page, "rogue", "fail_for_now")
    expect(page.locator(".run").first.locator(".again")).to_have_text("Try again")


def test_two_runs_never_mix(page: Page, chrome: Browser, services: tuple[Service, Service]) -> None:
    """Two runs at once on a page, and a third on another user's, each show their own and nothing else."""
    with opened(chrome, services[1]) as other:
        other.fill("#token", "dev:bob")
        for word in ("red", "blue"):
            ask(page, "ticker", word)
        ask(other, "echo", "green")
        expect(page.locator(".run.completed")).to_have_count(2)
        expect(other.locator(".run.completed .answer")).to_have_text("green")
        ids = {page.locator(".run .id").nth(number).inner_text() for number in (0, 1)}
        assert len({*ids, other.locator(".run .id").inner_text()}) == 3
        ticks = "".join(str(tick) for tick in range(60))
        for number in (0, 1):
            expect(page.locator(".run .answer").nth(number)).to_have_text(ticks)


def test_the_engine_is_killed(chrome: Browser) -> None:
    """The engine dies in the middle of a run: the page tries to reach it, and says so when the run is lost."""
    with start_engine(agents=AGENTS) as back, start_gateway(back.address) as front, opened(chrome, front) as page:
        address = back.address
        ask(page, "waiter", "wait")
        expect(page.locator(".run .answer")).to_have_text("waiting")
        back.kill()
        expect(page.locator(".run .state")).to_contain_text("reconnecting")
        expect(page.locator("#engine")).to_have_class("down", timeout=10_000)
        with start_engine(agents=AGENTS, LISTEN=address):
            expect(page.locator("#engine")).to_have_class("up", timeout=15_000)
            expect(page.locator(".run")).to_have_class(re.compile("lost"), timeout=15_000)
            expect(page.locator(".run .failed")).to_contain_text("Your run was lost.")
            page.locator(".run .again").click()
            expect(page.locator(".run").first.locator(".answer")).to_have_text("waiting", timeout=10_000)


def test_the_engine_is_killed_and_another_goes_on(chrome: Browser) -> None:
    """What was said since the agent had saved is taken back, and said anew: each word stands there once."""
    with (
        valkey() as store,
        start_engine(agents=SAVERS, STORE=store.url) as one,
        start_engine(agents=SAVERS, STORE=store.url) as other,
        start_gateway(f"{one.address},{other.address}") as front,
        opened(chrome, front) as page,
    ):
        ask_with(page, "saver", "count", '{"times": 40, "every": 9, "pause": 0.05, "text": "n"}')
        run = page.locator(".run")
        expect(run.locator(".answer")).to_contain_text("n12")
        [owner] = [each for each in (one, other) if any(has_begun(record) for record in each.records)]
        owner.kill()
        expect(run).to_have_class(re.compile("completed"), timeout=20_000)
        expect(run.locator(".answer")).to_have_text("".join(f"n{number}" for number in range(40)))
        expect(run.locator(".recovered")).to_contain_text("Its engine was lost. Another one goes on: attempt 2.")
        run.locator(".recovered summary").click()
        expect(run.locator(".recovered pre")).to_contain_text("n9")


def test_the_gateway_is_restarted(chrome: Browser) -> None:
    """The gateway is restarted: a run goes on where it was, and one begun meanwhile begins when it is back."""
    with start_engine(agents=AGENTS) as back:
        with start_gateway(back.address, DRAIN_GRACE="0.1") as front:
            address = front.address
            shown = opened(chrome, front)
            page = shown.page
            ask(page, "waiter", "wait")
            expect(page.locator(".run .answer")).to_have_text("waiting")
            front.stop()
        expect(page.locator(".run .state")).to_contain_text("reconnecting")
        ask(page, "echo", "patience")
        expect(page.locator(".run").first.locator(".state")).to_contain_text("reconnecting")
        with start_gateway(back.address, LISTEN=address):
            expect(page.locator(".run").first.locator(".answer")).to_have_text("patience", timeout=20_000)
            expect(page.locator(".run").last.locator(".state")).to_have_text("continued at 2", timeout=20_000)
            page.locator(".run").last.locator(".cancel").click()
            expect(page.locator(".run").last).to_have_class(re.compile("cancelled"))
            page.close()


def test_the_connection_is_cut(page: Page) -> None:
    """A button cuts the connection: the page says so, says where it went on, and shows every event once."""
    ask(page, "ticker", "tick")
    run = page.locator(".run")
    expect(run.locator(".answer")).to_contain_text("5")
    run.locator(".cut").click()
    expect(run.locator(".state")).to_contain_text(re.compile(r"reconnecting"))
    expect(run.locator(".state")).to_have_text(re.compile(r"continued at \d+"))
    expect(run).to_have_class(re.compile("completed"))
    expect(run.locator(".answer")).to_have_text("".join(str(tick) for tick in range(60)))


def test_the_page_is_loaded_again(page: Page) -> None:
    """A run goes on in the timeline of the page that is loaded again, from its beginning to its end."""
    ask(page, "ticker", "tick")
    expect(page.locator(".run .answer")).to_contain_text("5")
    run_id = page.locator(".run .id").inner_text()
    page.reload()
    run = page.locator(".run")
    expect(run.locator(".id")).to_have_text(run_id)
    expect(run.locator(".question")).to_have_text("tick")
    expect(run).to_have_class(re.compile("completed"))
    expect(run.locator(".answer")).to_have_text("".join(str(tick) for tick in range(60)))
    run.locator(".close").click()
    page.reload()
    expect(page.locator("#engine")).to_contain_text("engine ready")
    expect(page.locator(".run")).to_have_count(0)


def test_a_run_is_slow_enough_to_be_stopped_by_hand(page: Page) -> None:
    """The run that the page proposes goes on for long enough to be cut and cancelled, and the page says why."""
    expect(page.locator("#besides")).to_have_text('{"pace":0.15}')
    page.click("#start")
    run = page.locator(".run")
    expect(run.locator(".besides")).to_have_text('{"pace":0.15}')
    expect(run.locator(".answer")).to_contain_text("Open")
    run.locator(".cut").click()
    expect(run.locator(".state")).to_have_text(re.compile(r"continued at \d+"))
    run.locator(".cancel").click()
    expect(run).to_have_class(re.compile("cancelled"))
    page.select_option("#agent", "echo")
    expect(page.locator("#besides")).to_have_text("")


def test_a_question_is_a_form(page: Page) -> None:
    """What an agent asks is a form, filled in with the keyboard; what was answered, by whom and when, stays."""
    ask(page, "orders", "Where is it?")
    form = page.locator(".run .asked")
    expect(form.locator(".message")).to_have_text("Which order?")
    expect(form.locator(".until")).to_contain_text("until")
    page.get_by_label("order", exact=True).fill("17")
    page.get_by_label("many").fill("2")
    page.keyboard.press("Enter")
    run = page.locator(".run")
    expect(run).to_have_class(re.compile("completed"))
    expect(form).to_have_count(0)
    entry = run.locator(".timeline .asks")
    expect(entry).to_contain_text("asks: Which order?")
    expect(entry).to_contain_text(re.compile(r"Accepted by anonymous, \d"))
    expect(entry.locator("summary")).to_contain_text('"order":"17"')


def test_money_back(page: Page) -> None:
    """The console offers what a person has to approve of; the tool and its arguments are shown, with two buttons."""
    page.select_option("#agent", "triage")
    page.locator("#example button").click()
    form = page.locator(".run .asked")
    expect(form.locator("dt")).to_have_text("pay_back")
    expect(form.locator("dd")).to_have_text(["amount: 40", "currency: EUR", "invoice: 2026-1042"])
    expect(form.locator("button", has_text="Approve")).to_be_focused()
    page.keyboard.press("Tab")
    expect(form.locator("button", has_text="Decline")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".run")).to_have_class(re.compile("completed"))
    expect(page.locator(".run .answer")).to_contain_text("40.00 EUR are on their way back")
    page.locator(".again").click()
    page.locator(".run .asked button", has_text="Decline").click()
    expect(page.locator(".run .answer").first).to_contain_text("Nothing was paid back")


def test_a_question_expires(page: Page) -> None:
    """A question that nobody answered says so, and its form is gone."""
    ask_with(page, "asker", "Well?", '{"timeout": 0.5}')
    expect(page.locator(".run .asks")).to_contain_text("Expired: nobody answered in time")
    expect(page.locator(".run .asked")).to_have_count(0)


def test_a_question_survives_a_reload(page: Page) -> None:
    """A page that is loaded again asks again, and what was asked is answered there."""
    ask(page, "asker", "Well?")
    expect(page.locator(".run .asked")).to_be_visible()
    page.reload()
    page.locator(".run .asked button", has_text="Answer").click()
    expect(page.locator(".run")).to_have_class(re.compile("completed"))


def test_another_device(page: Page, chrome: Browser, services: tuple[Service, Service]) -> None:
    """What was asked on one page is found, and answered, on another; and a run can be shown there."""
    page.fill("#token", "dev:erin")
    page.dispatch_event("#token", "change")
    ask(page, "asker", "Well?")
    expect(page.locator(".run .asked")).to_be_visible()
    with opened(chrome, services[1]) as other:
        other.fill("#token", "dev:erin")
        other.dispatch_event("#token", "change")
        expect(other.locator("#elsewhere .message")).to_have_text(["Question 0?"])
        other.locator("#elsewhere button", has_text="Decline").click()
        expect(page.locator(".run")).to_have_class(re.compile("completed"))
        expect(page.locator(".run .asks")).to_contain_text("Declined by erin")
        expect(other.locator("#elsewhere")).to_be_hidden(timeout=10_000)


def test_parameters(page: Page) -> None:
    """Parameters go with the question; what is no JSON object is refused with a sentence, and no run begins."""
    for wrong in ('{"times": 3', "[3]", "3", "null"):
        ask_with(page, "echo", "ho", wrong)
        expect(page.get_by_role("alert")).to_contain_text("Parameters have to be a JSON object")
        expect(page.get_by_label("Parameters")).to_be_focused()
        expect(page.locator(".run")).to_have_count(0)
        page.locator("#more summary").click()
    page.locator("#more summary").click()
    page.get_by_label("Parameters").fill('{"times": 3}')
    expect(page.get_by_role("alert")).to_have_count(0)
    page.click("#start")
    expect(page.locator(".run .answer")).to_have_text("hohoho")
    page.locator(".run .again").click()
    expect(page.locator(".run .answer").first).to_have_text("hohoho")


def test_a_conversation_goes_on(page: Page) -> None:
    """What was asked and answered goes into the next run as its history, with its thread, unless it is taken out."""
    page.locator("#more summary").click()
    page.get_by_label("Thread").fill("seven")
    page.locator("#more summary").click()
    ask(page, "witness", "first")
    answer = page.locator(".run .answer").first
    expect(answer).to_have_text('{"input": "first", "thread": "seven", "history": []}')
    page.locator(".run .continue").first.click()
    expect(page.locator("#input")).to_be_focused()
    expect(page.locator("#history li")).to_have_count(2)
    expect(page.locator("#history li").first).to_have_text("User: first")
    expect(page.locator("#besides")).to_have_text("thread seven, after 2 messages")
    ask(page, "witness", "second")
    expect(answer).to_contain_text('"input": "second", "thread": "seven", "history": ["user: first", "assistant: {')
    expect(page.locator("#history li")).to_have_count(0)
    page.locator(".run .continue").first.click()
    expect(page.locator("#history li")).to_have_count(4)
    page.get_by_role("button", name="Begin afresh").click()
    ask(page, "witness", "third")
    expect(answer).to_have_text('{"input": "third", "thread": "seven", "history": []}')


def test_the_agent_is_remembered(page: Page) -> None:
    """The agent that was chosen is still chosen when the page is loaded again."""
    page.select_option("#agent", "witness")
    page.reload()
    expect(page.locator("#engine")).to_contain_text("engine ready")
    expect(page.locator("#agent")).to_have_value("witness")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_answer_stays_in_sight(chrome: Browser, services: tuple[Service, Service], width: int, height: int) -> None:
    """However much happens and is said, the answer's end is in sight, and the timeline shows the newest."""
    with opened(chrome, services[1], viewport={"width": width, "height": height}) as page:
        ask_with(page, "reporter", "word", '{"steps": 50, "words": 500}')
        run = page.locator(".run")
        expect(run.locator(".answer")).to_contain_text("word499")
        expect(run.locator(".answer")).to_be_in_viewport(ratio=0.9)
        for box in (".answer", ".happened"):
            page.wait_for_function(
                "box => box.scrollTop > 0 && box.scrollHeight - box.scrollTop - box.clientHeight < 2",
                arg=run.locator(box).element_handle(),
            )


def test_a_timeline_is_bounded(page: Page) -> None:
    """A timeline has a thousand entries: the oldest go, and a line says how many. A text that is too long is cut."""
    ask_with(page, "reporter", "x" * 1000, '{"steps": 1500, "words": 200}')
    run = page.locator(".run")
    expect(run).to_have_class(re.compile("completed"), timeout=15_000)
    expect(run.locator(".timeline li")).to_have_count(1000)
    expect(run.locator(".dropped")).to_have_text("Older entries that are not shown any more: 501")
    expect(run.locator(".timeline li").last).to_contain_text("reporter: done")
    assert run.locator(".answer").evaluate("answer => answer.textContent.length") == 100_000
    expect(run.locator(".answer")).to_have_text(re.compile("^…x.*x199 $"))


def test_a_run_that_was_lost(chrome: Browser, services: tuple[Service, Service]) -> None:
    """When the gateway says that a run was lost, the page shows its sentence."""
    with opened(chrome, services[1]) as page:
        sockets: list[WebSocketRoute] = []

        def route(socket: WebSocketRoute) -> None:
            sockets.append(socket)
            if len(sockets) == 1:
                socket.connect_to_server()
            else:
                socket.on_message(lambda _: socket.close(code=4005, reason="Your run was lost."))

        page.route_web_socket("**/v1/stream", route)
        page.reload()
        ask(page, "ticker", "tick")
        expect(page.locator(".run .answer")).to_contain_text("5")
        page.locator(".run .cut").click()
        expect(page.locator(".run .failed")).to_have_text("Your run was lost.")
        expect(page.locator(".run .state")).to_have_text("no longer there")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1360])
def test_it_can_be_read(chrome: Browser, services: tuple[Service, Service], scheme: str, width: int) -> None:
    """Every text has the contrast that WCAG AA asks for, in light and dark, and nothing is wider than the screen."""
    size = {"width": width, "height": 800}
    with opened(chrome, services[1], viewport=size, color_scheme=scheme, bypass_csp=True) as page:
        ask(page, "rogue", "fail")
        expect(page.locator(".run.failed")).to_have_count(1)
        ask(page, "triage", "How do I feed the plants?")
        expect(page.locator(".run.completed")).to_have_count(1)
        page.locator(".run .continue").first.click()
        page.fill("#parameters", "wrong")
        page.click("#start")
        expect(page.get_by_role("alert")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        poor = page.evaluate(CONTRAST)
        assert poor == []


CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.offsetParent) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) poor.push(`${element.tagName}.${element.className} ${contrast.toFixed(2)}`);
  }
  return poor;
}"""


def test_nothing_comes_from_elsewhere(chrome: Browser, services: tuple[Service, Service]) -> None:
    """The page loads nothing from another place, and its policy forbids what is inline."""
    front = services[1]
    page = chrome.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(f"http://{front.address}/")
    assert answer
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    expect(page.locator("#engine")).to_contain_text("engine ready")
    assert all(url.startswith(f"http://{front.address}/") for url in asked)
    page.close()
