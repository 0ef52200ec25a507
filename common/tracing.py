"""Traces, by OpenTelemetry: from HTTP over gRPC to SQL and Redis. Off unless an endpoint is set.

Where it is off, nothing of this stands in the way of a call: parts are added when a process
is wired, if `tracing()` then says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from redis.asyncio import Redis
from sqlalchemy import event
from sqlalchemy.engine import Engine

from common.config import TracingConfig
from common.interceptors.wrap import Context, Handler, UnaryInterceptor

_FLUSH_MILLISECONDS = 3_000
_LONGEST_STATEMENT = 2_000
_W3C = TraceContextTextMapPropagator()
_VERB = re.compile(r"\s*(\w+)")
_SPAN = "shoptrail_span"

_on = False


def tracing() -> bool:
    """Whether this process makes traces."""
    return _on


@contextmanager
def traces(process: str, config: TracingConfig) -> Iterator[None]:
    """Send traces of this process for the block, if the configuration says where to.

    Logs then name the trace and the span that they were written in. What can't be sent is
    dropped: a collector that is away costs nobody anything.
    """
    global _on
    if not config.traces_endpoint:
        yield
        return
    # Only now: all of it takes a third of a second, and megabytes.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        resource=Resource.create({"service.name": process, "service.namespace": "shoptrail"}),
        sampler=ParentBased(TraceIdRatioBased(config.traces_sampled)),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(
                endpoint=config.traces_endpoint,
                insecure=config.traces_endpoint.startswith("http://"),
                timeout=2,
            )
        )
    )
    trace.set_tracer_provider(provider)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_name_trace)
    _on = True
    try:
        yield
    finally:
        _on = False
        provider.force_flush(_FLUSH_MILLISECONDS)
        provider.shutdown()


def _name_trace(record: logging.LogRecord) -> bool:
    current = trace.get_current_span().get_span_context()
    if current.is_valid:
        record.trace_id = trace.format_trace_id(current.trace_id)
        record.span_id = trace.format_span_id(current.span_id)
    return True


@contextmanager
def span(
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, str | int],
    *,
    parent: TraceContext | None = None,
) -> Iterator[Span]:
    """A span for the block. Of an exception it keeps the type, never the text."""
    tracer = trace.get_tracer("shoptrail")
    with tracer.start_as_current_span(
        name,
        context=parent,
        kind=kind,
        attributes=dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            made.set_attribute("error.type", type(error).__qualname__)
            made.set_status(Status(StatusCode.ERROR))
            raise


def parent_in(headers: Mapping[str, str]) -> TraceContext:
    """The context that a caller sent along."""
    return _W3C.extract(dict(headers))


class TraceInterceptor(UnaryInterceptor):
    """A span for each RPC that is served, in the caller's trace if it sent one."""

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        metadata = {
            name: value
            for name, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        attributes = _attributes_of(method)
        with span(
            method.lstrip("/"), SpanKind.SERVER, attributes, parent=parent_in(metadata)
        ) as made:
            try:
                return await handle(request, context)
            finally:
                number: Any = context.code()  # grpc.aio gives a number, or nothing.
                made.set_attribute("rpc.grpc.status_code", int(number or 0))


class TraceCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """A span for each RPC that is called, which the other end learns of."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        found: Any = client_call_details.method
        method = found.decode() if isinstance(found, bytes) else str(found)
        with span(method.lstrip("/"), SpanKind.CLIENT, _attributes_of(method)) as made:
            carrier: dict[str, str] = {}
            _W3C.inject(carrier)
            metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
            for name, value in carrier.items():
                metadata.add(name, value)
            details = grpc.aio.ClientCallDetails(
                method=client_call_details.method,
                timeout=client_call_details.timeout,
                metadata=metadata,
                credentials=client_call_details.credentials,
                wait_for_ready=client_call_details.wait_for_ready,
            )
            call = await continuation(details, request)
            code = await call.code()
            made.set_attribute("rpc.grpc.status_code", code.value[0])
            if code is not grpc.StatusCode.OK:
                made.set_status(Status(StatusCode.ERROR))
            return call


def _attributes_of(method: str) -> dict[str, str | int]:
    service, _, name = method.lstrip("/").rpartition("/")
    return {"rpc.system.name": "grpc", "rpc.service": service, "rpc.method": name}


def trace_statements(engine: Engine) -> None:
    """Have each statement of the engine make a span, with its text but none of its values."""

    def begin(connection: Any, _cursor: object, statement: str, *_rest: object) -> None:
        verb = _VERB.match(statement)
        name = verb[1].upper() if verb else "SQL"
        tracer = trace.get_tracer("shoptrail")
        made = tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": engine.dialect.name,
                "db.operation.name": name,
                "db.query.text": statement[:_LONGEST_STATEMENT],
            },
        )
        connection.info[_SPAN] = made

    def end(connection: Any, *_rest: object) -> None:
        made: Span | None = connection.info.pop(_SPAN, None)
        if made is not None:
            made.end()

    def fail(failure: Any) -> None:
        connection = failure.connection
        made: Span | None = connection.info.pop(_SPAN, None) if connection is not None else None
        if made is not None:
            made.set_attribute("error.type", type(failure.original_exception).__qualname__)
            made.set_status(Status(StatusCode.ERROR))
            made.end()

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", fail)


class TracedRedis(Redis):
    """A client whose commands each make a span, with the command's name and nothing else of it."""

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Send the command and return its answer."""
        name = str(arguments[0])
        attributes = {"db.system.name": "redis", "db.operation.name": name}
        with span(name, SpanKind.CLIENT, attributes):
            return await super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]  # as redis has it
