"""Traces, on their way to where OTLP_ENDPOINT says. OpenTelemetry is imported when something is to go there."""

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runwire.service.rates import Rates
from runwire.service.settings import BootError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

PERIOD, BATCH, QUEUE = 1000, 64, 4096
"""Milliseconds between two times that spans are sent, how many at once, and how many may wait: others are dropped.

Receivers take four megabytes at once: so many spans are less, whatever they tell."""
PATIENCE = 10
"""Seconds that whoever takes traces has for it."""
FAREWELL = 2.0
"""Seconds that the last spans have at the end of a service."""
MAX_TEXT = 4096
"""Characters of what a span tells in one attribute."""
GRPC = 4317
"""The port where OTLP is spoken over gRPC. Everywhere else it is HTTP, unless the address says grpc."""
Attributes = Mapping[str, Any]
COMPLAINTS = 1
"""Lines a minute on traces that cannot be sent."""


class Tracing:
    """Makes spans, and sends them. Nobody waits for that."""

    def __init__(self, service: str, endpoint: str) -> None:
        try:
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

            exporter = _exporter(endpoint)
        except ModuleNotFoundError as missing:
            sentence = f"OTLP_ENDPOINT: {missing.name} is not installed: pip install 'runwire[telemetry]'"
            raise BootError(sentence) from missing

        _say_less()
        about = {"service.name": f"runwire-{service}", "service.version": metadata.version("runwire")}
        limits = SpanLimits(max_span_attribute_length=MAX_TEXT)
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False, span_limits=limits)
        processor = BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE,
            schedule_delay_millis=PERIOD,
            max_export_batch_size=BATCH,
            export_timeout_millis=PATIENCE * 1000,
        )
        self._provider.add_span_processor(processor)
        self.tracer: Tracer = self._provider.get_tracer("runwire", metadata.version("runwire"))

    async def close(self) -> None:
        """Send what is left, unless that takes too long."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                while ending.is_alive():  # noqa: ASYNC110 - a thread has no event, and may never end
                    await asyncio.sleep(0.01)


def below(traceparent: str) -> "Context":
    """Return the context of spans below another, by its W3C traceparent; without one they have their own trace."""
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {}, Context())


def traceparent_of(span: "Span") -> str:
    """Return a span's W3C traceparent; nothing for one that is none, as where OpenTelemetry is switched off."""
    known = span.get_span_context()
    if not known.is_valid:
        return ""
    return f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"


def _exporter(endpoint: str) -> "SpanExporter":
    parts = urlsplit(endpoint)
    if parts.port == GRPC or parts.scheme.startswith("grpc"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        is_plain = parts.scheme in {"http", "grpc"}
        return OTLPSpanExporter(endpoint=parts.netloc, insecure=is_plain, timeout=PATIENCE)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http  # noqa: PLC0415

    path = "" if parts.path.endswith("/v1/traces") else "/v1/traces"
    return Http(endpoint=f"{endpoint.rstrip('/')}{path}", timeout=PATIENCE)


def _say_less() -> None:
    """Log that traces cannot be sent once a minute, and not for each attempt."""
    rates = Rates(COMPLAINTS)

    def is_worth_it(record: logging.LogRecord) -> bool:
        return not rates.take(record.name)

    for name in ("opentelemetry", "urllib3"):
        for handler in logging.getLogger().handlers:
            handler.addFilter(_Of(name, is_worth_it))


class _Of(logging.Filter):
    """Filters what a library logs, and nothing else."""

    def __init__(self, library: str, is_worth_it: Any) -> None:
        super().__init__()
        self._library = library
        self._is_worth_it = is_worth_it

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is worth a line."""
        return not record.name.startswith(self._library) or self._is_worth_it(record)
