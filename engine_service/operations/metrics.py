"""The engine's figures, as Prometheus reads them. No user and no run has one of its own, and names are bounded."""

import asyncio
import time

from prometheus_client import Counter, Gauge, Histogram
from runwire.v1 import events_pb2 as pb

from engine_service.runs.admission import Admission
from engine_service.stores.memory import MemoryJournals
from engine_service.stores.store import Store
from engine_service.wire import Work
from engine_service.workers.processes import Processes
from engine_service.workers.taken import all_taken
from runwire.service.operations import DURATION, registry

MAX_MODELS = 50
"""Models that are told apart. What agents call them is theirs to choose, and so is how many there are."""
MAX_NAME = 100
OTHER = "other"

COMPLETED, CANCELLED, LEFT, HANDED_OVER = "completed", "cancelled", "left", "handed_over"
FAILED = {
    number: name.removeprefix("FAILURE_REASON_").lower()
    for name, number in pb.FailureReason.items()
    if number != pb.FAILURE_REASON_UNSPECIFIED
}
ENDINGS = (COMPLETED, CANCELLED, LEFT, HANDED_OVER, *FAILED.values())
"""How runs end, in a word: one that failed, with why."""

WORTH_AN_ALERT = ("TOO_MANY_RUNS", "NO_PLACE", "NO_ROOM_FOR_RESUMABLE_RUNS", "STORE_AWAY", "INTERNAL")
"""Why runs are refused, where that is more than their callers' affair."""

FIRST = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BIRTH = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Bounds of what is sorted by how long it took, in seconds."""


class Metrics:
    """Counts and measures."""

    def __init__(self) -> None:
        self.registry = registry("engine")
        self._models = set[str]()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"runwire_engine_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"runwire_engine_{name}", text, labels, registry=self.registry, buckets=bounds)

        self._started = counter("runs_started", "Runs that began.", "agent")
        self._ended = counter("runs_ended", "Runs that are over, by how they ended.", "agent", "ending")
        self._duration = histogram("run_duration_seconds", "How long runs took.", DURATION, "agent")
        self._first = histogram("first_event_seconds", "From a run's admission to its first event.", FIRST)
        self._events = counter("events", "Events that runs said.")
        self._bytes = counter("event_bytes", "Bytes of these events.")
        self._tokens = counter("tokens", "Tokens that models read and wrote, of runs that are over.", "model", "kind")
        self._refusals = counter("refusals", "Calls that were refused.", "reason")
        for reason in WORTH_AN_ALERT:  # what never happened is 0, and not unknown
            self._refusals.labels(reason)
        self._births = histogram("birth_seconds", "How long processes for runs took to be there.", BIRTH)
        self._stillbirths = counter("births_failed", "Processes for runs that could not be had.")
        self._replacements = counter("zygote_restarts", "Zygotes that took the place of one that died.")
        self._memory = self._gauge("run_memory_bytes", "Memory that runs' processes share with nobody.")

    def watch(
        self, admission: Admission, processes: Processes, journals: MemoryJournals, limits: tuple[int, int]
    ) -> None:
        """Have the figures of what there is."""
        self._admission = admission
        max_runs, journal_limit = limits
        about = {
            "runs": ("Runs that go on.", lambda: len(admission.runs())),
            "runs_limit": ("Runs that may go on at once.", lambda: max_runs),
            "runs_waiting": (
                "Runs that wait for users.",
                lambda: sum(run.is_waiting for run in admission.runs()),
            ),
            "accepting": ("Whether runs are let in: 0 while the engine drains.", lambda: not admission.is_closed),
            "spares": ("Processes that wait for runs.", lambda: processes.spares),
            "journal_bytes": ("Bytes of events that are kept of resumable runs.", lambda: journals.held),
            "journal_limit_bytes": ("Bytes of events that may be kept.", lambda: journal_limit),
        }
        for name, (text, ask) in about.items():
            self._gauge(name, text).set_function(ask)
        for agent in processes.agents:  # what never happened is 0, and not unknown
            self._started.labels(agent)
            for ending in ENDINGS:
                self._ended.labels(agent, ending)

    def watch_store(self, store: Store) -> None:
        """Have the figures of what is shared."""
        text = "Whether the shared store was there when it was last asked."
        self._gauge("store_reachable", text).set_function(lambda: not store.is_away)

    async def refresh(self) -> None:
        """Measure what takes a while, anew."""
        pids = [run.pid for run in self._admission.runs() if run.pid]
        found = await asyncio.to_thread(all_taken, pids)
        self._memory.set(sum(each.memory for each in found.values()))

    def follow(self, work: Work) -> "Measured":
        """Follow a run that is about to begin."""
        return Measured(self, work.agent)

    def refused(self, reason: str) -> None:
        """Count a call that was refused."""
        self._refusals.labels(reason).inc()

    def born(self, seconds: float) -> None:
        """Count a process."""
        self._births.observe(seconds)

    def not_born(self) -> None:
        """Count one that could not be had."""
        self._stillbirths.inc()

    def replaced(self) -> None:
        """Count a zygote that took the place of one that died."""
        self._replacements.inc()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"runwire_engine_{name}", text, registry=self.registry)

    def began(self, agent: str) -> None:
        """Count a run."""
        self._started.labels(agent).inc()

    def said_first(self, seconds: float) -> None:
        """Sort a run by how long its first event took."""
        self._first.observe(seconds)

    def said(self, events: int, size: int) -> None:
        """Count events."""
        self._events.inc(events)
        self._bytes.inc(size)

    def ended(self, agent: str, ending: str, seconds: float) -> None:
        """Count a run's end."""
        self._ended.labels(agent, ending).inc()
        self._duration.labels(agent).observe(seconds)

    def used(self, usage: pb.Usage) -> None:
        """Count what a run's calls to models took."""
        for each in usage.models:
            name = self._named(each.model)
            self._tokens.labels(name, "input").inc(each.input_tokens)
            self._tokens.labels(name, "cached_input").inc(each.cached_input_tokens)
            self._tokens.labels(name, "output").inc(each.output_tokens)

    def _named(self, model: str) -> str:
        name = model[:MAX_NAME] or OTHER
        if name not in self._models and len(self._models) >= MAX_MODELS:
            return OTHER
        self._models.add(name)
        return name


class Measured:
    """What is counted and measured of one run."""

    traceparent = ""

    def __init__(self, metrics: Metrics, agent: str) -> None:
        self._metrics = metrics
        self._agent = agent
        self._began = time.monotonic()
        self._is_silent = True

    def began(self) -> None:
        """Count it."""
        self._metrics.began(self._agent)

    def said(self, events: bytes, many: int) -> None:
        """Count its events."""
        if self._is_silent:
            self._is_silent = False
            self._metrics.said_first(time.monotonic() - self._began)
        self._metrics.said(many, len(events))

    def ended(self, event: pb.Event) -> None:
        """Count its end, and what its models took."""
        kind = event.WhichOneof("kind")
        if kind == "agent_failed":
            ending = FAILED.get(event.agent_failed.reason, OTHER)
            self._metrics.used(event.agent_failed.usage)
        elif kind == "agent_cancelled":
            ending = CANCELLED
            self._metrics.used(event.agent_cancelled.usage)
        else:
            ending = COMPLETED
            self._metrics.used(event.agent_completed.usage)
        self._over(ending)

    def left(self, why: str, usage: pb.Usage | None = None) -> None:
        """Count that it is over here, and what its models took if no other engine will."""
        if usage:
            self._metrics.used(usage)
        self._over(why)

    def _over(self, ending: str) -> None:
        self._metrics.ended(self._agent, ending, time.monotonic() - self._began)
