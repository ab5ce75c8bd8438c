"""A store that forgets at will: objects in a dictionary, and every creation may fail, having persisted or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from sidecar.collector.storage.port import checked
from sidecar.errors import StorageError


class MemoryStorage:
    """`Storage` in a dictionary. ``fault(number, name)`` says how a creation ends: None, "failed" or "persisted"."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = {} if objects is None else objects
        self.kept: dict[str, int | None] = {}
        self.fault: Callable[[int, str], str | None] = lambda number, name: None
        self.created = 0

    def create(self, name: str, data: bytes, *, keep_until: int | None = None) -> bool:
        fault = self.fault(self.created, checked(name))
        self.created += 1
        if fault == "failed":
            raise StorageError(f"{name}: failed")
        new = name not in self.objects
        if new:
            self.objects[name], self.kept[name] = data, keep_until
        if fault == "persisted":
            raise StorageError(f"{name}: failed, and it persisted")
        return new

    def read(self, name: str, limit: int) -> bytes | None:
        data = self.objects.get(checked(name))
        if data is not None and len(data) > limit:
            raise StorageError(f"{name} is longer than {limit} bytes")
        return data

    def remove(self, name: str) -> None:
        if (self.kept.get(name) or 0) > time.time():
            raise StorageError(f"{name} cannot be removed: it is kept")
        self.objects.pop(name, None)

    def names(self, prefix: str) -> Iterator[str]:
        return iter([name for name in self.objects if name.startswith(prefix)])
