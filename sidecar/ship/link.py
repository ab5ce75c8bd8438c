"""What the sidecar asks of a collector: a port of four methods, and `grpc` behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Where:
    """How far the chain is held: a signed acknowledgement, and the place to go on from."""

    acknowledgement: bytes
    segment: int
    seq: int


@dataclass(frozen=True, slots=True)
class Proved:
    """As `ReceiptsResponse`; nothing of it is checked yet."""

    proofs: tuple[bytes, ...]
    roll_call: bytes
    consistency: bytes
    timestamps: tuple[bytes, ...]


class Link(Protocol):
    """All raise CollectorUnavailable and CollectorRefused. Asked again, each gives the same."""

    def enrol(self, genesis: bytes, token: bytes, signature: bytes) -> None:
        """Make the chain known."""

    def where(self, chain_id: bytes) -> Where:
        """How far the chain is held."""

    def ship(self, chain_id: bytes, parcel: bytes, signature: bytes) -> Where:
        """Hand over a parcel; a GAP is answered with the place to go on from."""

    def receipts(self, chain_id: bytes, entries: list[bytes], since: int) -> Proved:
        """Proofs of entries of the log."""

    def close(self) -> None:
        """Break off what is under way."""
