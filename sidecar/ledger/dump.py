"""The child process that reads a ledger: LMDB in, the stream of proto/LEDGER.md out, nothing judged.

    python -m sidecar.ledger.dump DIRECTORY [--segment N | --since N | --rare]

LMDB maps a file into memory and trusts what it finds there; a hostile file may crash whoever reads it. So nobody but
this process does. What it finds is written as it is, from one snapshot, also while the sidecar goes on writing. The
exit code is one of `causes.CAUSES`, or 0.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from sidecar.chain import note
from sidecar.chain.entry import TAGGED, EntryType, Header, StoredEntry
from sidecar.chain.epoch import EpochNote
from sidecar.chain.seal import Seal
from sidecar.chain.stream import MAGIC, Kind, record
from sidecar.errors import LedgerDamaged, LedgerOtherVersion, LedgerUnknown, Malformed, NotFound, SidecarError
from sidecar.ledger.batch import NoteKind, note_key, note_of, seq_key, seq_of
from sidecar.ledger.causes import DAMAGED, NO_SEGMENT, NOT_A_LEDGER, OTHER_VERSION, OVERTAKEN, UNREADABLE
from sidecar.ledger.look import HEAD_KEY, check_format, epoch_before, kept_of
from sidecar.ledger.port import Kept
from sidecar.ledger.store import open_for_reading

_STREAM_KINDS: Final = {NoteKind.EPOCH: Kind.EPOCH, NoteKind.HEAD: Kind.HEAD, NoteKind.SEAL: Kind.SEAL}
_TYPE_AT: Final = 8  # of an entry's header
_SEGMENT_FIELD: Final = slice(24, 32)  # of an entry's header
_MEMORY: Final = 512 << 20  # the longest record is 8 MiB; a hostile one may claim 4 GiB
_RARE: Final = frozenset({EntryType.GENESIS, EntryType.OPEN, EntryType.POLICY, EntryType.REGISTRY})
_LEAD: Final = 2  # commits after which LMDB may use a page again that an unknown reader still reads


@dataclass(frozen=True, slots=True)
class _Databases:
    """What a reader looks into, each as LMDB names it."""

    entries: Any
    notes: Any
    attachments: Any
    attached: Any
    authority: Any


def _databases(environment: Any, txn: Any) -> _Databases:
    """The databases of an environment open for reading."""
    names = (b"entries", b"notes", b"attachments", b"attached", b"authority")
    return _Databases(*(environment.open_db(name, txn=txn, create=False) for name in names))


class _Overtaken(Exception):
    pass


def main(arguments: list[str]) -> int:
    """Dump a directory to standard output; gives the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    directory = Path(arguments[0])
    asked = arguments[1] if len(arguments) > 1 else ""
    number = int(arguments[2]) if len(arguments) > 2 else 0
    try:
        dump(directory, number if asked == "--segment" else None, sys.stdout.buffer, number, rare=asked == "--rare")
        sys.stdout.buffer.flush()
    except LedgerOtherVersion:
        return OTHER_VERSION
    except LedgerUnknown:
        return NOT_A_LEDGER
    except NotFound:
        return NO_SEGMENT
    except (LedgerDamaged, Malformed):
        return DAMAGED
    except _Overtaken:
        return OVERTAKEN
    except (SidecarError, BrokenPipeError):
        return UNREADABLE
    return 0


def dump(directory: Path, segment: int | None, out: BinaryIO, since: int = 0, *, rare: bool = False) -> None:
    """Write the whole ledger's stream, or one sealed segment's file. ``since``: without the entries of the segments
    before this one; ``rare``: with no other entries than GENESIS, OPEN, POLICY, REGISTRY, which are never let go
    of, so that there is no context.

    Raises:
        LedgerUnknown, LedgerDamaged, LedgerError, Malformed, NotFound: as in `causes.CAUSES`.
    """
    environment, known = open_for_reading(directory)
    check_format(environment)
    with environment.begin() as txn:
        found = _databases(environment, txn)
        records = _whole(txn, found, since, rare=rare) if segment is None else _segment(txn, found, segment)
        out.write(MAGIC)
        for kind, body in records:
            out.write(record(kind, body))
        if not known and environment.info()["last_txnid"] >= txn.id() + _LEAD:
            raise _Overtaken


def _whole(txn: Any, found: _Databases, since: int, *, rare: bool) -> Iterator[tuple[Kind, bytes]]:
    """Every attachment, then every note and every entry, each entry before the head and seal of its segment.

    Where the first segments were let go of, context stands for them.
    """
    notes, kept = found.notes, None if rare else kept_of(txn)
    given = None
    if kept is not None:
        given = epoch_before(txn, notes, kept.segment)
        yield from _context_of_end(txn, found, kept, given)
    for _, attachment in _rising(txn, found.attachments, 32):
        yield Kind.ATTACHMENT, attachment
    yield from _grants(txn, found)
    first = Kept(0, 0) if kept is None else kept
    begin = max(first.seq, (_end(txn, notes, since - 1) or 0) if since else 0)
    waiting = _rising(txn, found.entries, 8, seq_key(begin) if begin else b"")
    if rare:
        waiting = ((key, body) for key, body in waiting if body[_TYPE_AT] in _RARE)
    key, body = next(waiting, (None, b""))
    for note_at, signed in _rising(txn, notes, 9):
        segment, kind = note_of(note_at)
        if segment < first.segment or (segment == given and kind is NoteKind.EPOCH):
            continue
        if kind is not NoteKind.EPOCH:
            end = _end(txn, notes, segment)
            while key is not None and _belongs(seq_of(key), body, segment, end):
                yield _form(body), body
                key, body = next(waiting, (None, b""))
        yield _STREAM_KINDS[kind], signed
    while key is not None:
        yield _form(body), body
        key, body = next(waiting, (None, b""))
    if (head := txn.get(HEAD_KEY)) is not None:
        yield Kind.HEAD, head


def _context_of_end(txn: Any, found: _Databases, kept: Kept, first: int | None) -> Iterator[tuple[Kind, bytes]]:
    """GENESIS, the epoch's note and OPEN, registries that were in force, and the seals up to the first segment kept."""
    entries, notes = found.entries, found.notes
    if first is None:
        raise LedgerDamaged("no epoch note before the first segment that was kept")
    yield Kind.GENESIS, _payload(_entry(txn, entries, 0))
    signed = _note(txn, notes, first, NoteKind.EPOCH)
    yield Kind.EPOCH, signed
    if first != kept.segment:
        start = EpochNote.parse(note.parse(signed).text)
        yield Kind.OPEN, _payload(_entry(txn, entries, start.seq + (1 if start.epoch == 0 else 0)))
    for text in _registries(txn, entries, kept.seq)[-2:]:
        yield Kind.REGISTRY_BEFORE, text
    for segment in range(max(0, first - 1), kept.segment):
        yield Kind.CONTEXT_SEAL, _note(txn, notes, segment, NoteKind.SEAL)


def _registries(txn: Any, entries: Any, before: int) -> list[bytes]:
    """The registries that entries before this one put in force; few are left there, and all of these."""
    found: list[bytes] = []
    with txn.cursor(entries) as cursor:
        more = cursor.first()
        while more and seq_of(bytes(cursor.key())) < before:
            body = bytes(cursor.value())
            if body[_TYPE_AT] == EntryType.REGISTRY:
                from sidecar.chain import payload as payloads  # a quarter of a start, for the few that need it

                value = payloads.parse(EntryType.REGISTRY, _payload(body))
                found = [*found[-1:], value["registry"].encode()] if value["registry"] else found
            more = cursor.next()
    return found


def _form(body: bytes) -> Kind:
    return Kind.BARE if len(body) == TAGGED else Kind.ENTRY


def _grants(txn: Any, found: _Databases) -> Iterator[tuple[Kind, bytes]]:
    for _, grant in _rising(txn, found.authority, 32):
        yield Kind.AUTHORITY, grant


def _belongs(seq: int, body: bytes, segment: int, end: int | None) -> bool:
    """Whether an entry comes in this segment: by the seal's count, or where no seal tells, by its own header."""
    if end is not None:
        return seq < end
    return int.from_bytes(body[_SEGMENT_FIELD], "big") <= segment


def _end(txn: Any, notes: Any, segment: int) -> int | None:
    """The number after the segment's last entry, as its seal has it."""
    signed = txn.get(note_key(segment, NoteKind.SEAL), db=notes)
    if signed is None:
        return None
    try:
        seal = Seal.parse(note.parse(signed).text)
    except Malformed:
        return None
    return seal.first + seal.count


def _segment(txn: Any, found: _Databases, segment: int) -> Iterator[tuple[Kind, bytes]]:
    """One sealed segment's file, with the context records and the attachments that it needs."""
    entries, notes = found.entries, found.notes
    if not 0 <= segment < 2**64 or txn.get(note_key(segment, NoteKind.SEAL), db=notes) is None:
        raise NotFound("no such segment, or it is not sealed")
    kept = kept_of(txn)
    if kept is not None and segment < kept.segment:
        raise NotFound("its entries are no longer kept here")
    seal = Seal.parse(note.parse(_note(txn, notes, segment, NoteKind.SEAL)).text)
    if segment > 0:
        yield from _context(txn, entries, notes, segment)
    for digest in _attached(txn, found.attached, seal.first, seal.count):
        attachment = txn.get(digest, db=found.attachments)
        if attachment is not None:
            yield Kind.ATTACHMENT, attachment
    yield from _grants(txn, found)
    if segment == 0:
        yield Kind.EPOCH, _note(txn, notes, segment, NoteKind.EPOCH)
    for seq in range(seal.first, seal.first + seal.count):
        body = _entry(txn, entries, seq)
        yield _form(body), body
    head = txn.get(note_key(segment, NoteKind.HEAD), db=notes)
    if head is not None:
        yield Kind.HEAD, head
    yield Kind.SEAL, _note(txn, notes, segment, NoteKind.SEAL)


def _context(txn: Any, entries: Any, notes: Any, segment: int) -> Iterator[tuple[Kind, bytes]]:
    yield Kind.GENESIS, _payload(_entry(txn, entries, 0))
    first = epoch_before(txn, notes, segment)
    if first is None:
        raise LedgerDamaged("no epoch note before the segment")
    signed = _note(txn, notes, first, NoteKind.EPOCH)
    yield Kind.EPOCH, signed
    if first != segment:
        start = EpochNote.parse(note.parse(signed).text)
        yield Kind.OPEN, _payload(_entry(txn, entries, start.seq + (1 if start.epoch == 0 else 0)))
    yield Kind.SEAL_BEFORE, _note(txn, notes, segment - 1, NoteKind.SEAL)


def _attached(txn: Any, attached: Any, first: int, count: int) -> list[bytes]:
    """The digests that this segment's entries name, and the last two named before them, once each, rising."""
    digests: set[bytes] = set()
    with txn.cursor(attached) as cursor:
        more = cursor.set_range(seq_key(first))
        while more and seq_of(bytes(cursor.key())) < first + count:
            digests.add(bytes(cursor.value()))
            more = cursor.next()
        more = cursor.prev() if cursor.set_range(seq_key(first)) else cursor.last()
        for _ in range(2):
            if more:
                digests.add(bytes(cursor.value()))
                more = cursor.prev()
    return sorted(digests)


def _payload(body: bytes) -> bytes:
    stored = StoredEntry.parse(body)
    return stored.payload(Header.decode(stored.header).payload_len)


def _note(txn: Any, notes: Any, segment: int, kind: NoteKind) -> bytes:
    signed: bytes | None = txn.get(note_key(segment, kind), db=notes)
    if signed is None:
        raise LedgerDamaged("a note is missing")
    return signed


def _entry(txn: Any, entries: Any, seq: int) -> bytes:
    body: bytes | None = txn.get(seq_key(seq), db=entries) if seq < 2**64 else None
    if body is None:
        raise LedgerDamaged("an entry is missing")
    return body


def _rising(txn: Any, database: Any, size: int, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Every key and value, from ``first`` on. Keys that do not rise are refused: a page that names itself would go
    round for ever."""
    before = b""
    with txn.cursor(database) as cursor:
        if first and not cursor.set_range(first):
            return
        for key, value in cursor:
            if len(key) != size or key <= before:
                raise LedgerDamaged("keys do not rise")
            before = key
            yield key, value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
