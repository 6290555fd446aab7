"""A plain function in a thread of its own."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


async def in_thread(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a function in a new thread, and wait for it.

    Not one of asyncio's pool: functions that never return would take up its threads one after the other, and the loop
    would wait for them at its end. Cancelling ends the waiting only.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(function, **arguments)
        except StopIteration as stop:  # which no future can hold
            error = RuntimeError("a tool raised StopIteration")
            error.__cause__ = stop
        except BaseException as raised:  # noqa: BLE001 - whatever it is, whoever waits will raise it
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True).start()
    return await done
