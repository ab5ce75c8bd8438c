"""Files that we write, so that they last; that others write, seen to change; how many may be open.

Blocks; it imports no other room.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

DRAFT: Final = ".new"
"""What the name of a file ends in that :func:`put` is writing; or was, when a crash came."""


def allow_many() -> None:
    """As many open files as the system allows this process; often it is 1,024 at first, which is few."""
    import resource  # a client needs none of it

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def sync(path: Path) -> None:
    """What a file holds, or the names in a directory, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """A file that is not there yet, durable once its directory is too (`sync`). Raises OSError, leaving none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def put(path: Path, data: bytes, mode: int = 0o600) -> None:
    """A file that is there whole or not at all, durably; one that was there is replaced. Raises OSError.

    It is made beside it, with :data:`DRAFT` after its name; one that a crash left is taken away first. So one writer
    at a time.
    """
    draft = path.with_name(path.name + DRAFT)
    draft.unlink(missing_ok=True)
    write_new(draft, data, mode)
    draft.replace(path)
    sync(path.absolute().parent)


class Signature(NamedTuple):
    """What differs once a file was written to, replaced or given other rights. Times are nanoseconds."""

    device: int
    inode: int
    mode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> Signature:
        """That of a file by its `os.stat_result`."""
        return cls(found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def signature(path: Path) -> Signature | None:
    """That of what is at ``path``, links followed; None: it cannot be seen."""
    try:
        return Signature.of(path.stat())
    except OSError:
        return None
