"""The other way in which OpenAI's server is asked and answers: Responses, from what is said in Chat Completions."""

from typing import Any

Document = dict[str, Any]
USAGE = {
    "input_tokens": 100, "output_tokens": 10, "total_tokens": 110, "input_tokens_details": {"cached_tokens": 60},
    "output_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip


def as_chat(request: Document) -> Document:
    """Return what was asked, as a chat's messages and tools."""
    asked = request["input"]
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    messages = [_message(item) for item in items if item.get("type") != "function_call"]
    return {"messages": messages, "tools": [{"function": tool} for tool in request.get("tools") or []]}


def _message(item: Document) -> Document:
    if item.get("type") == "function_call_output":
        return {"role": "tool", "content": item["output"]}
    return {"role": item["role"], "content": item["content"]}


class Answer:
    """One answer, as it forms."""

    def __init__(self, model: str) -> None:
        self._about: Document = {
            "id": "1", "object": "response", "created_at": 1, "model": model, "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": [],
        }  # fmt: skip
        self._output: list[Document] = []
        self._text = ""
        self._number = -1

    def events(self, delta: Document) -> list[Document]:
        """Return what a piece of a chat's answer is here."""
        made: list[Document] = []
        if self._number < 0:
            made.append({"type": "response.created", "response": self._about | {"status": "in_progress", "output": []}})
        for call in delta.get("tool_calls") or ():
            made += self._call(call)
        if words := delta.get("content"):
            made += [] if self._text else self._begin_text()
            self._text += words
            made.append(self._at_text({"type": "response.output_text.delta", "delta": words, "logprobs": []}))
        if "finish" in delta:
            made += self._end()
        return [event | {"sequence_number": self._next()} for event in made]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _call(self, call: Document) -> list[Document]:
        place, function = len(self._output), call["function"]
        about = {"id": f"fc_{place}", "type": "function_call", "call_id": call["id"], "name": function["name"]}
        item = about | {"arguments": function["arguments"], "status": "completed"}
        self._output.append(item)
        where = {"item_id": item["id"], "output_index": place}
        told = {"arguments": item["arguments"], "name": item["name"]}
        return [
            {"type": "response.output_item.added", "output_index": place, "item": item | {"arguments": ""}},
            where | {"type": "response.function_call_arguments.delta", "delta": item["arguments"]},
            where | {"type": "response.function_call_arguments.done"} | told,
            {"type": "response.output_item.done", "output_index": place, "item": item},
        ]

    def _at_text(self, event: Document) -> Document:
        return event | {"item_id": "msg", "output_index": len(self._output), "content_index": 0}

    def _part(self) -> Document:
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[Document]) -> Document:
        return {"id": "msg", "type": "message", "role": "assistant", "status": status, "content": content}

    def _begin_text(self) -> list[Document]:
        item, place = self._item("in_progress", []), len(self._output)
        return [
            {"type": "response.output_item.added", "output_index": place, "item": item},
            self._at_text({"type": "response.content_part.added", "part": self._part()}),
        ]

    def _end(self) -> list[Document]:
        made: list[Document] = []
        if self._text:
            part, place = self._part(), len(self._output)
            item = self._item("completed", [part])
            made = [
                self._at_text({"type": "response.output_text.done", "text": self._text, "logprobs": []}),
                self._at_text({"type": "response.content_part.done", "part": part}),
                {"type": "response.output_item.done", "output_index": place, "item": item},
            ]
            self._output.append(item)
        over = self._about | {"status": "completed", "output": self._output, "usage": USAGE}
        return [*made, {"type": "response.completed", "response": over}]
