"""What a gateway that the sidecar serves says of who asks, beside how the gateway itself was proved (DOORS.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOCKET: Final = "socket"
MTLS: Final = "mtls"


@dataclass(frozen=True, slots=True)
class Voucher:
    """``gateway``: the principal that it is configured to be. ``proof``: ``socket`` (whoever may open that socket is
    it) or ``mtls`` (its certificate is the transport's, and is held against the registry).

    ``certificate``: SHA-256 of the leaf that the agent showed to the gateway, hex, or ""; ``spiffe_id``: the one in it.
    """

    gateway: str
    proof: str
    certificate: str = ""
    spiffe_id: str = ""

    def __post_init__(self) -> None:
        if self.proof not in (SOCKET, MTLS):
            raise ValueError("a gateway is proved by its socket or by mtls")

    def members(self) -> dict[str, str]:
        """As principals in payloads have it."""
        return {
            "gateway": self.gateway,
            "gateway_proof": self.proof,
            "certificate": self.certificate,
            "spiffe_id": self.spiffe_id,
        }
