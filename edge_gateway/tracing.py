"""A span for each socket: between the browser's own, if it has one, and the run's."""

from typing import TYPE_CHECKING

from runwire.service.tracing import Tracing, below, traceparent_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

NAME = "GET /v1/stream"
ABOUT = {"http.request.method": "GET", "http.route": "/v1/stream", "network.protocol.name": "websocket"}
CODE, ERROR = "websocket.close_code", "error.type"
WELL = {1000, 1001, 1005, 1012}
"""Close codes of sockets in which nothing went wrong."""


class Traces:
    """Follows sockets."""

    def __init__(self, tracing: Tracing) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        self._tracer = tracing.tracer
        self._kind = SpanKind.SERVER

    def follow(self, traceparent: str) -> "SocketTrace":
        """Follow a socket that has said what it wants."""
        span = self._tracer.start_span(NAME, below(traceparent), kind=self._kind, attributes=ABOUT)
        return SocketTrace(span, traceparent)


class SocketTrace:
    """One socket's."""

    def __init__(self, span: "Span", above: str) -> None:
        self._span = span
        self.traceparent = traceparent_of(span) or above
        """What the engine's spans are below."""

    def ended(self, code: int) -> None:
        """Hear with which code it was closed."""
        self._span.set_attribute(CODE, code)
        if code not in WELL:
            self._span.set_attribute(ERROR, str(code))
        self._span.end()
