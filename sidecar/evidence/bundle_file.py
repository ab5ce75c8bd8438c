"""A bundle in a file, as those who judge it or tell of it read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

Told = Callable[[int], None]
"""Takes how many bytes more were read."""


class FileSource:
    """A bundle in an open file. ``told``: how many bytes were read."""

    def __init__(self, file: BinaryIO, told: Told = lambda _: None) -> None:
        self._fd, self._told = file.fileno(), told
        self._file = file

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._fd).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """As `sidecar.verify.container.Source`."""
        pieces = []
        while size > 0 and (piece := os.pread(self._fd, size, offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
            self._told(len(piece))
        return b"".join(pieces)
