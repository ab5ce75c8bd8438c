"""Where the ledger lies: LMDB behind the port `Store` (proto/LEDGER.md, "LMDB").

Nothing here knows what an entry or a note says. `lmdb` is imported nowhere else.
"""

from __future__ import annotations

import contextlib
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import lmdb

from sidecar.chain.limits import FORMAT
from sidecar.errors import LedgerDamaged, LedgerError, LedgerFull, LedgerOtherVersion, LedgerUnknown
from sidecar.ledger.batch import Batch, NoteKind, about_key, note_key, note_of, request_key, seq_key, seq_of

FILE: Final = "ledger.mdb"
_FORMAT_KEY: Final = b"format"
_DATABASES: Final = (
    b"entries",
    b"notes",
    b"index",
    b"requests",
    b"attachments",
    b"attached",
    b"about",
    b"waiting",
    b"authority",
)
_TYPE_AT: Final = 8  # of an entry's header
_COPIED_AT_ONCE: Final = 8 << 20
_FORGET_AT_ONCE: Final = 512  # the most old keys that one commit takes away


class LmdbStore:
    """LMDB 0.9 in the file ``ledger.mdb``; each commit is flushed twice (`sync` and `metasync`), never `writemap`."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._env = environment
        (
            self._entries, self._notes, self._index, self._requests, self._attachments, self._attached, self._about,
            self._waiting, self._authority,
        ) = (environment.open_db(name) for name in _DATABASES)  # fmt: skip
        self._page = int(environment.stat()["psize"])

    @classmethod
    def create(cls, directory: Path, max_bytes: int) -> LmdbStore:
        """A new store in a directory that has none.

        Raises:
            LedgerError: it cannot be written.
        """
        with _translated():
            store = cls(_environment(directory, max_bytes, create=True))
            with store._env.begin(write=True) as txn:
                txn.put(_FORMAT_KEY, FORMAT.encode(), overwrite=False)
            return store

    @classmethod
    def open(cls, directory: Path, max_bytes: int) -> LmdbStore:
        """The store in a directory. ``max_bytes`` may be raised from one run to the next.

        Raises:
            LedgerUnknown: no ledger, or of another version. LedgerDamaged: cut short. LedgerError: it cannot be read or
            written.
        """
        refuse_absent(directory)
        with _translated():
            environment = _environment(directory, max_bytes, create=False)
            try:
                _refuse_cut_short(directory, environment)
                check_format(environment)
                environment.reader_check()
                return cls(environment)
            except BaseException:
                environment.close()
                raise

    def commit(self, batch: Batch) -> None:
        """As :meth:`Store.commit`. Raises LedgerFull or LedgerError."""
        with _translated(), self._env.begin(write=True) as txn:
            if batch.entries:
                with txn.cursor(self._entries) as cursor:
                    _, added = cursor.putmulti(batch.entries, append=True)
                if added != len(batch.entries):
                    raise LedgerDamaged("a new entry's place is taken: the file was changed from outside")
            for key, signed in batch.notes:
                if signed is None:
                    txn.delete(key, db=self._notes)
                else:
                    txn.put(key, signed, db=self._notes)
            for key, digest, attachment in batch.attachments:
                txn.put(digest, attachment, db=self._attachments, overwrite=False)
                txn.put(key, digest, db=self._attached)
            for name, grant in batch.grants:
                txn.put(name, grant, db=self._authority)
            for key, place in batch.index:
                txn.put(key, place, db=self._index, overwrite=False)
            for key, kind in batch.abouts:
                txn.put(key, kind, db=self._about, overwrite=False)
            for key in batch.waits:
                txn.put(key, b"", db=self._waiting)
            for key in batch.settled:
                txn.delete(key, db=self._waiting)
            if batch.waits:
                self._forget(txn, self._waiting, seq_key(max(batch.waited_before, 0)))
            for key, recalled in batch.requests:
                txn.put(key, recalled, db=self._requests)
            if batch.requests:
                self._forget(txn, self._requests, request_key(max(batch.forget_before, 0), b""))

    def entry(self, seq: int) -> bytes | None:
        """As :meth:`Store.entry`."""
        return self._get(self._entries, seq_key(seq))

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        """As :meth:`Store.entries`."""
        with _translated(), self._env.begin() as txn, txn.cursor(self._entries) as cursor:
            found = cursor.set_key(seq_key(first))
            for seq in range(first, first + count):
                if not found or cursor.key() != seq_key(seq):
                    return
                yield cursor.value()
                found = cursor.next()

    def last_seq(self) -> int | None:
        """As :meth:`Store.last_seq`."""
        key = self._last(self._entries)
        return None if key is None else seq_of(key)

    def note(self, segment: int, kind: NoteKind) -> bytes | None:
        """As :meth:`Store.note`."""
        return self._get(self._notes, note_key(segment, kind))

    def last_note(self) -> tuple[int, NoteKind] | None:
        """As :meth:`Store.last_note`."""
        key = self._last(self._notes)
        return None if key is None else note_of(key)

    def last_epoch_segment(self, segment: int) -> int | None:
        """As :meth:`Store.last_epoch_segment`."""
        with _translated(), self._env.begin() as txn:
            return epoch_before(txn, self._notes, segment)

    def find(self, decision_id: bytes) -> int | None:
        """As :meth:`Store.find`."""
        place = self._get(self._index, decision_id)
        return None if place is None else seq_of(place)

    def about(self, seq: int) -> list[tuple[int, int]]:
        """As :meth:`Store.about`. Raises LedgerDamaged for a row of another shape."""
        rows: list[tuple[int, int]] = []
        with _translated(), self._env.begin() as txn, txn.cursor(self._about) as cursor:
            found = cursor.set_range(about_key(seq, 0))
            while found and cursor.key().startswith(seq_key(seq)):
                if len(cursor.value()) != 1:
                    raise LedgerDamaged("the index of references has a row that nobody wrote; run `sidecar verify`")
                rows.append((seq_of(cursor.key()[8:]), cursor.value()[0]))
                found = cursor.next()
        return rows

    def waiting(self, now: int, limit: int) -> list[int]:
        """As :meth:`Store.waiting`. Raises LedgerDamaged for a row of another shape."""
        found: list[int] = []
        with _translated(), self._env.begin() as txn, txn.cursor(self._waiting) as cursor:
            more = cursor.set_range(seq_key(max(now, 0)))
            while more and len(found) < limit:
                found.append(seq_of(cursor.key()[8:]))
                more = cursor.next()
        return found

    def recall(self, period: int, repeat_key: bytes) -> tuple[int, bytes] | None:
        """As :meth:`Store.recall`."""
        value = self._get(self._requests, request_key(period, repeat_key))
        return None if value is None else (seq_of(value[:8]), value[8:])

    def attachment(self, digest: bytes) -> bytes | None:
        """As :meth:`Store.attachment`."""
        return self._get(self._attachments, digest)

    def attached(self, seq: int) -> bytes | None:
        """As :meth:`Store.attached`."""
        digest = self._get(self._attached, seq_key(seq))
        return None if digest is None else self.attachment(digest)

    def last_attached(self) -> int | None:
        """As :meth:`Store.last_attached`."""
        key = self._last(self._attached)
        return None if key is None else seq_of(key)

    def allow(self, name: bytes, grant: bytes) -> None:
        """Keep an authority's grant under its SHA-256, durably."""
        with _translated(), self._env.begin(write=True) as txn:
            txn.put(name, grant, db=self._authority)

    def strip(self, first: int, after: int, kinds: Collection[int], longest: int, most: int) -> tuple[int, int]:
        """Cut entries of these types from ``first`` up to ``after`` to their first ``longest`` bytes, ``most`` in one
        commit; how many were cut, and the number to go on from."""
        cut = 0
        with _translated(), self._env.begin(write=True) as txn, txn.cursor(self._entries) as cursor:
            found = cursor.set_range(seq_key(first))
            while found and cut < most and (at := seq_of(bytes(cursor.key()))) < after:
                body = bytes(cursor.value())
                if len(body) > longest and body[_TYPE_AT] in kinds:
                    cursor.put(cursor.key(), body[:longest])
                    cut += 1
                first = at + 1
                found = cursor.next()
        return cut, first if cut == most else after

    def rewrite(self, beside: Path) -> None:
        """Write every record anew into the new file ``beside``, durably: neither a freed page, nor the unused part of
        one in use, of which LMDB's own copy promises nothing, can then hold anything else."""
        with _translated():
            new = _opened(beside, int(self._env.info()["map_size"]), create=True)
            try:
                with new.begin(write=True) as txn:
                    txn.put(_FORMAT_KEY, FORMAT.encode())
                with self._env.begin() as txn:
                    for name in _DATABASES:
                        source = self._env.open_db(name, txn=txn, create=False)
                        _copy(txn, source, new, new.open_db(name))
                new.sync(True)
            finally:
                new.close()

    def used(self) -> int:
        """As :meth:`Store.used`: every page ever taken; LMDB gives none back but uses freed ones again."""
        with _translated():
            return (int(self._env.info()["last_pgno"]) + 1) * self._page

    def tidy(self) -> None:
        """As :meth:`Store.tidy`: frees the places of readers that died."""
        with _translated():
            self._env.reader_check()

    def close(self) -> None:
        """As :meth:`Store.close`."""
        self._env.close()

    def _forget(self, txn: lmdb.Transaction, database: Any, before: bytes) -> None:
        with txn.cursor(database) as cursor:
            for _ in range(_FORGET_AT_ONCE):
                if not cursor.first() or bytes(cursor.key()) >= before:
                    return
                cursor.delete()

    def _get(self, database: Any, key: bytes) -> bytes | None:
        with _translated(), self._env.begin() as txn:
            value: bytes | None = txn.get(key, db=database)
            return value

    def _last(self, database: Any) -> bytes | None:
        with _translated(), self._env.begin() as txn, txn.cursor(database) as cursor:
            return cursor.key() if cursor.last() else None


def epoch_before(txn: lmdb.Transaction, notes: Any, segment: int) -> int | None:
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


def has_ledger(directory: Path) -> bool:
    """Whether a ledger's file is there, of whatever version or state."""
    return (directory / FILE).exists()


def refuse_absent(directory: Path) -> None:
    """Refuse a directory without a ledger. Raises LedgerUnknown."""
    file = directory / FILE
    # LMDB takes an empty file for a new database.
    if not file.is_file() or file.stat().st_size == 0:
        raise LedgerUnknown(f"no ledger in {directory}; name another directory, or make one: sidecar init")


def check_format(environment: lmdb.Environment) -> None:
    """Refuse what is no ledger of this version.

    Raises:
        LedgerUnknown: as said.
    """
    with environment.begin() as txn:
        found = txn.get(_FORMAT_KEY)
    if found is None:
        raise LedgerUnknown("the file ledger.mdb holds no ledger; name another directory, or make one: sidecar init")
    if found != FORMAT.encode():
        other = LedgerOtherVersion if found.startswith(FORMAT.rstrip("1").encode()) else LedgerUnknown
        raise other(f"the ledger is of another version than {FORMAT}; use the program that wrote it")


def _refuse_cut_short(directory: Path, environment: lmdb.Environment) -> None:
    """Refuse a file that lacks pages, which LMDB would be killed by. Raises LedgerDamaged."""
    length = (int(environment.info()["last_pgno"]) + 1) * int(environment.stat()["psize"])
    if (directory / FILE).stat().st_size >= length:
        return
    looking = [sys.executable, "-P", "-m", "sidecar.ledger.whole", str(directory.absolute())]
    if subprocess.run(looking, stderr=subprocess.DEVNULL).returncode != 0:
        raise LedgerDamaged("the file ledger.mdb is cut short; keep it, and run `sidecar verify` on it")


def touch_all(directory: Path) -> None:
    """Look at everything in a store; what ends this process ends it. Raises LedgerError."""
    environment, _ = open_for_reading(directory)
    with _translated(), environment.begin() as txn:
        for name in _DATABASES:
            with txn.cursor(environment.open_db(name, txn=txn, create=False)) as cursor:
                for _ in cursor:
                    pass


def open_for_reading(directory: Path) -> tuple[lmdb.Environment, bool]:
    """A read-only environment, also beside a running writer; the flag says whether the writer knows of this reader.

    Without a place in the lock file (this user may not write it, or there is none) pages may be used again under the
    reader, which has to look whether anything was committed meanwhile. Nothing is created.
    """
    refuse_absent(directory)
    with _translated():
        if _is_own_file(directory / f"{FILE}-lock"):
            with contextlib.suppress(lmdb.Error):
                return _environment(directory, 0, create=False, readonly=True), True
        return _environment(directory, 0, create=False, readonly=True, lock=False), False


def _is_own_file(path: Path) -> bool:
    """Whether this is a plain file under no other name: LMDB writes to it, and a hostile one may be a link."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _copy(txn: lmdb.Transaction, source: Any, new: lmdb.Environment, target: Any) -> None:
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


def _environment(
    directory: Path, max_bytes: int, *, create: bool, readonly: bool = False, lock: bool = True
) -> lmdb.Environment:
    return _opened(directory / FILE, max_bytes, create=create, readonly=readonly, lock=lock)


def _opened(file: Path, max_bytes: int, *, create: bool, readonly: bool = False, lock: bool = True) -> lmdb.Environment:
    return lmdb.open(
        str(file), map_size=max_bytes, subdir=False, readonly=readonly, metasync=True, sync=True,
        mode=0o600, create=create, writemap=False, max_dbs=len(_DATABASES), lock=lock,
    )  # fmt: skip


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """LMDB's errors as ours."""
    try:
        yield
    except lmdb.MapFullError:
        raise LedgerFull("the ledger has reached its greatest size; raise ledger_max_mib and start again") from None
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.BadDbiError, lmdb.NotFoundError):
        raise LedgerUnknown("the file ledger.mdb is no ledger of this version; name another directory") from None
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError):
        raise LedgerDamaged("the file ledger.mdb is damaged; keep it, and run `sidecar verify` on it") from None
    except lmdb.DiskError:
        raise LedgerFull("the disk is full; make room and start again") from None
    except (lmdb.Error, OSError) as error:
        raise LedgerError(f"the ledger's file cannot be used ({error}); mend that and start again") from None
