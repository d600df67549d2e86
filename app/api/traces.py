"""Traces of requests, for a collector of OpenTelemetry; needs the extra `tracing`.

A request is a span, each of its stages one in it. While it runs only times are noted; the spans of
the stages are made when its answer is on its way. None holds a path, an id or anything of a body.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter, time_ns
from typing import Any, Self

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from app import __version__

log = logging.getLogger(__name__)

_SCOPE = InstrumentationScope("ktserve", __version__, "https://opentelemetry.io/schemas/1.44.0")
_PATH = "/v1/traces"
_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
)
_W3C = frozenset((b"traceparent", b"tracestate"))
_NOWHERE = Context()
_propagator = TraceContextTextMapPropagator()

_MOST_STAGES = 64  # of one request: a batch has thousands
_MOST_WAITING = 4096  # spans; the oldest are dropped
_TOGETHER = 128  # a batch is encoded while the event loop waits
_EVERY_MS = 1000
_MOST_ANSWER_BYTES = 65_536
_FAILED = 500  # and above: ours


class Traces:
    """Tells a collector of requests, in the background; open from `async with` on.

    A collector that is gone, slow or refuses costs no request anything: what it does not take is
    dropped, and the log says once that it is.
    """

    def __init__(self, address: str, *, share: float, longest_s: float) -> None:
        """Trace `share` of the requests that come untraced; at the end, send for `longest_s`."""
        self._address = address.rstrip("/").removesuffix(_PATH) + _PATH
        self._sampler = ParentBased(TraceIdRatioBased(share))
        self._longest_s = longest_s
        self._tracer: Tracer | None = None

    async def __aenter__(self) -> Self:
        # Its loggers tell of every batch that fails, with addresses.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._exporter = _Telling(self._address)
        self._waiting = BatchSpanProcessor(
            self._exporter,
            max_queue_size=_MOST_WAITING,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=_TOGETHER,
        )
        self._provider = TracerProvider(self._sampler, _resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(self._waiting)
        self._tracer = self._provider.get_tracer(_SCOPE.name, _SCOPE.version, _SCOPE.schema_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what waits still; what is not gone by then is left."""
        self._tracer = None
        # A thread of its own, that nobody waits for: the processor would take half a minute.
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, self._longest_s)
        if sending.is_alive():
            log.warning("traces_left")
            self._exporter.shutdown()  # it waits no longer to try again

    def begin(self, scope: Scope) -> RequestTrace | None:
        """Begin the trace of a request; None where it is not one of those that are traced."""
        if self._tracer is None:  # a request that outlives it
            return None
        method = scope["method"] if scope["method"] in _METHODS else None
        name = method or "HTTP"
        span = self._tracer.start_span(
            name,
            context=_parent(scope["headers"]),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method or "_OTHER",
                "url.scheme": scope["scheme"],
                "network.protocol.version": scope["http_version"],
            },
        )
        return RequestTrace(self, span, name) if span.is_recording() else None

    def stage(
        self,
        request: SpanContext,
        name: str,
        began_ns: int,
        ended_ns: int,
        attributes: Mapping[str, int],
    ) -> None:
        """Tell of a stage of a request.

        As what a span becomes in the end: one of a tracer's, which may change until then, takes
        many times as long to make.
        """
        made = SpanContext(
            request.trace_id,
            self._provider.id_generator.generate_span_id(),
            is_remote=False,
            trace_flags=request.trace_flags,
            trace_state=request.trace_state,
        )
        self._waiting.on_end(
            ReadableSpan(
                name,
                made,
                request,
                self._provider.resource,
                attributes,
                start_time=began_ns,
                end_time=ended_ns,
                instrumentation_scope=_SCOPE,
            )
        )


class RequestTrace:
    """An `app.telemetry.Trace` that becomes spans."""

    __slots__ = (
        *("_began_ns", "_began_s", "_left_out", "_name", "_span", "_stages", "_traces"),
        *("id", "span_id"),
    )

    def __init__(self, traces: Traces, span: Span, name: str) -> None:
        self._began_ns, self._began_s = time_ns(), perf_counter()
        self._traces = traces
        self._span = span
        self._name = name
        # name, beginning, end, windows of a run
        self._stages: list[tuple[str, float, float, int]] = []
        self._left_out = 0
        context = span.get_span_context()
        self.id = format_trace_id(context.trace_id)
        self.span_id = format_span_id(context.span_id)

    def note(self, stage: str, spent_s: float, ago_s: float = 0.0, windows: int = 0) -> None:
        """Note a stage that ended just now, or so long ago; `windows` are those of a run."""
        if len(self._stages) == _MOST_STAGES:
            self._left_out += 1
            return
        ended_s = perf_counter() - ago_s
        self._stages.append((stage, ended_s - spent_s, ended_s, windows))

    def end(self, route: str | None, status: int, problems: Sequence[str]) -> None:
        """Make the spans: that of the request, and one of each of its stages."""
        span = self._span
        span.set_attribute("http.response.status_code", status)
        if route is not None:
            span.set_attribute("http.route", route)
            span.update_name(f"{self._name} {route}")
        if problems:
            span.set_attribute("ktserve.problems", sorted({*problems}))
        if self._left_out:
            span.set_attribute("ktserve.stages_left_out", self._left_out)
        if status >= _FAILED:
            span.set_attribute("error.type", problems[-1] if problems else str(status))
            span.set_status(StatusCode.ERROR)
        context = span.get_span_context()
        for stage, began_s, ended_s, windows in self._stages:
            told = {"ktserve.run_windows": windows} if windows else {}
            self._traces.stage(context, stage, self._at(began_s), self._at(ended_s), told)
        span.end(self._at(perf_counter()))

    def _at(self, at_s: float) -> int:
        """Return the time of day of a moment: a clock that is set meanwhile moves nothing."""
        return self._began_ns + round((at_s - self._began_s) * 1e9)


class _Session(requests.Session):
    """Knows what came of what was sent last."""

    outcome = ""

    def request(self, *given: Any, **named: Any) -> requests.Response:
        """Send, and note the status or the kind of failure: messages hold addresses.

        No answer sends spans elsewhere than the setting says, and no more of it is read than one of
        a collector has.
        """
        try:
            response = super().request(*given, **named | {"allow_redirects": False, "stream": True})
            with response:
                response._content = response.raw.read(_MOST_ANSWER_BYTES)
            if response.is_redirect:  # it would pass for success
                raise requests.TooManyRedirects
        except Exception as exc:
            self.outcome = type(exc).__name__
            raise
        self.outcome = str(response.status_code)
        return response


class _Telling(SpanExporter):
    """Sends spans, and tells once when they are lost, and once when they are not any more."""

    def __init__(self, address: str) -> None:
        self._session = _Session()
        self._exporter = OTLPSpanExporter(address, session=self._session)
        self._is_losing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send; called in a thread of the processor's."""
        result = self._exporter.export(spans)
        is_lost = result is not SpanExportResult.SUCCESS
        if is_lost and not self._is_losing:
            log.warning("traces_lost", extra={"why": self._session.outcome})
        if self._is_losing and not is_lost:
            log.warning("traces_back")
        self._is_losing = is_lost
        return result

    def shutdown(self) -> None:
        """Send no more, and try nothing again."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _resource() -> Resource:
    """Return what the service is called, unless OTEL_SERVICE_NAME or _RESOURCE_ATTRIBUTES say."""
    said = OTELResourceDetector().detect().attributes
    return Resource.create({"service.name": "ktserve", "service.version": __version__, **said})


def _parent(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """Return where a request says that it comes from; what is not W3C trace context is nothing."""
    said: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _W3C:
            said.setdefault(name.decode(), []).append(value.decode("latin-1"))
    if len(said.get("traceparent", ())) != 1:
        return _NOWHERE
    return _propagator.extract(said, _NOWHERE)
