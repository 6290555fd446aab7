"""What may be asked of a model server: words, and nothing that is a way out of the jail, or to what others left there.

A provider can run tools by itself, fetch addresses, keep what was said, and give it out again by its id. The key is one
account's: what is kept there is all users'. Providers add such things all the time: so what is let through is what is
known, and what isn't known is theirs to do by themselves until an operator allows it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from engine_service.broker.refusal import Refusal
from engine_service.broker.upstream import ADDRESSES, TOOLS, Upstream

PATHS = ("chat/completions", "completions", "responses", "embeddings", "messages")
"""What can be called, below an upstream's address."""
VERSION = "v1/"

ABOUT_WORDS = """
model messages input prompt system instructions suffix tools tool_choice parallel_tool_calls max_tool_calls
functions function_call response_format text verbosity reasoning reasoning_effort thinking enable_thinking
stream stream_options store include truncation background previous_response_id conversation
temperature top_p top_k min_p n seed stop stop_sequences logprobs top_logprobs logit_bias echo best_of
max_tokens max_completion_tokens max_output_tokens min_tokens presence_penalty frequency_penalty repetition_penalty
modalities audio prediction encoding_format dimensions service_tier user metadata safety_identifier
prompt_cache_key prompt_cache_retention cache_control output_config chat_template_kwargs
guided_json guided_regex guided_choice guided_grammar
"""
KNOWN = frozenset(ABOUT_WORDS.split())
"""The fields of a call that are about words."""
OUR_TOOLS = {"function", "custom"}
"""Tools that whoever asks runs. All others are the provider's."""
ACTS = re.compile(r"search|:online|research|computer|browse|sonar|compound", re.IGNORECASE)
"""What the names of models have that look for things by themselves."""
KEPT = ("previous_response_id", "conversation", "background", "file_id", "file_ids", "vector_store_ids")
"""What is kept at the provider, for all who have its key."""
NOTHING = re.compile(r"[\x00-\x20\\]")
"""What those who read addresses leave out, or take for something else."""
FETCHED = re.compile(r"[a-z][a-z0-9+.-]*:")
INLINE = "data:"
WITH_STORE = {"openai", "azure"}
"""Providers who would keep completions; others may not know the word."""
TEXTS = """
text content input prompt system instructions arguments thinking reasoning_content output name description title
refusal id call_id tool_call_id tool_use_id item_id signature encrypted_content role stop user safety_identifier
prompt_cache_key model
"""
WORDS = frozenset(TEXTS.split())
"""Fields whose text is words, however it looks: nobody fetches it."""
NOT_BELOW = frozenset({"arguments", "parameters", "input_schema", "schema", "json_schema", "metadata", "logit_bias"})
"""What is the agent's own, for its model to read, or its tools: no provider acts on it."""

MOST_DEEP = 64
PIECES = (b",", b":", b"[", b"{")
MOST_PIECES = 200_000
"""Before it is parsed, which holds everybody up. Words have some, too: these are of a book."""

Body = dict[str, Any]


def path_of(path: str, upstream: Upstream) -> str:
    """Return what a path means below an upstream's address. Raises Refusal."""
    plain = path.removeprefix(VERSION)
    if plain not in PATHS:
        raise Refusal(404, "path", f"There is no such thing to call: only {', '.join(PATHS)}.")
    is_versioned = upstream.url.endswith("/v1")
    return plain if is_versioned or not path.startswith(VERSION) else path


def vetted(raw: bytes, path: str, upstream: Upstream) -> Body:
    """Return what is asked, as it may be asked. Raises Refusal."""
    body = _parsed(raw)
    if TOOLS not in upstream.allowed:
        _has_nobody_act(body, f"RUNWIRE_ENGINE_UPSTREAM_ALLOW={upstream.name}={TOOLS}")
    for name, value in _fields(body):
        if _is_kept(name, value):
            raise Refusal(400, "kept", f"{name!r} names what is kept at the provider, for all who have its key.")
        if ADDRESSES not in upstream.allowed and name not in WORDS and _is_fetched(value):
            raise Refusal(
                400,
                "address",
                f"{name[:100]!r} may have the provider fetch an address: send the content itself, or let an operator "
                f"allow it (RUNWIRE_ENGINE_UPSTREAM_ALLOW={upstream.name}={ADDRESSES}).",
            )
    plain = path.removeprefix(VERSION)
    if "store" in body or plain == "responses" or (plain == "chat/completions" and upstream.name in WITH_STORE):
        body["store"] = False  # or what is said is kept, where that is usual
    return body


def _parsed(raw: bytes) -> Body:
    if sum(map(raw.count, PIECES)) > MOST_PIECES:
        raise Refusal(413, "body", "A call's body is in too many pieces.")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "body", "A call's body has to be JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "body", "A call's body has to be a JSON object.")
    return cast("Body", body)


def _is_kept(name: str, value: Any) -> bool:
    """Tell whether a field names what is kept at the provider."""
    if name in KEPT:
        return bool(value)
    about = cast("Body", value) if isinstance(value, dict) else {}
    names_it = bool(about) and (name == "prompt" or (name == "audio" and "id" in about))
    return names_it or (name == "type" and value == "item_reference")


def _has_nobody_act(body: Body, how: str) -> None:
    """Refuse what may have the provider do things by itself, and say how an operator allows it. Raises Refusal."""
    if unknown := sorted(name for name in body.keys() - KNOWN if body[name] is not None):
        raise Refusal(
            400,
            "field",
            f"The field {unknown[0][:100]!r} is not known to be about words alone, and so isn't sent: leave it out, or "
            f"let an operator allow what providers do by themselves ({how}).",
        )
    what = ""
    if ACTS.search(model := str(body.get("model"))):
        what = f"The model {model[:100]!r}"
    tools: Any = body.get("tools")
    listed: list[Any] = tools if isinstance(tools, list) else [] if tools is None else [tools]
    if theirs := next((tool for tool in listed if not _is_ours(tool)), None):
        named: Any = cast("Body", theirs).get("type") if isinstance(theirs, dict) else None
        what = f"The tool {named or theirs!s:.100}"
    if what:
        raise Refusal(400, "tool", f"{what} acts by itself, beyond the jail: an operator can allow it ({how}).")


def _is_ours(tool: Any) -> bool:
    """Tell whether whoever asks runs a tool. Anthropic's need no type, but a schema."""
    if not isinstance(tool, dict):
        return False
    about = cast("Body", tool)
    return about.get("type") in (*OUR_TOOLS, None) and ("type" in about or "input_schema" in about)


def _is_fetched(value: Any) -> bool:
    """Tell whether some provider may take a value, or one of several, for an address: they forgive much."""
    texts: list[Any] = value if isinstance(value, list) else [value]
    plain = (NOTHING.sub("", text).lower() for text in texts if isinstance(text, str))
    return any(FETCHED.match(text) and not text.startswith(INLINE) for text in plain)


def _fields(body: Body) -> Iterator[tuple[str, Any]]:
    """Walk through all fields, however deep, but for what nobody reads as more than words. Raises Refusal."""
    left: list[tuple[Any, int]] = [(body, 0)]
    while left:
        value, depth = left.pop()
        if depth > MOST_DEEP:
            raise Refusal(400, "body", f"A call's body has to be at most {MOST_DEEP} deep.")
        if isinstance(value, list):
            listed: list[Any] = value
            left += [(each, depth + 1) for each in listed if isinstance(each, list | dict)]
        elif isinstance(value, dict):
            about = cast("Body", value)
            calls = about.get("type") == "tool_use"  # with what a tool was called, which is the agent's own
            for name, below in about.items():
                is_more = isinstance(below, list | dict)
                yield name, below
                if is_more and name not in NOT_BELOW and not (calls and name == "input"):
                    left.append((cast("object", below), depth + 1))
