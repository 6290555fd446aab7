"""Runs as processes of their own, in a jail or not: a zygote for each of the two, where there are agents for it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from engine_service.wire import Description, Isolation, JailTerms, RegistryError, Terms
from engine_service.workers.process import OnChange, ProcessWorkers

NOBODY_OUTSIDE = "agents"
"""What a jail can require besides its layers."""

Make = Callable[[Terms, OnChange], ProcessWorkers]


class Processes:
    """Learns where each agent's runs happen, and has the zygotes for that."""

    def __init__(self, terms: Terms, jail: JailTerms, on_change: OnChange, make: Make) -> None:
        self._terms = terms
        self._jail = jail
        self._on_change = on_change
        self._make = make
        self._missing = set[Isolation]()
        self._others: Mapping[str, Description] = {}
        self._workers: dict[Isolation, ProcessWorkers] = {}

    async def begin(self) -> None:
        """Start what is needed. Raises RegistryError when the agents cannot be had.

        Where runs are jailed that don't say, all that is imported is imported in the jail first: it says who isn't.
        """
        first: Isolation = "jail" if self._terms.isolation == "jail" else "process"
        other: Isolation = "process" if first == "jail" else "jail"
        known = (await self._start(first, self._terms.modules)).known
        self._others = {name: agent for name, agent in known.items() if agent.isolation in {"task", "ray"}}
        outside = [name for name, agent in known.items() if agent.isolation != "jail"]
        if outside and NOBODY_OUTSIDE in self._jail.require:
            raise RegistryError(
                f"the agent {outside[0]!r} is in no jail, since its class says so, and RUNWIRE_ENGINE_JAIL_REQUIRE has "
                f"{NOBODY_OUTSIDE!r}: change one of the two"
            )
        wanted = {agent.source for agent in known.values() if agent.isolation == other}
        if wanted:
            await self._start(other, tuple(module for module in self._terms.modules if module in wanted))

    async def _start(self, isolation: Isolation, modules: tuple[str, ...]) -> ProcessWorkers:
        terms = replace(self._terms, modules=modules, jail=self._jail if isolation == "jail" else None)

        def on_change(*, is_serving: bool) -> None:
            (self._missing.discard if is_serving else self._missing.add)(isolation)
            self._on_change(is_serving=not self._missing)

        self._workers[isolation] = workers = self._make(terms, on_change)
        await workers.begin()
        return workers

    async def shut_down(self) -> None:
        """End every process there is."""
        await asyncio.gather(*(workers.shut_down() for workers in self._workers.values()))

    @property
    def by_isolation(self) -> Mapping[str, ProcessWorkers]:
        """Who gives runs their processes, in which isolation."""
        return {str(isolation): workers for isolation, workers in self._workers.items()}

    @property
    def agents(self) -> Mapping[str, Description]:
        """What is known of each agent, by name. Those that have no processes here stay as they were at the boot."""
        found = dict(self._others)
        for workers in self._workers.values():
            found |= workers.agents
        return dict(sorted(found.items()))

    @property
    def spares(self) -> int:
        """How many processes wait for runs."""
        return sum(workers.spares for workers in self._workers.values())

    def lease(self, until: float) -> None:
        """Have those runs that may be taken over end by then, whatever becomes of this process."""
        for workers in self._workers.values():
            workers.lease(until)
