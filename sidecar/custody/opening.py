"""Openings of a ledger's sealed personal fields, for whoever may read them (proto/LEDGER.md, "Openings")."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from sidecar.chain import payload, personal
from sidecar.chain.entry import Header, StoredEntry
from sidecar.chain.stream import Kind, records
from sidecar.custody.sealing import FieldSealer
from sidecar.custody.subjects import SubjectKeys
from sidecar.errors import Malformed
from sidecar.verify import MAX_OPENINGS, ChainOpenings, Openings


def openings_of(
    read: Callable[[int], bytes], directory: Path, *, wanted: Callable[[Header], bool] = lambda _: True,
    subjects: Collection[bytes] | None = None,
) -> Openings:  # fmt: skip
    """What the keys in ``directory`` open of a stream. ``subjects``: of these alone; ``wanted``: of these entries.

    Claimed complete only where neither leaves anything out. What was erased is not in it.

    Raises:
        Malformed: a stream that is none, or more than a file of openings may hold.
        ProofRejected: an entry whose fields are not those it commits to.
        UsageError, LedgerError, CustodyError: the keys cannot be used.
    """
    found: dict[int, bytes] = {}
    chain_id, sealer, complete, size = b"", None, True, 0
    for kind, body in records(read):
        if kind is not Kind.ENTRY:
            continue
        stored = StoredEntry.parse(body)
        header = Header.decode(stored.header)
        chain_id = chain_id or header.chain_id
        if not header.field_count:
            continue
        if sealer is None:
            sealer = FieldSealer(None, SubjectKeys.read(directory, chain_id), chain_id)
        said = personal.read(header.type, payload.parse(header.type, stored.payload(header.payload_len)))
        if said is None or not wanted(header) or (subjects is not None and said.subject not in subjects):
            complete = False
            continue
        opening = sealer.opening(header.seq, said)
        if opening is not None:
            found[header.seq] = opening
            size += len(opening) * 4 // 3 + 64
            if size > MAX_OPENINGS:
                raise Malformed(f"openings: more than {MAX_OPENINGS} bytes; ask for fewer entries")
    return Openings({chain_id: ChainOpenings(found, complete)})
