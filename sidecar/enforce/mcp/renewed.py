"""A secret in a file that may change, as one in a mounted Secret does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from sidecar.errors import UsageError
from sidecar.files import signature

Held = TypeVar("Held")


class Renewed(Generic[Held]):
    """What ``read`` makes of a file, made again when it changes; what cannot be used is told to ``trouble``, once, by
    ``name`` ("the new token …"), and the one before stays. ``read`` raises UsageError, and so does this when made of a
    file that cannot be used."""

    def __init__(self, path: Path, read: Callable[[Path], Held], name: str, trouble: Callable[[str], object]) -> None:
        self._path, self._read, self._name, self._trouble = path, read, name, trouble
        self._seen = signature(path)
        self._held = read(path)

    def current(self) -> Held:
        """The newest that can be used."""
        seen = signature(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._held = self._read(self._path)
            except UsageError as error:
                self._trouble(f"the new {self._name} cannot be used, what was there before stays: {error}")
        return self._held
