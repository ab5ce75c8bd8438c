"""An entry as it is recorded, read for use: nothing but the commitment to its payload is checked."""

from __future__ import annotations

from typing import Any

from sidecar.chain import payload as payloads
from sidecar.chain.entry import Header, StoredEntry, payload_commit
from sidecar.errors import Malformed


def parts(body: bytes) -> tuple[Header, bytes, bytes]:
    """Header, salt and payload of a stored entry, not held against each other. Raises Malformed where it is none."""
    stored = StoredEntry.parse(body)
    header = Header.decode(stored.header)
    return header, stored.salt, stored.payload(header.payload_len)


def entry(body: bytes) -> tuple[Header, dict[str, Any]]:
    """Header and payload of a stored entry. Raises Malformed where it is none, or not what its header commits to."""
    header, salt, payload = parts(body)
    if payload_commit(salt, payload) != header.payload_commit:
        raise Malformed(f"seq {header.seq}: its payload is not the one that its header commits to")
    return header, payloads.parse(header.type, payload)
