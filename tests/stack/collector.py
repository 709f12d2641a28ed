"""A collector of traces: takes OTLP over HTTP, and keeps the spans."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Told


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


@dataclass
class Span:
    """One span; ids are hexadecimal."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    failed: bool
    begin: int
    end: int
    resource: dict[str, Any] = field(repr=False, default_factory=dict)

    @classmethod
    def of(cls, told: Told, resource: dict[str, Any]) -> Span:
        return cls(
            name=told.name,
            kind=Told.SpanKind.Name(told.kind).removeprefix("SPAN_KIND_").lower(),
            trace=told.trace_id.hex(),
            id=told.span_id.hex(),
            parent=told.parent_span_id.hex(),
            state=told.trace_state,
            attributes={pair.key: _value(pair.value) for pair in told.attributes},
            links=[(link.trace_id.hex(), link.span_id.hex()) for link in told.links],
            failed=told.status.code == 2,
            begin=told.start_time_unix_nano,
            end=told.end_time_unix_nano,
            resource=resource,
        )


class Collector(http.server.ThreadingHTTPServer):
    """`status` is what it answers, after `pause` seconds; `raw` and `headers` are what came."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Span] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: set[str] = set()
        self.status, self.pause, self.rejected = 200, 0.0, 0
        super().__init__(("127.0.0.1", port), _Handler)
        self.port = self.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def wait_for(self, what: Callable[[Span], bool], seconds: float = 20) -> list[Span]:
        """The spans that are `what`, once there is one."""
        deadline = time.monotonic() + seconds
        while not (found := [span for span in list(self.spans) if what(span)]):
            assert time.monotonic() < deadline, f"no such span; there are {sorted({span.name for span in self.spans})}"
            time.sleep(0.1)
        return found

    def trace(self, trace: str) -> list[Span]:
        return [span for span in list(self.spans) if span.trace == trace]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.server.pause)
        answer = ExportTraceServiceResponse()
        if self.server.status == 200:
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.paths.add(self.path)
            self.server.raw.append(body)
            request = ExportTraceServiceRequest.FromString(body)
            for group in request.resource_spans:
                resource = {pair.key: _value(pair.value) for pair in group.resource.attributes}
                self.server.spans.extend(Span.of(told, resource) for scope in group.scope_spans for told in scope.spans)
            if self.server.rejected:
                answer.partial_success.rejected_spans = self.server.rejected
                answer.partial_success.error_message = "too many of them"
        text = answer.SerializeToString()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass
