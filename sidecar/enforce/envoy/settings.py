"""How the door is set up: who the gateway is, who is behind it, and which headers are judged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.errors import UsageError

MAX_HEADERS: Final = 32
_NAME: Final = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
_SECRET: Final = re.compile(r"auth|cookie|token|secret|passw|credential|api-?key|session|signature|\Ax-sidecar-")


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """``gateway``: the registered executor that Envoy is; ``proof``: ``socket`` or ``mtls``. ``agent``: the one agent
    behind it; empty: whose SPIFFE id the caller's certificate has. ``headers``: the requests' headers that are judged
    and recorded, lower case. ``body_bytes``: Envoy's ``max_request_bytes``: a body of so many bytes may be cut.
    ``connection_seconds``: how long a connection over TLS takes new calls.

    Raises:
        UsageError: a header that is none, or that carries secrets; a limit out of range.
    """

    gateway: str
    proof: str
    agent: str = ""
    headers: tuple[str, ...] = ()
    body_bytes: int = 65_536
    connection_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.body_bytes <= 1 << 20:
            raise UsageError("doors.envoy.body_bytes must be from 1 to 1048576")
        if not 1 <= self.connection_seconds <= 86_400:
            raise UsageError("doors.envoy.connection_seconds must be from 1 to 86400")
        if len(self.headers) > MAX_HEADERS:
            raise UsageError(f"doors.envoy.headers has more than {MAX_HEADERS} names")
        for name in self.headers:
            if not _NAME.match(name):
                raise UsageError(f"doors.envoy.headers: {name!r} is not a header's name in lower case")
            if _SECRET.search(name):
                raise UsageError(f"doors.envoy.headers: {name} carries secrets, which no ledger keeps; leave it out")
