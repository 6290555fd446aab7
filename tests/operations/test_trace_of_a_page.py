"""A trace of `triage` from a real browser: the page's own, the gateway's, the run's, and what is below."""

import uuid

import pytest
from playwright.sync_api import Browser

from scripts.trace_picture import traced
from tests.support.receiver import Span

pytestmark = pytest.mark.operations


def path(span: Span, spans: list[Span]) -> str:
    above = next((each for each in spans if each.id == span.parent_id), None)
    return f"{path(above, spans)} > {span.name}" if above else span.name


def test_triage(chrome: Browser) -> None:
    """From the click to the tools of its sub-agents, with one trace, and nothing that has no place in it."""
    trace, page = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    spans = traced(chrome, f"00-{trace}-{page}-01")
    found = {path(span, spans) for span in spans}
    top = "GET /v1/stream > invoke_agent triage"
    assert found >= {
        "GET /v1/stream",
        top,
        f"{top} > execute_tool search",
        f"{top} > execute_tool classify",
        f"{top} > invoke_agent historian",
        f"{top} > invoke_agent resolver",
        f"{top} > invoke_agent resolver > execute_tool search",
    }
    [first] = [span for span in spans if span.parent_id == page]
    assert (first.service, first.kind, first.about["websocket.close_code"]) == ("runwire-gateway", "SERVER", 1000)
    assert {span.trace_id for span in spans} == {trace}
    for span in spans:
        above = next((each for each in spans if each.id == span.parent_id), None)
        if above and above.service == span.service:
            assert above.began <= span.began <= span.ended <= above.ended, span
