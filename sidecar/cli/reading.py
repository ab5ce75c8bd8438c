"""Reading the entries of a stream for a command that shows or uses them; nothing but the commitment is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sidecar.chain import payload as payloads
from sidecar.chain.entry import EntryType, Header, StoredEntry, payload_commit
from sidecar.chain.stream import Kind, records
from sidecar.errors import Malformed


def entry(body: bytes) -> tuple[Header, dict[str, Any]]:
    """Header and payload of a stored entry. Raises Malformed where it is none, or not what its header commits to."""
    stored = StoredEntry.parse(body)
    header = Header.decode(stored.header)
    payload = stored.payload(header.payload_len)
    if payload_commit(stored.salt, payload) != header.payload_commit:
        raise Malformed(f"seq {header.seq}: its payload is not the one that its header commits to")
    return header, payloads.parse(header.type, payload)


def entries_of(read: Callable[[int], bytes], kind: EntryType) -> Iterator[tuple[Header, dict[str, Any]]]:
    """The entries of one type; others are passed over unread. Raises Malformed at one that cannot be read."""
    for what, body in records(read):
        if what is Kind.ENTRY and body[8:9] == bytes((kind,)):
            yield entry(body)
