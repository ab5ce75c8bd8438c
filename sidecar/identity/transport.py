"""What the transport knows of a caller, once whoever terminates it has verified it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate whose chain was verified already, against the right trust domain alone.

    ``fingerprint``: SHA-256 of the leaf's DER, 32 bytes. ``spki``: the leaf's DER SubjectPublicKeyInfo, as the
    certificate has it. ``spiffe_id``: its one URI SAN, or "".
    """

    fingerprint: bytes
    spki: bytes
    spiffe_id: str = ""

    def __post_init__(self) -> None:
        if len(self.fingerprint) != 32 or not self.spki:
            raise ValueError("a certificate has a fingerprint of 32 bytes and a key")


@dataclass(frozen=True, slots=True)
class Transport:
    """``peer``: where the call comes from, as entries have it. ``certificate``: None where none was shown."""

    peer: str
    certificate: Certificate | None = None
