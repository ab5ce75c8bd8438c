"""HTTP statuses of what the doors that the sidecar serves refuse by their caller's fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.decide import FAULTS

_STATUSES: Final[Mapping[str, int]] = {"INVALID_ARGUMENT": 400, "RESOURCE_EXHAUSTED": 429}
"""By gRPC status name, where it is not 403."""


def fault_of(error: Exception) -> tuple[str, int] | None:
    """A gRPC status name for entries, and an HTTP status; None where it is not the caller's fault."""
    code = next((code for kind, code in FAULTS if isinstance(error, kind)), None)
    return None if code is None else (code, _STATUSES.get(code, 403))
