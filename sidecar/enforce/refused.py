"""What the doors that the sidecar serves refuse by their caller's fault, and how it is recorded."""

from __future__ import annotations

from typing import Final

from sidecar.decide import Refusal
from sidecar.errors import (
    CallerUnproved,
    NotFound,
    NotPermitted,
    RequestError,
    SidecarError,
    TooMany,
    WrongState,
)

FAILED: Final = "the sidecar failed; there is no permission"
"""All that a caller hears of a fault of our own."""

_FAULTS: Final[tuple[tuple[type[SidecarError], str, int], ...]] = (
    (RequestError, "INVALID_ARGUMENT", 400),
    (CallerUnproved, "UNAUTHENTICATED", 403),
    (NotPermitted, "PERMISSION_DENIED", 403),
    (NotFound, "NOT_FOUND", 403),
    (WrongState, "FAILED_PRECONDITION", 403),
    (TooMany, "RESOURCE_EXHAUSTED", 429),
)


def fault_of(error: Exception) -> tuple[str, int] | None:
    """A gRPC status name for entries, and an HTTP status; None where it is not the caller's fault."""
    return next(((code, status) for kind, code, status in _FAULTS if isinstance(error, kind)), None)


def refusal_of(error: SidecarError, code: str, call: str) -> Refusal:
    """What is recorded of it."""
    field, cause = (error.field, error.cause) if isinstance(error, RequestError) else ("", str(error))
    why = error.why if isinstance(error, CallerUnproved | NotPermitted) else ""
    return Refusal(code, field, cause, error.principal, why, error.decision_id, call)
