"""The trace that a run is part of, for what its agent uses: their spans hang below the run's own."""

import os
import sys

TRACEPARENT = "TRACEPARENT"
"""The variable in which programs find it."""


def tell(traceparent: str) -> None:
    """Tell it to this process, which has one run, and to what that starts."""
    if traceparent:
        os.environ[TRACEPARENT] = traceparent
    enter(traceparent)


def enter(traceparent: str) -> None:
    """Tell it to OpenTelemetry here, and in what is begun from here, if somebody has imported that."""
    if traceparent and "opentelemetry.trace" in sys.modules:
        from opentelemetry import context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        context.attach(TraceContextTextMapPropagator().extract({"traceparent": traceparent}))
