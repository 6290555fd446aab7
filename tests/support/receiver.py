"""A receiver of traces that speaks OTLP, over HTTP and gRPC, on real sockets. It can refuse, and it can hang."""

import http.server
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from tests.support.times import PATIENCE


class Span:
    """A span as it came."""

    def __init__(self, service: str, sent: Sent) -> None:
        self.service = service
        self.name = sent.name
        self.kind = Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_")
        self.trace_id, self.id, self.parent_id = sent.trace_id.hex(), sent.span_id.hex(), sent.parent_span_id.hex()
        self.began, self.ended = sent.start_time_unix_nano, sent.end_time_unix_nano
        self.has_failed = sent.status.code == 2
        self.about: dict[str, Any] = {
            each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in sent.attributes
        }

    def __repr__(self) -> str:
        return f"{self.service} {self.name} {self.about}"


class Receiver:
    """Takes spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.asked = 0
        self.answers = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._news = threading.Condition()
        self.url = ""

    def take(self, request: ExportTraceServiceRequest) -> None:
        with self._news:
            self.asked += 1
            self._news.notify_all()
        self.may_answer.wait()
        if self.answers != 200:
            return
        with self._news:
            for resource in request.resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans += [Span(named["service.name"], span) for span in scope.spans]
            self._news.notify_all()

    def wait_for(self, many: int, **about: Any) -> list[Span]:
        """Wait until so many spans have come that have these attributes, and return them."""

        def found() -> list[Span]:
            return [span for span in self.spans if about.items() <= span.about.items()]

        spans: list[Span] = self._until(lambda: found() if len(found()) >= many else None, "so many spans did not come")
        return spans

    def trace(self, of: str, whole: int) -> list[Span]:
        """Wait until a trace has so many spans, and return them, oldest first."""

        def found() -> list[Span] | None:
            spans = [span for span in self.spans if span.trace_id == of]
            return sorted(spans, key=lambda span: span.began) if len(spans) >= whole else None

        spans: list[Span] = self._until(found, f"a trace of {whole} spans did not come")
        return spans

    def wait_asked(self) -> None:
        """Wait until somebody wants to send something."""
        self._until(lambda: self.asked or None, "nobody sent anything")

    def _until(self, found: Any, otherwise: str) -> Any:
        end = time.monotonic() + PATIENCE
        with self._news:
            while (result := found()) is None:
                assert self._news.wait(end - time.monotonic()), f"{otherwise}: {self.spans}"
        return result


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Receive by HTTP."""
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(receiver.answers if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        receiver.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_receiver() -> Iterator[Receiver]:
    """Receive by gRPC."""
    receiver = Receiver()

    class Servicer(TraceServiceServicer):
        def Export(self, request: Any, _: Any) -> Any:  # noqa: N802 - its name in the contract
            receiver.take(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
    receiver.url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(0).wait()
