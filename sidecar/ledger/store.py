"""Where the ledger lies: LMDB behind the port `Store` (proto/LEDGER.md, "LMDB").

Nothing here knows what an entry or a note says. `lmdb` is imported nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import lmdb

from sidecar.chain.limits import FORMAT
from sidecar.errors import LedgerDamaged, LedgerError, LedgerFull, LedgerUnknown
from sidecar.ledger.batch import LATE, Batch, NoteKind, about_key, note_key, note_of, request_key, seq_key, seq_of
from sidecar.ledger.look import (
    FILE,
    FORMAT_KEY,
    GONE_KEY,
    HEAD_KEY,
    KEPT_KEY,
    OWN_KEYS,
    check_format,
    copy_all,
    counted,
    epoch_before,
    forget,
    is_held,
    is_own_file,
    kept_of,
    pages_of,
    referring,
    refuse_absent,
)
from sidecar.ledger.port import Kept

_AHEAD: Final = 1 << 20  # bytes of the file beyond what is used
_FIXED_PAGES: Final = 8  # metas, the database of databases, the list of free pages
_DATABASES: Final = (
    b"entries", b"notes", b"index", b"requests", b"attachments", b"attached", b"about", b"waiting", b"authority",
)  # fmt: skip
_TYPE_AT: Final = 8  # of an entry's header


class LmdbStore:
    """LMDB 0.9 in the file ``ledger.mdb``; each commit is flushed twice (`sync` and `metasync`), never `writemap`."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._env = environment
        self._all = [environment.open_db(name) for name in _DATABASES]
        (
            self._entries, self._notes, self._index, self._requests, self._attachments, self._attached, self._about,
            self._waiting, self._authority,
        ) = self._all  # fmt: skip
        self._page = int(environment.stat()["psize"])
        self._late: dict[bytes, bytes] = {}  # rows of the index that are to be written
        self._length = 0  # of the file, as far as it is known to reach

    @classmethod
    def create(cls, directory: Path, max_bytes: int) -> LmdbStore:
        """A new store in a directory that has none.

        Raises:
            LedgerError: it cannot be written.
        """
        with _translated():
            store = cls(_environment(directory, max_bytes, create=True))
            with store._env.begin(write=True) as txn:
                txn.put(FORMAT_KEY, FORMAT.encode(), overwrite=False)
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
        late = {**dict(batch.index), **self._late}
        indexed = batch.sealed or len(late) >= LATE
        with _translated(), self._env.begin(write=True) as txn:
            for key, body in batch.entries:
                if not txn.put(key, body, append=True, db=self._entries):
                    raise LedgerDamaged("a new entry's place is taken: the file was changed from outside")
            for key, signed in batch.notes:
                txn.put(key, signed, db=self._notes)
            if batch.head:
                txn.put(HEAD_KEY, batch.head)
            elif batch.head is not None:
                txn.delete(HEAD_KEY)
            for key, digest, attachment in batch.attachments:
                txn.put(digest, attachment, db=self._attachments, overwrite=False)
                txn.put(key, digest, db=self._attached)
            for name, grant in batch.grants:
                txn.put(name, grant, db=self._authority)
            for key, place in late.items() if indexed else ():
                txn.put(key, place, db=self._index, overwrite=False)
            for key, kind in batch.abouts:
                txn.put(key, kind, db=self._about, overwrite=False)
            for key in batch.waits:
                txn.put(key, b"", db=self._waiting)
            for key in batch.settled:
                txn.delete(key, db=self._waiting)
            if batch.waits:
                forget(txn, self._waiting, seq_key(max(batch.waited_before, 0)))
            for key, recalled in batch.requests:
                txn.put(key, recalled, db=self._requests)
            if batch.requests:
                forget(txn, self._requests, request_key(max(batch.forget_before, 0), b""))
        self._late = {} if indexed else late

    def reach(self) -> None:
        """As :meth:`Store.reach`: zeros beyond the file's end, where LMDB has nothing, while no commit is under way."""
        wanted = (int(self._env.info()["last_pgno"]) + 1) * self._page + _AHEAD
        if wanted - _AHEAD // 2 <= self._length:
            return
        self._length = wanted
        with _translated(), contextlib.suppress(OSError), Path(self._env.path()).open("r+b", buffering=0) as file:
            with self._env.begin(write=True):
                file.write(bytes(min(max(0, wanted - file.seek(0, os.SEEK_END)), _AHEAD)))
            os.fdatasync(file)

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

    def count(self, kind: int, first: int, after: int) -> int:
        """As :meth:`Store.count`."""
        with _translated(), self._env.begin(buffers=True) as txn, txn.cursor(self._entries) as cursor:
            return counted(cursor, kind, first, after)

    def last_seq(self) -> int | None:
        """As :meth:`Store.last_seq`."""
        key = self._last(self._entries)
        return None if key is None else seq_of(key)

    def note(self, segment: int, kind: NoteKind) -> bytes | None:
        """As :meth:`Store.note`."""
        return self._get(self._notes, note_key(segment, kind))

    def head(self) -> bytes | None:
        """As :meth:`Store.head`."""
        return self._get(None, HEAD_KEY)

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
        place = self._late.get(decision_id) or self._get(self._index, decision_id)
        return None if place is None else seq_of(place)

    def about(self, seq: int) -> list[tuple[int, int]]:
        """As :meth:`Store.about`. Raises LedgerDamaged for a row of another shape."""
        with _translated(), self._env.begin() as txn, txn.cursor(self._about) as cursor:
            return referring(cursor, seq)

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
                with self._env.begin() as txn, new.begin(write=True) as writing:
                    for key in OWN_KEYS:
                        if (value := txn.get(key)) is not None:
                            writing.put(key, value)
                with self._env.begin() as txn:
                    for name in _DATABASES:
                        source = self._env.open_db(name, txn=txn, create=False)
                        copy_all(txn, source, new, new.open_db(name))
                new.sync(True)
            finally:
                new.close()

    def kept(self) -> Kept | None:
        """As :meth:`Store.kept`."""
        with _translated(), self._env.begin() as txn:
            return kept_of(txn)

    def keep_from(self, place: Kept) -> None:
        """As :meth:`Store.keep_from`."""
        if place.segment and place != self.kept():
            with _translated(), self._env.begin(write=True) as txn:
                txn.put(KEPT_KEY, seq_key(place.segment) + seq_key(place.seq))

    def entries_from(self, first: int, after: int, most: int) -> Iterator[tuple[int, bytes]]:
        """As :meth:`Store.entries_from`."""
        with _translated(), self._env.begin() as txn, txn.cursor(self._entries) as cursor:
            found = cursor.set_range(seq_key(first))
            for _ in range(most):
                if not found or (at := seq_of(bytes(cursor.key()))) >= after:
                    return
                yield at, bytes(cursor.value())
                found = cursor.next()

    def let_go(self, seqs: Sequence[int], decisions: Sequence[bytes], upto: int) -> None:
        """As :meth:`Store.let_go`."""
        with _translated(), self._env.begin(write=True) as txn:
            for seq in seqs:
                txn.delete(seq_key(seq), db=self._entries)
            for decision in decisions:
                txn.delete(decision, db=self._index)
            with txn.cursor(self._about) as cursor:
                for seq in seqs:
                    while cursor.set_range(about_key(seq, 0)) and bytes(cursor.key())[:8] == seq_key(seq):
                        cursor.delete()
            txn.put(GONE_KEY, seq_key(upto))

    def let_go_upto(self) -> int:
        """As :meth:`Store.let_go_upto`."""
        with _translated(), self._env.begin() as txn:
            found = txn.get(GONE_KEY)
            return 0 if found is None else seq_of(bytes(found))

    def in_use(self) -> int:
        """As :meth:`Store.in_use`."""
        with _translated(), self._env.begin() as txn:
            stats = [txn.stat(db) for db in self._all]
        return (pages_of(stats) + _FIXED_PAGES) * self._page

    def used(self, rough: int = 0) -> int:
        """As :meth:`Store.used`. LMDB gives no page back to the disk, and uses freed ones again once no reader that
        began before is left."""
        with _translated():
            taken = (int(self._env.info()["last_pgno"]) + 1) * self._page
            if taken <= rough:
                return taken
            if is_held(self._env) and (not self._env.reader_check() or is_held(self._env)):
                return taken
        return min(taken, self.in_use())

    def tidy(self) -> None:
        """As :meth:`Store.tidy`: frees the places of readers that died."""
        with _translated():
            self._env.reader_check()

    def close(self) -> None:
        """As :meth:`Store.close`."""
        self._env.close()

    def _get(self, database: Any, key: bytes) -> bytes | None:
        with _translated(), self._env.begin() as txn:
            value: bytes | None = txn.get(key, db=database)
            return value

    def _last(self, database: Any) -> bytes | None:
        with _translated(), self._env.begin() as txn, txn.cursor(database) as cursor:
            return cursor.key() if cursor.last() else None


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
        if is_own_file(directory / f"{FILE}-lock"):
            with contextlib.suppress(lmdb.Error):
                return _environment(directory, 0, create=False, readonly=True), True
        return _environment(directory, 0, create=False, readonly=True, lock=False), False


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
