"""The port to storage: four methods. Objects are created once, read and listed; nothing changes one.

What is removed is what an authority allowed to be pruned, and was replaced before; and parts of a tile that was filled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from sidecar.errors import StorageError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
LONGEST_NAME = 512


class Storage(Protocol):
    """What a store promises. Names are as :func:`checked` takes them. Methods may be called from any thread."""

    def create(self, name: str, data: bytes, *, keep_until: int | None = None) -> bool:
        """Create an object if none of that name exists; False if one does, whatever it holds.

        Of calls for one name at most one is True; none where the store's answer was lost and it was asked again. Either
        way the object that is there must be durable, all of it, before this returns; a part of it is never seen.
        ``keep_until`` (POSIX seconds): nobody can remove it before, as far as the store can enforce that.

        Raises:
            StorageError: it may exist or not, durably or not; creating it again settles that.
        """

    def read(self, name: str, limit: int) -> bytes | None:
        """An object as it was created; None if there is none.

        Raises:
            StorageError: it cannot be read, or is longer than ``limit`` bytes.
        """

    def remove(self, name: str) -> None:
        """Remove an object, all of it, for good; one that is not there is removed already.

        Raises:
            StorageError: it is kept until later than now, or may or may not be there: removing it again settles that.
        """

    def names(self, prefix: str) -> Iterator[str]:
        """The names that start with ``prefix``, in no order; an object whose creation has returned is among them.

        Raises:
            StorageError: they cannot be listed.
        """


def checked(name: str) -> str:
    """A name that every store takes: parts of letters, digits and ``. _ -``, none starting with a dot, and slashes.

    Raises:
        ValueError: another one. It is made by a program, never by a sender.
    """
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError(f"not the name of an object: {name!r}")
    return name


def create_same(storage: Storage, name: str, data: bytes, *, keep_until: int | None = None) -> None:
    """Create an object that can only have these bytes, or find it there.

    Raises:
        StorageError: as `Storage.create`; or it is there with other bytes.
    """
    if storage.create(name, data, keep_until=keep_until):
        return
    if storage.read(name, len(data)) != data:
        raise StorageError(f"{name} is stored with other bytes than it must have: damage, or a second log in its place")
