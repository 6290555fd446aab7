"""The gateway's figures, as Prometheus reads them. Nobody has one of their own."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from runwire.service.operations import DURATION, registry

CODES = {*range(1000, 1016), *range(4000, 4017)}
"""Close codes that are told apart: the protocol's, and ours. A browser may send any other."""
OTHER = "other"


class Metrics:
    """Counts and measures."""

    def __init__(self) -> None:
        self.registry = registry("gateway")

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"runwire_gateway_{name}", text, labels, registry=self.registry)

        self._opened = counter("sockets_opened", "Sockets that were opened.")
        self._closed = counter("sockets_closed", "Sockets that ended, by close code: 1006 if they broke.", "code")
        self._refused = counter("handshakes_refused", "Handshakes and questions that were refused.", "status")
        for status in (403, 429, 503):  # what never happened is 0, and not unknown
            self._refused.labels(str(status))
        self._stalled = counter("stalls", "Sockets whose browsers took nothing for too long.")
        self._duration = Histogram(
            "runwire_gateway_socket_duration_seconds",
            "How long sockets were open.",
            registry=self.registry,
            buckets=DURATION,
        )

    def watch(self, about: dict[str, tuple[str, Callable[[], float]]]) -> None:
        """Have the figures of what there is, each with a text and what says how much."""
        for name, (text, ask) in about.items():
            Gauge(f"runwire_gateway_{name}", text, registry=self.registry).set_function(ask)

    def opened(self) -> None:
        """Count a socket."""
        self._opened.inc()

    def closed(self, code: int, seconds: float) -> None:
        """Count how one ended."""
        self._closed.labels(str(code) if code in CODES else OTHER).inc()
        self._duration.observe(seconds)

    def refused(self, status: int) -> None:
        """Count what was not let in."""
        self._refused.labels(str(status)).inc()

    def stalled(self) -> None:
        """Count one that takes nothing."""
        self._stalled.inc()
