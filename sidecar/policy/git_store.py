"""The cache of a repository: packs, and a note of what they hold. Where anything is odd, all of it goes.

    DIRECTORY/lock          held by the one process that uses it
    DIRECTORY/busy          there while somebody writes; found at the start, it tells of an end halfway
    DIRECTORY/state.json    of which repository, which commits were fetched, where their history was cut
    DIRECTORY/objects/      git's object store, packs only

Every object read is hashed against its id, so neither a server nor whoever can write here can put other content in its
place, as far as SHA-1 goes: who can make two files with one SHA-1 (shattered, 2017; git's own programs look for the
traces of that attack, this reader does not) can prepare two commits with one id. The bundle's SHA-256 in the ledger
tells them apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from .git_errors import Damaged, Unreachable
from .git_pack import look_through
from .git_tree import parents_of

MOST_OBJECT: Final = 64 << 20
"""Bytes of one object: twice what a policy may have in all."""

_MOST_PACKS: Final = 50
_KINDS: Final = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}


@dataclass(frozen=True, slots=True)
class State:
    """``origin``: the URL. ``heads``: commits fetched, the last first. ``shallow``: those whose parents were not sent.
    ``whole``: whether nothing was left out."""

    origin: str
    heads: tuple[str, ...] = ()
    shallow: frozenset[str] = frozenset()
    whole: bool = False


class Cache:
    """An open cache, as a context manager, which raises `Unreachable` where another process has it."""

    def __init__(self, directory: Path, origin: str, max_bytes: int, leave_free: int) -> None:
        """``max_bytes``: of one fetch; ``leave_free``: of the disk, which a fetch does not touch."""
        self._directory, self._origin, self._max_bytes = directory, origin, max_bytes
        self._leave_free = leave_free
        self._objects = directory / "objects"
        self._mark = directory / "busy"
        self._store: Any = None
        self.state = State(origin)

    def __enter__(self) -> Cache:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise Unreachable(f"{self._directory} is in use by another process; give each sidecar its own") from None
        try:
            self._start()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        os.close(self._lock)

    def _close(self) -> None:
        if self._store is not None:
            with contextlib.suppress(Exception):  # after damage something may still hold on to a mapped pack
                self._store.close()
        self._store = None

    def _start(self) -> None:
        self.state = self._read_state()
        if self._mark.exists() or self.state.origin != self._origin or self._too_much():
            self.clear()
        else:
            self._open()

    def _read_state(self) -> State:
        """What the note says; of no repository where it cannot be read."""
        try:
            found = json.loads((self._directory / "state.json").read_bytes()[: 1 << 20])
            return State(found["origin"], tuple(found["heads"]), frozenset(found["shallow"]), bool(found["whole"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return State("")

    def _too_much(self) -> bool:
        """Packs are never merged here: past a number or size it is cheaper to begin anew."""
        sizes = [file.stat().st_size for file in self._objects.glob("pack/*")]
        return len(sizes) > 2 * _MOST_PACKS or sum(sizes) > 2 * self._max_bytes

    def clear(self) -> None:
        """Begin anew, with nothing."""
        self._close()
        self.state = State(self._origin)
        (self._directory / "state.json").unlink(missing_ok=True)
        if self._objects.exists():
            shutil.rmtree(self._objects)  # before anything is written: the disk may be full of it
        with self._busy():
            self._open()

    def _open(self) -> None:
        from dulwich.object_store import DiskObjectStore

        (self._objects / "pack").mkdir(parents=True, exist_ok=True)
        self._store = DiskObjectStore(str(self._objects))

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        """An end within leaves the mark, and the next to come begins anew."""
        self._mark.touch(mode=0o600)
        yield
        self._write_state()
        self._mark.unlink()

    def _write_state(self) -> None:
        state = self.state
        text = {"origin": state.origin, "heads": state.heads, "shallow": sorted(state.shallow), "whole": state.whole}
        made = self._directory / "state.new"
        made.write_text(json.dumps(text))
        made.rename(self._directory / "state.json")

    def receive(
        self, tips: list[str], fetch: Callable[[Callable[[bytes], int]], frozenset[str]], *, whole: bool
    ) -> None:
        """Take in the pack that ``fetch`` writes with the function it is given; it tells where the history is cut.

        Raises `Unreachable` where it is larger than ``max_bytes``, or has an object that is too large.
        """
        with self._busy():
            pack, commit, abort = self._store.add_pack()
            try:
                shallow = fetch(_Bounded(pack, self._max_bytes, self._directory, self._leave_free).write)
                empty = pack.tell() == 0
                if not empty:
                    look_through(pack, MOST_OBJECT)
            except BaseException:
                abort()
                self._mark.unlink()  # all is as it was
                raise
            (abort if empty else commit)()
            heads = tuple(dict.fromkeys((*tips, *self.state.heads)))[:8]
            self.state = replace(self.state, heads=heads, shallow=shallow, whole=whole)

    def has(self, id: str) -> bool:
        """Whether the object of this hex id is here."""
        return id.encode() in self._store

    def kind(self, id: str) -> str:
        """commit, tree, blob or tag. Raises `Damaged`."""
        return self._raw(id)[0]

    def read(self, id: str, kind: str) -> bytes:
        """An object's content, which hashes to ``id``. Raises `Damaged` where it is absent, or anything else."""
        found, content = self._raw(id)
        if found != kind:
            raise Damaged(f"{id} is a {found} where a {kind} should be")
        return content

    def _raw(self, id: str) -> tuple[str, bytes]:
        try:
            number, content = self._store.get_raw(id.encode())
        except KeyError:
            raise Damaged(f"the object {id} is missing") from None
        kind = _KINDS.get(number, "")
        if object_id(kind, content) != id:
            raise Damaged(f"the object {id} has other content than its name says")
        return kind, bytes(content)

    def follows(self, commit: str, active: str) -> bool | None:
        """Whether ``active`` is ``commit`` or an ancestor of it; None where the history that is here does not tell."""
        seen, waiting, cut = {commit}, [commit], False
        while waiting:
            level, waiting = waiting, []
            for id in level:
                if id == active:
                    return True
                if id in self.state.shallow:
                    cut = True
                    continue
                for parent in parents_of(self.read(id, "commit")):
                    if parent not in seen:
                        seen.add(parent)
                        waiting.append(parent)
        return None if cut else False


class _Bounded:
    def __init__(self, file: BinaryIO, most: int, directory: Path, leave_free: int) -> None:
        self._file, self._most, self._directory, self._got = file, most, directory, 0
        self._leave_free = leave_free

    def write(self, data: bytes) -> int:
        self._got += len(data)
        self._check_room(len(data))
        if self._got > self._most:
            raise Unreachable(
                f"the server sent more than {self._most:,} bytes; fetch less history (depth), or raise max_bytes"
            )
        try:
            return self._file.write(data)
        except OSError as error:
            raise Unreachable(disk_trouble(error, self._directory)) from None

    def _check_room(self, size: int) -> None:
        disk = os.statvfs(self._directory)
        if self._leave_free and disk.f_bavail * disk.f_frsize - size < self._leave_free:
            raise Unreachable(
                f"the disk of {self._directory} has hardly more than {self._leave_free >> 20} MiB free, left to "
                "the ledger; make room on it, or fetch less history (depth)"
            )


def disk_trouble(error: OSError, directory: Path) -> str:
    """Why the cache cannot be used, in one line."""
    if error.errno == errno.EFBIG:
        return "the server sent more than max_bytes; fetch less history (depth), or raise it"
    why = error.strerror or type(error).__name__
    return f"the cache {directory} cannot be used: {why}; see to its disk and permissions"


def object_id(kind: str, content: bytes) -> str:
    """The id git gives to an object."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False).hexdigest()
