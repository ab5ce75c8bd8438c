"""Traces to an OpenTelemetry collector. Belongs to `main.py`: see there. The extra `otel` is imported when used.

Spans are handed to a bounded queue, which a thread of OpenTelemetry's empties: a receiver that hangs or is gone costs
spans, never a decision. No span holds what a caller or a policy wrote.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

from sidecar import __version__
from sidecar.decide import Answer, Span
from sidecar.errors import UsageError

EXPORT_SECONDS: Final = 5.0  # for one export, tries and all
CLOSE_SECONDS: Final = 2.0  # at the end, for what is queued
_SERVICE: Final = "sidecar.v1.DecisionService"

log = logging.getLogger("sidecar.telemetry")


class Telemetry:
    """A `Tracing`. ``endpoint``: `http://host:port`, or `https://` with the usual OTEL_ variables for its CA.

    Sampler, resource and queue are those of the OTEL_ variables. Raises UsageError without the extra.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise UsageError("otel.endpoint needs the extra otel: pip install 'decision-sidecar[otel]'") from None
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)  # counted instead: it would log each failure
        self.spans: Counter[str] = Counter(made=0, exported=0, failed=0)
        self._trace, self._context, self._propagator = trace, context, TraceContextTextMapPropagator()
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "decision-sidecar"}
        about = {**named, "service.version": __version__}
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        exporter: Any = _Counted(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS), self.spans)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sidecar", __version__)

    def question(self, method: str, parents: Iterable[str]) -> AbstractContextManager[Span]:
        """As `Tracing.question`."""
        about = {"rpc.system": "grpc", "rpc.service": _SERVICE, "rpc.method": method}
        return _Open(self, f"{_SERVICE}/{method}", self._trace.SpanKind.SERVER, about, parents)

    def step(self, name: str) -> AbstractContextManager[object]:
        """As `Tracing.step`."""
        return _Open(self, name, self._trace.SpanKind.INTERNAL, {}, None)

    def begin(self, name: str, kind: Any, about: dict[str, Any], parents: Iterable[str] | None) -> tuple[Any, Any]:
        """The span, current from now on, and what ends that."""
        span = self._tracer.start_span(
            name, self._parent(parents), kind, about, record_exception=False, set_status_on_exception=False
        )
        return span, self._context.attach(self._trace.set_span_in_context(span))

    def end(self, span: Any, token: Any) -> None:
        """It is over."""
        self._context.detach(token)
        if span.is_recording():
            self.spans["made"] += 1
        span.end()

    def failed(self, span: Any) -> None:
        """Mark it as an error, without a word on it."""
        span.set_status(self._trace.StatusCode.ERROR)

    def trace_id(self) -> str:
        """Of the question under way, 32 hex digits, or ""."""
        context = self._trace.get_current_span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def close(self) -> None:
        """Send what is queued, for as long as may be."""
        thread = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS)
        if thread.is_alive():
            log.warning("the last spans were not taken in time")

    def _parent(self, parents: Iterable[str] | None) -> Any:
        """None: the span that is current."""
        if parents is None:
            return None
        for each in filter(None, parents):
            found = self._propagator.extract({"traceparent": each}, context=self._context.Context())
            if self._trace.get_current_span(found).get_span_context().is_valid:
                return found
        return self._context.Context()


class _Open:
    """A span as a context manager and a `Span`. Whatever fails in tracing is nobody else's matter."""

    def __init__(
        self, telemetry: Telemetry, name: str, kind: Any, about: dict[str, Any], parents: Iterable[str] | None
    ) -> None:
        self._telemetry, self._begin = telemetry, (name, kind, about, parents)
        self._open: tuple[Any, Any] | None = None

    def __enter__(self) -> _Open:
        try:
            self._open = self._telemetry.begin(*self._begin)
        except Exception as error:
            log.error("a span could not be begun: %s", type(error).__name__)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._open is None:
            return
        try:
            if kind is not None:
                self._telemetry.failed(self._open[0])
            self._telemetry.end(*self._open)
        except Exception as error:
            log.error("a span could not be ended: %s", type(error).__name__)

    def decided(self, answer: Answer, chain: str) -> None:
        """As `Span.decided`."""
        judged = answer.judged
        about = {
            "sidecar.decision_id": answer.decision_id,
            "sidecar.effect": judged.verdict.effect,
            "sidecar.cause": judged.cause,
            "sidecar.policy.revision": judged.version.revision,
            "sidecar.chain": chain,
            "sidecar.seq": answer.recorded.seq,
        }
        self._tell(about)

    def failed(self, code: str) -> None:
        """As `Span.failed`."""
        self._tell({"rpc.grpc.status": code})

    def _tell(self, about: dict[str, Any]) -> None:
        if self._open is not None:
            self._open[0].set_attributes(about)


class _Counted:
    """An exporter that counts what came of it."""

    def __init__(self, exporter: Any, spans: Counter[str]) -> None:
        self._exporter, self._spans = exporter, spans

    def export(self, spans: Sequence[Any]) -> Any:
        """As `SpanExporter.export`; a result of name SUCCESS or FAILURE."""
        result = None
        try:
            result = self._exporter.export(spans)
            return result
        finally:
            self._spans["exported" if getattr(result, "name", "") == "SUCCESS" else "failed"] += len(spans)

    def shutdown(self) -> None:
        """As `SpanExporter.shutdown`."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As `SpanExporter.force_flush`."""
        return bool(self._exporter.force_flush(timeout_millis))
