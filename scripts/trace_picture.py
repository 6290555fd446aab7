"""Draws a trace of triage, from a real browser through both services to a receiver of traces."""

import sys
import uuid
from html import escape
from pathlib import Path

from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.browser import browser, chromium
from tests.support.receiver import Receiver, Span, receiver
from tests.support.services import engine, gateway

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "trace.svg"
QUESTION = "My invoice shows a wrong amount"
RUN = """async ([input, traceparent]) => {
  const { run } = await import("/runwire.js");
  for await (const event of run({ agent: "triage", input }, { traceparent })) last = event;
  return last.type;
}""".replace("for await", "let last;\n  for await")
WIDTH, LEFT, ROW = 900, 290, 26
FONT = 'font-family="system-ui, sans-serif" font-size="13"'
COLOURS = {
    "GET": "#64748b",
    "invoke_agent": "#2563eb",
    "execute_tool": "#0f766e",
    "chat": "#b45309",
    "ask_user": "#7c3aed",
}


def traced(chrome: Browser, traceparent: str) -> list[Span]:
    """Run triage in a page that is part of a trace, and return the spans of that, oldest first."""
    with receiver() as collector, engine(DEMO_AGENTS="true", OTLP_ENDPOINT=collector.url) as back:
        with gateway(back.address, OTLP_ENDPOINT=collector.url) as front:
            page = chrome.new_page()
            page.goto(f"http://{front.address}/")
            page.evaluate(RUN, [QUESTION, traceparent])
            page.close()
        back.stop()  # which sends what is left
        return whole(collector, traceparent)


def whole(collector: Receiver, traceparent: str) -> list[Span]:
    """Return a trace once it has its root, and all that its spans are below."""
    _, trace, page, _ = traceparent.split("-")
    spans = collector.trace(trace, 7)
    if lost := {span.parent_id for span in spans} - {page, *(span.id for span in spans)}:
        raise ValueError(f"spans are below what is not there: {lost}")
    return spans


def rows(spans: list[Span], of: str, depth: int = 0) -> list[tuple[int, Span]]:
    """Return spans in the order in which they are drawn, each with how deep it is."""
    below = [span for span in spans if span.parent_id == of]
    return [row for span in below for row in ((depth, span), *rows(spans, span.id, depth + 1))]


def drawn(spans: list[Span], of: str) -> str:
    """Draw them as bars over time."""
    lines = rows(spans, of)
    began = min(span.began for span in spans)
    length = max(span.ended for span in spans) - began
    scale = (WIDTH - LEFT - 90) / length
    height = ROW * len(lines) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (depth, span) in enumerate(lines):
        y = ROW * number + 8
        x, width = LEFT + (span.began - began) * scale, max((span.ended - span.began) * scale, 2)
        colour = COLOURS[span.name.split()[0]]
        milliseconds = (span.ended - span.began) / 1e6
        parts += [
            f'<text x="{10 + 18 * depth}" y="{y + 17}" fill="#0f172a">{escape(span.name)}</text>',
            f'<rect x="{x:.1f}" y="{y + 5}" width="{width:.1f}" height="16" rx="3" fill="{colour}"/>',
            f'<text x="{x + width + 6:.1f}" y="{y + 17}" fill="#475569">{milliseconds:.1f} ms</text>',
        ]
    return "\n".join((*parts, "</svg>", ""))


def main() -> None:
    """Draw it."""
    executable = chromium()
    if executable is None:
        sys.exit("there is no Chromium here")
    page = uuid.uuid4().hex[:16]
    with browser(executable) as chrome:
        spans = traced(chrome, f"00-{uuid.uuid4().hex}-{page}-01")
    PICTURE.write_text(drawn(spans, page))


if __name__ == "__main__":
    main()
