"""The demo's three forgers. Each has the ledger's bytes and changes a copy; none has the keys of the past."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.chain import recorded
from sidecar.chain.entry import EntryType, Header, StoredEntry, store
from sidecar.chain.stream import MAGIC, Kind, record, records

Record = tuple[Kind, bytes]


@dataclass(frozen=True, slots=True)
class Tampering:
    """What a forger does, in words and in bytes."""

    title: str
    forge: Callable[[bytes], bytes]


def _cut(stream: bytes) -> list[Record]:
    return list(records(io.BytesIO(stream).read))


def _join(parts: list[Record]) -> bytes:
    return MAGIC + b"".join(record(kind, body) for kind, body in parts)


def _payload(body: bytes) -> bytes:
    return recorded.parts(body)[2]


def _find(parts: list[Record], kind: EntryType, text: bytes) -> int:
    for index, (record_kind, body) in enumerate(parts):
        if record_kind is Kind.ENTRY and body[8] == kind and text in _payload(body):
            return index
    raise LookupError("the demo's ledger has no such entry")


def _make_the_denial_an_approval(stream: bytes) -> bytes:
    parts = _cut(stream)
    at = _find(parts, EntryType.DECISION, b'"effect":"DENY"')
    entry = StoredEntry.parse(parts[at][1])
    changed = _payload(parts[at][1]).replace(b'"effect":"DENY"', b'"effect":"ALLOW"')
    header = Header.decode(entry.header)
    lengthened = bytearray(header.encode())
    lengthened[128:132] = len(changed).to_bytes(4, "big")
    parts[at] = (Kind.ENTRY, store(bytes(lengthened), entry.tag, entry.salt, changed))
    return _join(parts)


def _lose_the_failure(stream: bytes) -> bytes:
    parts = _cut(stream)
    del parts[_find(parts, EntryType.OUTCOME, b'"status":"failed"')]
    return _join(parts)


def _cut_off_the_end(stream: bytes) -> bytes:
    parts = _cut(stream)
    epoch = max(index for index, (kind, _) in enumerate(parts) if kind is Kind.EPOCH)
    return _join(parts[:epoch])


TAMPERINGS = (
    Tampering("Someone turns a DENY into an ALLOW", _make_the_denial_an_approval),
    Tampering("Someone makes the failed action disappear", _lose_the_failure),
    Tampering("Someone cuts off everything since the sidecar started", _cut_off_the_end),
)
