"""Our errors as gRPC statuses: one line that names cause and mend, nothing of the inside."""

from __future__ import annotations

import grpc

from sidecar.errors import (
    CallerUnproved,
    LedgerError,
    LedgerFull,
    NotFound,
    NotPermitted,
    RequestError,
    SidecarError,
    TooMany,
    WrongState,
)

_CODES: tuple[tuple[type[SidecarError], grpc.StatusCode], ...] = (
    (RequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (CallerUnproved, grpc.StatusCode.UNAUTHENTICATED),
    (NotPermitted, grpc.StatusCode.PERMISSION_DENIED),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (WrongState, grpc.StatusCode.FAILED_PRECONDITION),
    (TooMany, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (LedgerFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (LedgerError, grpc.StatusCode.UNAVAILABLE),
)

REFUSALS = (RequestError, CallerUnproved, NotPermitted, NotFound, WrongState, TooMany)
"""Errors that are the caller's: the request was refused, and the ledger says so."""


def code_of(error: SidecarError) -> grpc.StatusCode:
    """The status for an error; INTERNAL for what should not have reached the edge."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL
