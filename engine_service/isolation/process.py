"""A run as a process of its own: the default. Sees to it that there is always a zygote to fork from."""

import asyncio
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

import structlog

from engine_service.agent import Work
from engine_service.isolation.nursery import Nursery
from engine_service.isolation.place import ProcessPlace
from engine_service.isolation.zygote import Terms
from engine_service.registry import RegistryError

PAUSE = 1.0
"""Seconds until a zygote is tried again when none could be had."""
LOOK = 0.5
"""Seconds between two looks at the agents' files."""


class OnChange(Protocol):
    """Hears whether there are processes to be had."""

    def __call__(self, *, is_serving: bool) -> None:
        """Hear it."""
        ...


class ProcessIsolation:
    """Gives every run a process of its own."""

    def __init__(self, terms: Terms, on_change: OnChange, *, reload: bool = False) -> None:
        self._terms = terms
        self._on_change = on_change
        self._reload = reload
        self._log = structlog.get_logger()
        self._nursery: Nursery
        self._old = set[Nursery]()
        self._keepers: tuple[asyncio.Task[None], ...] = ()

    @property
    def agents(self) -> Mapping[str, dict[str, str]]:
        """What is known of each agent, by name."""
        return self._nursery.agents

    async def __aenter__(self) -> Self:
        """Start the first zygote. Raises RegistryError when the agents cannot be had."""
        self._nursery = await self._new()
        self._keepers = (asyncio.create_task(self._replace_the_dead()),)
        if self._reload:
            self._keepers += (asyncio.create_task(self._replace_the_outdated()),)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every process there is."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(nursery.end() for nursery in (self._nursery, *self._old)))

    async def start(self, work: Work) -> ProcessPlace:
        """Give a run a process. Raises PlaceError."""
        return await self._nursery.start(work)

    def _forget(self, nursery: Nursery, _: object) -> None:
        self._old.discard(nursery)

    async def _new(self) -> Nursery:
        nursery = Nursery(self._terms)
        await nursery.introduce()
        return nursery

    async def _replace_the_dead(self) -> None:
        while True:
            nursery = self._nursery
            await asyncio.shield(nursery.died)
            if nursery is not self._nursery:
                continue  # it was retired, and has ended as it should
            self._on_change(is_serving=False)
            self._log.error("the zygote died")
            while self._nursery is nursery:
                try:
                    self._nursery = await self._new()
                except (OSError, RegistryError) as error:
                    self._log.error("no zygote can be had", error=str(error))
                    await asyncio.sleep(PAUSE)
            self._on_change(is_serving=True)

    async def _replace_the_outdated(self) -> None:
        seen = _times(self._nursery.files)
        while True:
            await asyncio.sleep(LOOK)
            now = _times(self._nursery.files)
            if now == seen:
                continue
            seen = now
            try:
                young = await self._new()
            except RegistryError as error:
                self._log.error("agents not reloaded", error=str(error))
                continue
            old, self._nursery = self._nursery, young
            seen = _times(young.files)
            self._old.add(old)
            old.died.add_done_callback(functools.partial(self._forget, old))
            old.retire()
            self._log.info("agents reloaded", agents=list(young.agents))


def _times(files: tuple[str, ...]) -> dict[str, float]:
    """Return when each file was last changed; 0 for one that is not there."""
    return {file: path.stat().st_mtime if (path := Path(file)).exists() else 0 for file in files}
