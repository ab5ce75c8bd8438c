"""Objects as files in a directory: the default.

A file is written beside, synced, linked to its name (which fails where there is one), and its directory synced. A file
system enforces no retention against its own administrator; files are made read-only, no more. Until when a file is
kept is its time of modification: before that nothing here removes it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sidecar.collector.storage.port import checked
from sidecar.errors import StorageError
from sidecar.files import sync

_OBJECTS = "objects"
_WRITING = "writing"


class FileStorage:
    """Objects below ``directory``, which is made if its parent is there; see `Storage` for what is promised. ``alone``:
    no other process writes there.

    Raises:
        StorageError: the directory cannot be made or read.
    """

    def __init__(self, directory: Path, *, alone: bool = True) -> None:
        self._objects, self._writing = directory / _OBJECTS, directory / _WRITING
        with _mapped(str(directory)):
            for each in (directory, self._objects, self._writing):
                each.mkdir(mode=0o700, exist_ok=True)
            # What a crash left behind half written; it was never anybody's, unless somebody writes just now.
            for leftover in self._writing.iterdir() if alone else ():
                leftover.unlink(missing_ok=True)
            sync(directory)
            sync(directory.parent)

    def create(self, name: str, data: bytes, *, keep_until: int | None = None) -> bool:
        place = self._objects / checked(name)
        with _mapped(name):
            self._make_directory(place.parent)
            made = self._link(place, data, keep_until)
            if not made:
                # Whoever made it may have died before it was durable.
                sync(place)
            sync(place.parent)
        return made

    def _link(self, place: Path, data: bytes, keep_until: int | None) -> bool:
        if place.exists():
            return False
        descriptor, beside = tempfile.mkstemp(dir=self._writing)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o400)
                if keep_until is not None:
                    os.utime(file.fileno(), (keep_until, keep_until))
                os.fsync(file.fileno())
            os.link(beside, place)
        except FileExistsError:
            return False
        finally:
            Path(beside).unlink(missing_ok=True)
        return True

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directory(directory.parent)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        sync(directory.parent)

    def read(self, name: str, limit: int) -> bytes | None:
        with _mapped(name):
            try:
                with (self._objects / checked(name)).open("rb") as file:
                    data = file.read(limit + 1)
            except FileNotFoundError:
                return None
        if len(data) > limit:
            raise StorageError(f"{name} is longer than {limit} bytes")
        return data

    def remove(self, name: str) -> None:
        place = self._objects / checked(name)
        with _mapped(name):
            try:
                kept = place.stat().st_mtime
            except FileNotFoundError:
                return
            if kept > time.time():
                raise StorageError(f"{name} cannot be removed: it is kept until {datetime.fromtimestamp(kept, UTC)}")
            place.unlink(missing_ok=True)
            sync(place.parent)

    def names(self, prefix: str) -> Iterator[str]:
        start = self._objects / prefix.rpartition("/")[0]
        with _mapped(prefix):
            for directory, _, files in os.walk(start, onerror=_raised):
                below = Path(directory).relative_to(self._objects)
                for file in files:
                    name = (below / file).as_posix()
                    if name.startswith(prefix):
                        yield name


def _raised(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextlib.contextmanager
def _mapped(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot store or read {name}: {error.strerror or error}") from None
