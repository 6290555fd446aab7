"""What engines say to one another, through the store: asked, and answered at once or not at all."""

import asyncio
import itertools
import json
from contextlib import suppress
from typing import Any

import structlog

from engine_service.stores.store import AwayError, Message, Owner
from engine_service.stores.valkey.keys import Name
from engine_service.stores.valkey.link import AWAY, Link, repeat

ANSWER = 2.0
"""Seconds that another engine has to answer."""
MOST = 1000
"""Questions that are being answered at once; others get no answer."""


class Bus:
    """One engine's ear, and its voice."""

    def __init__(self, link: Link, name: Name, owner: Owner) -> None:
        self._link = link
        self._name = name
        self._owner = owner
        self._numbers = itertools.count(1)
        self._asked = dict[int, asyncio.Future[Message]]()
        self._answering = set[asyncio.Task[None]]()

    async def work(self) -> None:
        """Listen, for ever."""
        try:
            await repeat(self._listen)
        finally:
            for task in self._answering:
                task.cancel()

    async def ask(self, engine: str, message: Message) -> Message:
        """Ask another engine. Raises AwayError when it is gone, or says nothing."""
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(ANSWER):
                await self._say(engine, {"from": self._name.first, "ask": number, "say": message})
                await answer
        except TimeoutError:
            raise AwayError from None
        finally:
            del self._asked[number]
        return answer.result()

    async def _say(self, engine: str, document: Message) -> None:
        try:
            ears = await self._link.redis.publish(self._link.keys.bus(engine), json.dumps(document))
        except AWAY as error:
            raise AwayError from error
        if not ears:
            raise AwayError

    async def _listen(self) -> None:
        async with self._link.waiting.pubsub() as ear:
            heard_as = 0
            while True:
                for name in self._name.all[heard_as:]:  # of what it had before others may still know
                    await ear.subscribe(self._link.keys.bus(name))
                heard_as = len(self._name.all)
                heard = await ear.get_message(ignore_subscribe_messages=True, timeout=1)
                if heard:
                    self._take(json.loads(heard["data"]))

    def _take(self, document: dict[str, Any]) -> None:
        if "answer" in document:
            answer = self._asked.get(document["answer"])
            if answer and not answer.done():
                answer.set_result(document["say"])
        elif len(self._answering) < MOST:
            task = asyncio.create_task(self._answer(document))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, document: dict[str, Any]) -> None:
        try:
            said = await self._owner.hear(document["say"])
            with suppress(AwayError):
                await self._say(document["from"], {"answer": document["ask"], "say": said})
        except Exception:  # noqa: BLE001 - whoever asked hears nothing, and our operator why
            structlog.get_logger().exception("another engine cannot be answered")
