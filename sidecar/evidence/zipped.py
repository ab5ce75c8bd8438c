"""Writing a bundle's container: one shape, no choices (proto/EVIDENCE.md, "Container" and "Bag").

Members are written as they come, whatever their length; what a header must know of them is put in afterwards.
"""

from __future__ import annotations

import contextlib
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO, Final

from sidecar.errors import UsageError
from sidecar.evidence.growing import Grown
from sidecar.evidence.packed import Entry, Packed
from sidecar.verify.bag import BAGIT, DECLARATION, INFO, MANIFEST, PAYLOAD, TAGS, write_manifest
from sidecar.verify.container import (
    CENTRAL,
    CENTRAL_MAGIC,
    DATE,
    DEFLATED,
    END,
    END_MAGIC,
    LOCAL,
    LOCAL_MAGIC,
    MAX_MEMBERS,
    MAX_SIZE,
    STORED,
    VERSION,
    most_from,
    well_named,
)

_PIECE: Final = 1 << 20
_TAIL: Final = 4  # members that follow the payload: the bag's own


@dataclass(frozen=True, slots=True)
class _Written:
    name: str
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    digest: str

    def local(self) -> bytes:
        name = self.name.encode()
        fields = (VERSION, 0, self.method, 0, DATE, self.crc, self.packed, self.size, len(name), 0)
        return LOCAL.pack(LOCAL_MAGIC, *fields) + name

    def central(self) -> bytes:
        name = self.name.encode()
        fields = (VERSION, VERSION, 0, self.method, 0, DATE, self.crc, self.packed, self.size, len(name))
        return CENTRAL.pack(CENTRAL_MAGIC, *fields, 0, 0, 0, 0, 0, self.offset) + name


class Zipped:
    """A bundle in the making, on a new file that can be read, written and sought.

    Raises UsageError where it grows over the format's limits.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._members: list[_Written] = []
        self._end = 0  # where the next member goes

    @contextlib.contextmanager
    def stored(self, name: str, told: Callable[[Grown], object] = lambda _: None) -> Iterator[Entry]:
        """Write a member's content as it is, however long. ``told``: how far it is."""
        start = self._start(name)
        at = self._out.tell()

        def written(size: int) -> None:
            self._out.flush()
            told(Grown(at, size))

        entry = Entry(self._out, written)
        yield entry
        entry.flush()
        told(Grown(at, entry.size, whole=True))
        self._done(_Written(name, STORED, entry.crc, entry.size, entry.size, start, entry.hash.hexdigest()))

    def take(self, name: str, packed: Packed) -> None:
        """Write a member that was deflated already: text that repeats itself less than the format's bound on expansion
        allows."""
        if packed.size > most_from(packed.packed):
            raise UsageError(f"{name} repeats itself more than the bundle's format allows; export a smaller window")
        start = self._start(name)
        packed.file.seek(0)
        shutil.copyfileobj(packed.file, self._out, _PIECE)
        self._done(_Written(name, DEFLATED, packed.crc, packed.packed, packed.size, start, packed.digest))

    def digests(self) -> dict[str, str]:
        """SHA-256 in hex of what was written below `data/`, by name."""
        return {each.name: each.digest for each in self._members if each.name.startswith(PAYLOAD)}

    @contextlib.contextmanager
    def again(self, name: str) -> Iterator[Callable[[int], bytes]]:
        """Read a stored member that was written."""
        written = next(each for each in self._members if each.name == name and each.method == STORED)
        left = written.size
        self._out.seek(written.offset + LOCAL.size + len(name.encode()))

        def read(size: int) -> bytes:
            nonlocal left
            data = self._out.read(min(size, left))
            left -= len(data)
            return data

        yield read

    def add(self, name: str, content: bytes) -> None:
        """Write a whole member, deflated where that helps and the format allows it."""
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(content) + packer.flush()
        method, data = DEFLATED, packed
        if len(packed) >= len(content) or len(content) > most_from(len(packed)):
            method, data = STORED, content
        start = self._start(name)
        self._out.write(data)
        crc, digest = zlib.crc32(content), sha256(content).hexdigest()
        self._done(_Written(name, method, crc, len(data), len(content), start, digest))

    def _start(self, name: str) -> int:
        if not well_named(name) or any(name.lower() == each.name.lower() for each in self._members):
            raise ValueError(f"{name} cannot be a member's name, or is one already")
        if len(self._members) + _TAIL >= MAX_MEMBERS:
            raise UsageError("the bundle would have too many files; export a smaller window")
        self._out.seek(self._end + LOCAL.size + len(name.encode()))
        return self._end

    def _done(self, written: _Written) -> None:
        end = self._out.tell()
        if end > MAX_SIZE - (1 << 24):
            raise UsageError("the bundle would be over 4 GiB; export a smaller window")
        self._out.seek(self._end)
        self._out.write(written.local())
        self._members.append(written)
        self._end = end

    def finish(self, info: str) -> None:
        """Write the bag's own files and the directory; more members may be added afterwards, and it be called again.

        ``info``: the content of `bag-info.txt`.
        """
        kept, end = list(self._members), self._end
        self.add(MANIFEST, write_manifest(self.digests()))
        self.add(BAGIT, DECLARATION)
        payload = [each.size for each in kept if each.name.startswith(PAYLOAD)]
        self.add(INFO, f"{info}Payload-Oxum: {sum(payload)}.{len(payload)}\n".encode())
        self.add(TAGS, write_manifest({each.name: each.digest for each in self._members[len(kept) :]}))
        self._out.seek(self._end)
        directory = b"".join(each.central() for each in self._members)
        count = len(self._members)
        self._out.write(directory + END.pack(END_MAGIC, 0, 0, count, count, len(directory), self._end, 0))
        self._out.truncate()
        self._out.flush()
        self._members, self._end = kept, end
