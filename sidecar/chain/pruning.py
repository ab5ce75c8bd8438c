"""What a stream is once payloads were pruned (proto/LEDGER.md, "Bare entry" and rule 13): records in, records out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from sidecar.chain.acts import Prune
from sidecar.chain.entry import TAGGED, EntryType
from sidecar.chain.stream import Kind

PRUNABLE: Final = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL, EntryType.REJECTED})
"""What payloads may be pruned of."""

Record = tuple[Kind, bytes]
_TYPE_AT, _SEGMENT = 8, slice(24, 32)  # of an entry's header


def bared(record: Record, acts: Sequence[Prune]) -> Record:
    """A record as it is once these acts were carried out; of anything else the same."""
    kind, body = record
    if kind is not Kind.ENTRY or len(body) <= TAGGED or body[_TYPE_AT] not in PRUNABLE:
        return record
    segment = int.from_bytes(body[_SEGMENT], "big")
    return (Kind.BARE, body[:TAGGED]) if any(act.covers(segment) for act in acts) else record


def pruned(records: Iterable[Record], grants: Iterable[bytes], acts: Sequence[Prune]) -> Iterator[Record]:
    """A whole ledger's records after pruning, with ``grants`` among the authority notes that are there."""
    notes: set[bytes] | None = set(grants)
    for kind, body in records:
        if notes is not None and kind is Kind.AUTHORITY:
            notes.add(body)
            continue
        if notes is not None and kind is not Kind.ATTACHMENT:
            yield from ((Kind.AUTHORITY, each) for each in sorted(notes, key=_name))
            notes = None
        yield bared((kind, body), acts)


def _name(grant: bytes) -> bytes:
    return sha256(grant).digest()
