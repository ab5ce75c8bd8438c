"""What is refused by its caller's fault, whoever serves it, and how that is recorded."""

from __future__ import annotations

from typing import Final

from sidecar.decide.entries import Refusal
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

FAULTS: Final[tuple[tuple[type[SidecarError], str], ...]] = (
    (RequestError, "INVALID_ARGUMENT"),
    (CallerUnproved, "UNAUTHENTICATED"),
    (NotPermitted, "PERMISSION_DENIED"),
    (NotFound, "NOT_FOUND"),
    (WrongState, "FAILED_PRECONDITION"),
    (TooMany, "RESOURCE_EXHAUSTED"),
)
"""Errors that are the caller's, each with its gRPC status name: the request was refused, and the ledger says so."""


def refusal_of(error: SidecarError, code: str, call: str) -> Refusal:
    """What is recorded of it. ``code``: a gRPC status name; ``call``: what was called."""
    field, cause = (error.field, error.cause) if isinstance(error, RequestError) else ("", str(error))
    why = error.why if isinstance(error, CallerUnproved | NotPermitted) else ""
    return Refusal(code, field, cause, error.principal, why, error.decision_id, call)
