"""What a call takes, read from an answer that comes in pieces cut anywhere."""

import json
import time
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine_service.broker.meter import EVENTS, Meter


def event(document: Any, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(document)}{end}".encode()


def stream(end: str = "\n\n", **usage: Any) -> bytes:
    words = [{"model": "m", "choices": [{"delta": {"content": word}}], "usage": None} for word in ("usage", "é", "")]
    told = [{"model": "m", "choices": [], "usage": usage}] if usage else []
    return b": a comment\n\n" + b"".join(event(each, end) for each in [*words, *told]) + b"data: [DONE]\n\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


def metered(pieces: list[bytes], *, is_added: bool = False, kind: str = EVENTS) -> tuple[Meter, bytes]:
    meter = Meter(kind, 400, time.monotonic(), is_added=is_added)
    return meter, b"".join([*map(meter.take, pieces), meter.finish()])


PLACES = st.lists(st.integers(0, 2000), max_size=12)


@given(PLACES, st.sampled_from(["\n\n", "\r\n\r\n"]))
def test_what_a_server_says_goes_through(places: list[int], end: str) -> None:
    """However it is cut: every byte goes through, and the tokens are those that it says."""
    data = stream(end, prompt_tokens=7, completion_tokens=5, prompt_tokens_details={"cached_tokens": 2})
    meter, passed = metered(cut(data, places))
    assert passed == data
    assert meter.tokens() == (7, 5, 2, False)
    assert meter.model == "m"
    assert meter.to_first_word is not None


@given(PLACES)
def test_what_only_we_asked_for(places: list[int]) -> None:
    """It goes through with a choice that has no words, and all else as it was."""
    data = stream(prompt_tokens=7, completion_tokens=5)
    meter, passed = metered(cut(data, places), is_added=True)
    before, after = data.split(b"\n\n"), passed.split(b"\n\n")
    different = [each for each, old in zip(after, before, strict=True) if each != old]
    [changed] = [json.loads(each.removeprefix(b"data: ")) for each in different]
    assert (changed["usage"]["prompt_tokens"], changed["choices"][0]["delta"]) == (7, {})
    assert meter.tokens()[:2] == (7, 5)


def test_a_server_that_says_nothing() -> None:
    """Four bytes are a token, of what was asked and of what was said."""
    data = stream()
    meter, _ = metered([data])
    assert meter.tokens() == (100, len(data) // 4, 0, True)


def test_other_ways_to_say_it() -> None:
    """Answers that are no stream, Responses, and Messages."""
    whole = json.dumps({"model": "m", "usage": {"input_tokens": 3, "output_tokens": 4}}).encode()
    meter, passed = metered([whole[:10], whole[10:]], kind="application/json; charset=utf-8")
    assert (passed, meter.tokens()[:2]) == (whole, (3, 4))
    responses = event(
        {"type": "response.completed", "response": {"model": "r", "usage": {"input_tokens": 1, "output_tokens": 2}}}
    )
    assert metered([responses])[0].tokens()[:2] == (1, 2)
    messages = event(
        {"type": "message_start", "message": {"model": "c", "usage": {"input_tokens": 9, "output_tokens": 1}}}
    )
    messages += event({"type": "message_delta", "usage": {"output_tokens": 12}})
    meter, _ = metered([messages])
    assert (meter.model, meter.tokens()[:2]) == ("c", (9, 12))


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_garbage(pieces: list[bytes], is_added: bool) -> None:  # noqa: FBT001 - as hypothesis gives it
    """Whatever a server says goes through, and harms nobody."""
    meter, passed = metered(pieces, is_added=is_added)
    assert len(passed) >= len(b"".join(pieces)) - 1
    assert meter.tokens().output >= 0


@given(
    st.dictionaries(
        st.sampled_from(
            ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "prompt_tokens_details"]
        ),
        st.one_of(
            st.none(),
            st.integers(),
            st.text("-1.e", max_size=3),
            st.booleans(),
            st.floats(),
            st.just({"cached_tokens": -5}),
        ),
    )
)
def test_strange_numbers(usage: dict[str, Any]) -> None:
    """What no server would say counts as at least nothing, and as numbers."""
    tokens = metered([event({"model": "m", "choices": [], "usage": usage})])[0].tokens()
    assert all(type(each) is int and 0 <= each < 2**32 for each in tokens[:3])


def test_an_answer_that_is_cut_off() -> None:
    """What its server said at its beginning is not all: what came of it counts, too."""
    messages = event(
        {"type": "message_start", "message": {"model": "c", "usage": {"input_tokens": 9, "output_tokens": 1}}}
    )
    meter = Meter(EVENTS, 400, time.monotonic(), is_added=False)
    meter.take(messages + event({"type": "content_block_delta", "delta": {"text": "x" * 4000}}))
    assert meter.tokens().output > 1000
    assert meter.tokens().is_estimate


def test_what_a_cache_took() -> None:
    """Where it is beside what was asked, it is a part of it here."""
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300, "output_tokens": 4}
    assert metered([event({"model": "c", "usage": usage})])[0].tokens() == (321, 4, 300, False)
