"""What a call that failed means: one NoDecision, in one line, with cause and mend."""

from __future__ import annotations

import grpc

from sidecar.client.refusals import NoDecision, NoDecisionCause, one_line

_STATUS_CAUSES: dict[grpc.StatusCode, NoDecisionCause] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNAVAILABLE: "unreachable",
    grpc.StatusCode.CANCELLED: "unreachable",
    grpc.StatusCode.UNIMPLEMENTED: "protocol",
    grpc.StatusCode.INTERNAL: "protocol",
    grpc.StatusCode.UNKNOWN: "protocol",
}

_MEND: dict[NoDecisionCause, str] = {
    "timeout": "see whether the sidecar is overloaded, or give the guard more time",
    "unreachable": "see whether the sidecar runs there and is ready",
    "refused": "the sidecar's words name what to mend",
    "protocol": "see the sidecar's log, and that client and sidecar are of matching versions",
}

_TLS = "; one side may want TLS, or a certificate, that the other does not bring"

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def code_of(error: Exception) -> grpc.StatusCode | None:
    """gRPC's status of a failed call; None for an error that is no status, as of a closed channel."""
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):  # the bare RpcError has neither
        code = error.code()
        return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
    return None


def no_decision(error: Exception, address: str, timeout: float, receipt: bytes = b"") -> NoDecision:
    """What a failed call means. ``receipt`` is the last receipt that was sent with it."""
    code = code_of(error)
    if code is None:
        return status(grpc.StatusCode.UNAVAILABLE, str(error), address, timeout)
    details = error.details() if hasattr(error, "details") else None
    return status(code, details or "", address, timeout, receipt)


def refusal(code: int, message: str, address: str, timeout: float, receipt: bytes = b"") -> NoDecision:
    """What a Refusal means: one question's share of a batch or a stream. ``code`` is a gRPC status code."""
    known = _CODES.get(code, grpc.StatusCode.UNKNOWN)
    if known is grpc.StatusCode.OK:  # a refusal is none with that code
        known = grpc.StatusCode.UNKNOWN
    return status(known, message, address, timeout, receipt)


def status(code: grpc.StatusCode, details: str, address: str, timeout: float, receipt: bytes = b"") -> NoDecision:
    """What a gRPC status means. ``details`` are foreign text of any form."""
    if code is grpc.StatusCode.FAILED_PRECONDITION and receipt and details.startswith("last_receipt"):
        return _cut(one_line(details), address, receipt)
    cause = _STATUS_CAUSES.get(code, "refused")
    said = one_line(details) or "no details given"
    what = f"none within {timeout:g} s" if cause == "timeout" else f"{code.name}: {said}"
    tls = cause == "unreachable" and not address.startswith("unix:")
    return NoDecision(cause, f"{what} (sidecar at {address}); {_MEND[cause]}{_TLS if tls else ''}")


def misshaped(what: str, receipt: bytes = b"") -> NoDecision:
    """For an answer that is none. ``receipt``: the one that contradicts it."""
    return NoDecision("protocol", f"{what}; {_MEND['protocol']}", receipt)


def _cut(details: str, address: str, receipt: bytes) -> NoDecision:
    return NoDecision(
        "refused",
        f"the sidecar at {address} has lost what it had answered this guard: {details}; "
        "no question is accepted until its ledger holds that again, or the agent starts anew",
        receipt,
    )
