"""What a store's file tells of itself, whoever opened it: format, first and last things (proto/LEDGER.md, "LMDB")."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sidecar.chain.limits import FORMAT
from sidecar.errors import LedgerDamaged, LedgerOtherVersion, LedgerUnknown
from sidecar.ledger.batch import NoteKind, about_key, note_key, note_of, seq_key, seq_of
from sidecar.ledger.port import Kept

FILE: Final = "ledger.mdb"
FORMAT_KEY: Final = b"format"
KEPT_KEY: Final = b"kept"
GONE_KEY: Final = b"gone"
HEAD_KEY: Final = b"head"
OWN_KEYS: Final = (FORMAT_KEY, KEPT_KEY, GONE_KEY, HEAD_KEY)
"""What the unnamed database has besides the names of the others."""
_COPIED_AT_ONCE: Final = 8 << 20
_LATE: Final = 16  # commits that a reader of our own may be behind
_FORGET_AT_ONCE: Final = 512  # the most old keys that one commit takes away
_TYPE_AT: Final = 8  # of an entry's header


def kept_of(txn: Any) -> Kept | None:
    """From where on entries were kept. Raises LedgerDamaged."""
    found = txn.get(KEPT_KEY)
    if found is None:
        return None
    if len(found) != 16:
        raise LedgerDamaged("what says where the entries begin has not 16 bytes")
    return Kept(seq_of(bytes(found[:8])), seq_of(bytes(found[8:])))


def epoch_before(txn: Any, notes: Any, segment: int) -> int | None:
    """The greatest segment up to this one that has an epoch note."""
    with txn.cursor(notes) as cursor:
        # The first key after this segment's epoch note; what lies before it is at most that note.
        after = note_key(segment, NoteKind.HEAD)
        found = cursor.prev() if cursor.set_range(after) else cursor.last()
        while found:
            at, kind = note_of(bytes(cursor.key()))
            if kind is NoteKind.EPOCH:
                return at
            found = cursor.prev()
    return None


def counted(cursor: Any, kind: int, first: int, after: int) -> int:
    """Entries of a type from ``first`` up to ``after``; the cursor gives buffers."""
    number, last, found = 0, seq_key(after), cursor.set_range(seq_key(first))
    while found and bytes(cursor.key()) < last:
        number += cursor.value()[_TYPE_AT] == kind
        found = cursor.next()
    return number


def pages_of(stats: Iterable[Any]) -> int:
    """Pages in use by databases, of which LMDB tells these."""
    return sum(each["branch_pages"] + each["leaf_pages"] + each["overflow_pages"] for each in stats)


def has_ledger(directory: Path) -> bool:
    """Whether a ledger's file is there, of whatever version or state."""
    return (directory / FILE).exists()


def refuse_absent(directory: Path) -> None:
    """Refuse a directory without a ledger. Raises LedgerUnknown."""
    file = directory / FILE
    # LMDB takes an empty file for a new database.
    if not file.is_file() or file.stat().st_size == 0:
        raise LedgerUnknown(f"no ledger in {directory}; name another directory, or make one: sidecar init")


def check_format(environment: Any) -> None:
    """Refuse what is no ledger of this version.

    Raises:
        LedgerUnknown: as said.
    """
    with environment.begin() as txn:
        found = txn.get(FORMAT_KEY)
    if found is None:
        raise LedgerUnknown("the file ledger.mdb holds no ledger; name another directory, or make one: sidecar init")
    if found != FORMAT.encode():
        other = LedgerOtherVersion if found.startswith(FORMAT.rstrip("1").encode()) else LedgerUnknown
        raise other(
            f"the ledger is of another version than {FORMAT}; use the program that wrote it, or a newer one: it was "
            "not touched"
        )


def referring(cursor: Any, seq: int) -> list[tuple[int, int]]:
    """Number and type of each entry that refers to this one. Raises LedgerDamaged for a row of another shape."""
    rows: list[tuple[int, int]] = []
    found = cursor.set_range(about_key(seq, 0))
    while found and cursor.key().startswith(seq_key(seq)):
        if len(cursor.value()) != 1:
            raise LedgerDamaged("the index of references has a row that nobody wrote; run `sidecar verify`")
        rows.append((seq_of(cursor.key()[8:]), cursor.value()[0]))
        found = cursor.next()
    return rows


def is_held(environment: Any) -> bool:
    """Whether a reader that began long ago keeps freed pages from being used; one that died does too."""
    last = int(environment.info()["last_txnid"])
    rows = [line.split() for line in environment.readers().splitlines()[1:]]
    return min((int(row[2]) for row in rows if row[2] != "-"), default=last) < last - _LATE


def forget(txn: Any, database: Any, before: bytes) -> None:
    """Take the first keys away, those below ``before``, as many as one commit may."""
    with txn.cursor(database) as cursor:
        for _ in range(_FORGET_AT_ONCE):
            if not cursor.first() or bytes(cursor.key()) >= before:
                return
            cursor.delete()


def is_own_file(path: Path) -> bool:
    """Whether this is a plain file under no other name: LMDB writes to it, and a hostile one may be a link."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def copy_all(txn: Any, source: Any, new: Any, target: Any) -> None:
    """All records of a database, in order, in commits of a bounded size."""
    with txn.cursor(source) as cursor:
        more = cursor.first()
        while more:
            size = 0
            with new.begin(write=True) as writing:
                while more and size < _COPIED_AT_ONCE:
                    key, value = cursor.item()
                    writing.put(key, value, db=target, append=True)
                    size += len(value) + len(key)
                    more = cursor.next()
