"""The span that is current in this process, as W3C Trace Context says it. OpenTelemetry is looked for, never imported.

An agent with a current span has imported it already; one without pays nothing.
"""

from __future__ import annotations

import sys
from typing import Final

HEADER: Final = "traceparent"


def trace_parent() -> str:
    """The `traceparent` of the current span; "" where there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def trace_metadata() -> tuple[tuple[str, str], ...] | None:
    """gRPC metadata for a call made in the current span."""
    current = trace_parent()
    return ((HEADER, current),) if current else None
