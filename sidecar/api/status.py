"""Our errors as gRPC statuses: one line that names cause and mend, nothing of the inside."""

from __future__ import annotations

import grpc

from sidecar.decide import FAULTS
from sidecar.errors import CertificateEnded, LedgerError, LedgerFull, SidecarError

_CODES: tuple[tuple[type[SidecarError], grpc.StatusCode], ...] = (
    *((kind, grpc.StatusCode[code]) for kind, code in FAULTS),
    (LedgerFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (LedgerError, grpc.StatusCode.UNAVAILABLE),
    (CertificateEnded, grpc.StatusCode.UNAVAILABLE),
)

REFUSALS = tuple(kind for kind, _ in FAULTS)


def code_of(error: SidecarError) -> grpc.StatusCode:
    """The status for an error; INTERNAL for what should not have reached the edge."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL
