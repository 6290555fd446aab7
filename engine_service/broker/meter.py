"""What a call takes, read from its answer as it passes: tokens, the model, and when its first word came."""

import json
import re
import time
from typing import Any, NamedTuple, cast

Document = dict[str, Any]

EVENTS = "text/event-stream"
WORD = re.compile(rb'"(?:content|text|delta|thinking|reasoning_content|reasoning|arguments|partial_json)"\s*:\s*"[^"]')
END = re.compile(rb"\r?\n\r?\n")
USAGE = b'"usage"'
NO_USAGE = re.compile(rb'"usage"\s*:\s*null')
DATA = b"data:"
MOST = 1024 * 1024
"""Bytes of one event that is held back until it is whole, and of an answer that is read for its tokens."""
NO_CHOICE: list[Any] = []
NOTHING_MORE = {"index": 0, "delta": {}, "finish_reason": None}
MOST_TOKENS = 2**32 - 1
PER_TOKEN = 4
"""Bytes of a token, about, where a model's server does not say how many it were."""


class Tokens(NamedTuple):
    """What a call took."""

    input: int
    output: int
    cached: int
    is_estimate: bool


NONE = Tokens(0, 0, 0, is_estimate=False)


class Meter:
    """Reads one answer."""

    def __init__(self, content_type: str, asked: int, begun: float, *, is_added: bool) -> None:
        """Know how many bytes were asked, when, and whether nobody asked for tokens but us."""
        self._is_stream = content_type.startswith(EVENTS)
        self._asked = asked
        self._is_added = is_added
        self._begun = begun
        self._rest = b""
        self._said = 0
        self._usage: Document = {}
        self._is_whole = False
        self.model = ""
        self.to_first_word: float | None = None

    def take(self, data: bytes) -> bytes:
        """Take a piece of the answer, and return what of it goes on now."""
        self._said += len(data)
        whole = self._rest + data if self._rest else data
        if self.to_first_word is None and (not self._is_stream or WORD.search(whole)):
            self.to_first_word = time.monotonic() - self._begun
        if not self._is_stream:
            self._rest = whole[:MOST]
            return data
        ends = [found.end() for found in END.finditer(whole)]
        if not ends and len(whole) < MOST:
            self._rest = whole
            return b"" if self._is_added else data
        cut = ends[-1] if ends else len(whole)
        events, held, self._rest = whole[:cut], len(self._rest), whole[cut:]
        passed = events
        if USAGE in events or not self.model:
            passed = self._read(events, ends)
        return passed if self._is_added else whole[held:]

    def finish(self) -> bytes:
        """Return what was held back, and read an answer that is no stream."""
        rest, self._rest = self._rest, b""
        self._is_whole = True
        if not self._is_stream:
            self._learn(rest)
            return b""
        return rest if self._is_added else b""

    def tokens(self) -> Tokens:
        """Return what the call took: as its server says, or else as many as there are bytes for."""
        asked = _first(self._usage, "prompt_tokens", "input_tokens")
        said = _first(self._usage, "completion_tokens", "output_tokens") or 0
        details: Any = self._usage.get("prompt_tokens_details") or self._usage.get("input_tokens_details")
        cached = _first(details, "cached_tokens") or _first(self._usage, "cache_read_input_tokens") or 0
        if asked is None:
            return Tokens(self._asked // PER_TOKEN, self._said // PER_TOKEN, 0, is_estimate=True)
        # Anthropic's are beside what was asked, and not part of it.
        beside = (_first(self._usage, f"cache_{what}_input_tokens") or 0 for what in ("creation", "read"))
        asked = min(asked + sum(beside), MOST_TOKENS)
        if not self._is_whole:  # it was cut off: what its server said of its beginning is not all
            return Tokens(asked, max(said, self._said // PER_TOKEN), cached, is_estimate=True)
        return Tokens(asked, said, cached, is_estimate=False)

    def _read(self, events: bytes, ends: list[int]) -> bytes:
        """Learn from whole events. The one that only we asked for gets a choice: who did not ask may look for one."""
        passed: list[bytes] = []
        start = 0
        for end in ends:
            event = events[start:end]
            start = end
            if (USAGE in event and not NO_USAGE.search(event)) or not self.model:
                said = self._learn(b"".join(line[len(DATA) :] for line in event.splitlines() if line.startswith(DATA)))
                if said and self._is_added and said.get("usage") and said.get("choices") == NO_CHOICE:
                    event = b"data: " + json.dumps(said | {"choices": [NOTHING_MORE]}).encode() + b"\n\n"
            passed.append(event)
        return b"".join(passed)

    def _learn(self, text: bytes) -> Document | None:
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict):
            return None
        said = cast("Document", said)
        for found in (said, said.get("response"), said.get("message")):
            if isinstance(found, dict):
                about = cast("Document", found)
                self.model = self.model or str(about.get("model") or "")
                usage = about.get("usage")
                self._usage |= cast("Document", usage) if isinstance(usage, dict) else {}
        return said


def _first(told: Any, *names: str) -> int | None:
    """Return the first of these that is a number of tokens: no server is believed beyond that."""
    about: Document = cast("Document", told) if isinstance(told, dict) else {}
    found = (about.get(name) for name in names)
    return next((min(each, MOST_TOKENS) for each in found if type(each) is int and each >= 0), None)
