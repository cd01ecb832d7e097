"""A receiver for OTLP over gRPC that stores the received spans."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Ids are hexadecimal; `parent_id` is empty for a root. `texts` are all texts of the span that could contain a secret."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, str]
    texts: Sequence[str]


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]  # the package has no types
    """opentelemetry.proto.collector.trace.v1.TraceService."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the RPC's name and signature
        """Stores the spans."""
        self.spans.extend(_spans(request))
        return trace_service_pb2.ExportTraceServiceResponse()

    def tree(self, trace_id: str) -> "Tree":
        """Returns the spans of one trace."""
        return Tree([span for span in self.spans if span.trace_id == trace_id])


@dataclass(frozen=True, slots=True)
class Tree:
    """The spans of one trace."""

    spans: Sequence[Span]

    def ancestry(self, span: Span) -> Iterator[Span]:
        """Yields the span, its parent, and so on up to the last received ancestor."""
        by_id = {each.span_id: each for each in self.spans}
        current: Span | None = span
        while current is not None:
            yield current
            current = by_id.get(current.parent_id)

    def of(self, service: str) -> list[Span]:
        """Returns the spans of a service."""
        return [span for span in self.spans if span.service == service]


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    """Yields a receiver and its URL for OTEL_EXPORTER_OTLP_ENDPOINT."""
    kept = Receiver()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield kept, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def _spans(request: Any) -> Iterator[Span]:
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes).get("service.name", "")
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            attributes = _attributes(span.attributes)
            events = [text for event in span.events for text in (event.name, *_attributes(event.attributes).values())]
            texts = [span.name, span.status.message, span.trace_state, *attributes.values(), *events]
            yield Span(service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), attributes, texts)


def _attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: str(getattr(pair.value, pair.value.WhichOneof("value") or "string_value")) for pair in pairs}
