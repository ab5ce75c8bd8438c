"""What an access log entry says became of an allowed request: Envoy's word, not the agent's (DOORS.md, "Outcome")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.enforce.envoy.v3 import access_log_pb2 as pb

NAMESPACE: Final = "envoy.filters.http.ext_authz"
_HARMLESS: Final = frozenset({"delay_injected", "unauthorized_details", "response_from_cache_filter"})
_VIA_UPSTREAM: Final = "via_upstream"
_MOST: Final = 256  # characters of the downstream status


@dataclass(frozen=True, slots=True)
class Ended:
    """``status`` as outcomes have it; ``response``: JSON; times in ns, 0: not known. ``sent``: bytes of the request's
    body."""

    decision_id: str
    status: str
    downstream_status: str
    response: bytes = b""
    started_ns: int = 0
    duration_ns: int = 0
    sent: int = 0


def ended(entry: pb.HTTPAccessLogEntry) -> Ended | None:
    """What became of a request that was let through; None of any other."""
    common = entry.common_properties
    said = common.metadata.filter_metadata.get(NAMESPACE)
    if said is None or common.intermediate_log_entry or said.fields["done"].string_value != "ALLOW":
        return None
    status, told = _status(entry)
    began = common.time_to_first_upstream_tx_byte
    started = common.start_time.ToNanoseconds() + began.ToNanoseconds() if status != "blocked" else 0
    took = _end(common) - began.ToNanoseconds() if status != "blocked" else 0
    return Ended(
        said.fields["decision_id"].string_value,
        status,
        told[:_MOST],
        strictjson.dumps(_response(entry)),
        max(started, 0),
        max(took, 1) if started else 0,
        entry.request.request_body_bytes,
    )


def _end(common: pb.AccessLogCommon) -> int:
    """ns from the request's first byte to the response's last, or to when it was given up."""
    last = common.time_to_last_downstream_tx_byte if common.HasField("time_to_last_downstream_tx_byte") else None
    return (last or common.duration).ToNanoseconds()


def _status(entry: pb.HTTPAccessLogEntry) -> tuple[str, str]:
    """The outcome, and what the service behind Envoy said. What was sent and not answered to its end is unknown."""
    code = entry.response.response_code.value
    flags = _flags(entry)
    if not entry.common_properties.HasField("time_to_first_upstream_tx_byte"):
        return "blocked", " ".join(["not sent", str(code), *flags])
    if flags or entry.response.response_code_details != _VIA_UPSTREAM or not code:
        return "failed", " ".join(["unknown", str(code), *flags, entry.response.response_code_details])
    for said in (entry.response.response_headers, entry.response.response_trailers):  # gRPC's protocol has both
        if (grpc_status := said.get("grpc-status", "0")) != "0":
            return "failed", f"{code} grpc-status {grpc_status[:3]}"
    return ("executed" if code < 400 else "failed"), str(code)


def _flags(entry: pb.HTTPAccessLogEntry) -> list[str]:
    found = entry.common_properties.response_flags.ListFields()
    return [field.name for field, _ in found if field.name not in _HARMLESS]


def _response(entry: pb.HTTPAccessLogEntry) -> dict[str, Any]:
    common, response = entry.common_properties, entry.response
    return {
        "status": response.response_code.value,
        "details": response.response_code_details[:256],
        "flags": _flags(entry),
        "request_body_bytes": entry.request.request_body_bytes,
        "response_body_bytes": response.response_body_bytes,
        "attempts": common.upstream_request_attempt_count,
    }
