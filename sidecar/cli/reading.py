"""Reading the entries of a stream for a command that shows or uses them; nothing but the commitment is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sidecar.chain import payload as payloads
from sidecar.chain.entry import HEADER_SIZE, TAG_SIZE, EntryType, Header, StoredEntry, payload_commit
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


def withheld(body: bytes) -> tuple[Header, None]:
    """Header of a bare entry, whose payload is not here. Raises Malformed."""
    if len(body) != HEADER_SIZE + TAG_SIZE:
        raise Malformed("a bare entry is a header and a tag")
    return Header.decode(body[:HEADER_SIZE]), None


def entries_of(read: Callable[[int], bytes], kind: EntryType) -> Iterator[tuple[Header, dict[str, Any]]]:
    """The entries of one type; others are passed over unread. Raises Malformed at one that cannot be read."""
    for what, body in records(read):
        if what is Kind.ENTRY and body[8:9] == bytes((kind,)):
            yield entry(body)
