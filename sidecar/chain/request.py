"""The request digest: what a caller asked, computable from its own fields (proto/LEDGER.md, "Request digest")."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One action on one resource; ``arguments`` is the JSON text as it was sent."""

    action: str
    resource_type: str
    resource_id: str
    arguments: bytes = b""


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a caller asks, as it was sent. ``wanted`` is what it would do, ``alternatives`` what it could."""

    agent: str
    wanted: Option
    context: bytes = b""
    purpose: str = ""
    trace_parent: str = ""
    idempotency_key: str = ""
    last_receipt: bytes = b""
    alternatives: tuple[Option, ...] = ()

    def digest(self) -> bytes:
        """The 32-byte request digest."""
        parts = [b"sidecar/v1/request\0"]
        for field in self._fields():
            parts += (len(field).to_bytes(4, "big"), field)
        return hashlib.sha256(b"".join(parts)).digest()

    def _fields(self) -> Iterable[bytes]:
        w = self.wanted
        yield self.agent.encode()
        yield from (w.action.encode(), w.resource_type.encode(), w.resource_id.encode(), w.arguments)
        yield self.context
        yield from (self.purpose.encode(), self.trace_parent.encode(), self.idempotency_key.encode())
        yield self.last_receipt
        yield len(self.alternatives).to_bytes(4, "big")
        for a in self.alternatives:
            yield from (a.action.encode(), a.resource_type.encode(), a.resource_id.encode(), a.arguments)
