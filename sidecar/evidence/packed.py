"""A document that is deflated while it is made, into a file of its own, from which the bundle takes it as it is."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO, Final

_PIECE: Final = 1 << 18
_PACK: Final = 1 << 18


class Entry:
    """A member that is being written."""

    def __init__(self, out: BinaryIO, written: Callable[[int], object] = lambda _: None) -> None:
        """``written``: takes how many bytes were passed on by now."""
        self._out, self._written = out, written
        self._held = bytearray()
        self.crc, self.size, self.hash = 0, 0, sha256()

    def write(self, data: bytes) -> None:
        """More of its content."""
        self._held += data
        if len(self._held) >= _PIECE:
            self.flush()

    def flush(self) -> None:
        """Pass on what was held back: small pieces cost more than they weigh."""
        self._out.write(self._held)
        self.crc = zlib.crc32(self._held, self.crc)
        self.size += len(self._held)
        self.hash.update(self._held)
        self._held.clear()
        self._written(self.size)


@dataclass(frozen=True, slots=True)
class Packed:
    """A document: ``packed`` bytes of RFC 1951 from the start of a file; CRC-32, length and SHA-256 (hex) of what
    they hold."""

    file: BinaryIO
    crc: int
    packed: int
    size: int
    digest: str


class Packing:
    """A document that is being written. What is packed, and where the pieces end, does not change its bytes."""

    def __init__(self, out: BinaryIO, thread: ThreadPoolExecutor) -> None:
        self._out, self._thread = out, thread
        self._packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        self._packed = Entry(out)
        self._crc, self._size, self._hash = 0, 0, sha256()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._under_way: Future[None] | None = None

    def write(self, data: bytes) -> None:
        """More of its content."""
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting >= _PACK:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
        self._under_way = self._thread.submit(self._pack, self._pieces)
        self._pieces, self._waiting = [], 0

    def _pack(self, pieces: list[bytes]) -> None:
        piece = b"".join(pieces)
        self._crc = zlib.crc32(piece, self._crc)
        self._size += len(piece)
        self._hash.update(piece)
        self._packed.write(self._packer.compress(piece))

    def done(self) -> Packed:
        """What was written, whole."""
        self._hand_over()
        assert self._under_way is not None
        self._under_way.result()
        self._packed.write(self._packer.flush())
        self._packed.flush()
        self._out.flush()
        return Packed(self._out, self._crc, self._packed.size, self._size, self._hash.hexdigest())


@contextlib.contextmanager
def packing(out: BinaryIO) -> Iterator[Packing]:
    """A document into a new file. Deflating and hashing, which take long, are a thread's."""
    with ThreadPoolExecutor(1) as thread:
        yield Packing(out, thread)
