"""An agent of Google ADK without a model: the message "2000" makes it say 2000 things.

Served by `adk api_server`. POST /apps/deltas/users/u/sessions/s creates a session, then POST /run_sse with
"streaming": true and the text in "newMessage" streams one "data:" line an event. The other messages are "wait",
for one event and then nothing until the client is gone, and "busy", for one event and two seconds of computing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

from google.adk.agents import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.events import Event
from google.genai import types

# A line a request is uvicorn's default, and `adk api_server` has no option for it.
logging.getLogger("uvicorn.access").setLevel(logging.ERROR)


class Deltas(BaseAgent):
    """Says as many things as it is asked for."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        asked = ctx.user_content.parts[0].text
        for i in range(int(asked) if asked.isdigit() else 1):
            content = types.Content(role="model", parts=[types.Part(text=f"{i} of many")])
            yield Event(author=self.name, invocation_id=ctx.invocation_id, content=content, partial=True)
        if asked == "wait":
            await asyncio.Event().wait()
        if asked == "busy":
            until = time.monotonic() + 2
            while time.monotonic() < until:
                pass


root_agent = Deltas(name="deltas")
