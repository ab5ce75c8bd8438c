"""The zip of an evidence bundle: one shape, so that nothing in it can be read two ways.

proto/EVIDENCE.md, "Container".

The directory is read and checked whole before any content; contents are inflated as streams, never further than the
directory says. Nothing is written anywhere.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

from sidecar.errors import Malformed

MAX_SIZE: Final = 2**32 - 2
MAX_MEMBERS: Final = 16_384
MAX_NAME: Final = 240
LOCAL: Final = struct.Struct("<4s5H3I2H")
CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
END: Final = struct.Struct("<4s4H2IH")
LOCAL_MAGIC, CENTRAL_MAGIC, END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
VERSION: Final = 20
DATE: Final = 33  # 1980-01-01
STORED, DEFLATED = 0, 8
_FREE: Final = 1 << 20
_RATIO: Final = 200
_CHUNK: Final = 1 << 16
_PART: Final = r"[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")


class Source(Protocol):
    """The bundle's bytes."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer only where the source ends."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the bundle. ``offset`` is where its data starts, ``packed`` how many bytes that has."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def well_named(name: str) -> bool:
    """Whether a member may have this name."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def most_from(packed: int) -> int:
    """The largest size that so many deflated bytes may have."""
    return _FREE + _RATIO * packed


def directory(source: Source) -> dict[str, Member]:
    """All members by name, in the file's order.

    Raises:
        Malformed: the file is not of the one shape that is allowed.
    """
    if not END.size <= source.size <= MAX_SIZE:
        raise Malformed("bundle: too short for a zip file, or too long")
    end = END.unpack(_exactly(source, source.size - END.size, END.size))
    count, length, at = end[4], end[5], end[6]
    if end != (END_MAGIC, 0, 0, count, count, length, at, 0) or count > MAX_MEMBERS:
        raise Malformed("bundle: its end record is not as it must be")
    if at + length + END.size != source.size or length > count * (CENTRAL.size + MAX_NAME):
        raise Malformed("bundle: directory and end record do not meet")
    members: dict[str, Member] = {}
    following = 0
    for member, header in _central(_exactly(source, at, length), count):
        if header[16] != following:
            raise Malformed(f"bundle: {member.name} does not start where the member before it ends")
        _check_local(source, header, member)
        following = member.offset + member.packed
        if member.name in members or following > at:
            raise Malformed(f"bundle: {member.name} is there twice, or reaches into the directory")
        members[member.name] = member
    if following != at:
        raise Malformed("bundle: there is something between members and directory")
    _check_names(members)
    return members


def _exactly(source: Source, offset: int, size: int) -> bytes:
    data = source.read_at(offset, size)
    if len(data) != size:
        raise Malformed("bundle: cut short")
    return data


def _central(data: bytes, count: int) -> Iterator[tuple[Member, tuple[Any, ...]]]:
    at = 0
    for _ in range(count):
        if at + CENTRAL.size > len(data):
            raise Malformed("bundle: its directory is cut short")
        header = CENTRAL.unpack_from(data, at)
        at += CENTRAL.size
        name = data[at : at + header[10]]
        at += header[10]
        yield _member(header, name), header
    if at != len(data):
        raise Malformed("bundle: its directory is longer or shorter than its headers")


def _member(header: tuple[Any, ...], encoded: bytes) -> Member:
    method, crc, packed, size = header[4], *header[7:10]
    due: tuple[Any, ...] = (
        CENTRAL_MAGIC, VERSION, VERSION, 0, method, 0, DATE, crc, packed, size, header[10], 0, 0, 0, 0, 0, header[16]
    )  # fmt: skip
    name = encoded.decode("ascii", "replace")
    if header != due or len(encoded) != header[10] or not well_named(name):
        raise Malformed("bundle: a header or a name in its directory is not as it must be")
    if not (method == STORED and packed == size) and not (method == DEFLATED and size <= most_from(packed)):
        raise Malformed(f"bundle: {name} is packed in a way that is not allowed, or expands too far")
    return Member(name, method, crc, packed, size, header[16] + LOCAL.size + header[10])


def _check_local(source: Source, header: tuple[Any, ...], member: Member) -> None:
    due = LOCAL.pack(LOCAL_MAGIC, *header[2:10], header[10], 0) + member.name.encode()
    if source.read_at(header[16], len(due)) != due:
        raise Malformed(f"bundle: the header before {member.name} is not that of the directory")


def _check_names(members: dict[str, Member]) -> None:
    folded = {name.lower() for name in members}
    if len(folded) != len(members):
        raise Malformed("bundle: two names differ only in case")
    for name in folded:
        parts = name.split("/")
        if any("/".join(parts[:n]) in folded for n in range(1, len(parts))):
            raise Malformed(f"bundle: {name} lies below another file")


class Content:
    """One member's content as a stream. ``read`` as that of a file; ``fault`` and ``digest`` once it is read out."""

    def __init__(self, source: Source, member: Member) -> None:
        self.member = member
        self.fault: str | None = None
        self._source, self._at, self._left = source, member.offset, member.packed
        self._inflate = zlib.decompressobj(-15) if member.method == DEFLATED else None
        self._hash, self._crc, self._size, self._over = sha256(), 0, 0, False

    @property
    def digest(self) -> str:
        """SHA-256 of what was read, hex."""
        return self._hash.hexdigest()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none only at the end, or where the data is not what the directory says."""
        data = b"" if self._over or not size else self._stored(size) if self._inflate is None else self._inflated(size)
        self._hash.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        if not data and size and not self._over:
            self._end()
        return data

    def _stored(self, size: int) -> bytes:
        data = self._source.read_at(self._at, min(size, self._left))
        self._at += len(data)
        self._left -= len(data)
        return data

    def _inflated(self, size: int) -> bytes:
        inflate = self._inflate
        assert inflate is not None
        size = min(size, self.member.size - self._size + 1)
        try:
            while not inflate.eof:
                packed = inflate.unconsumed_tail or self._stored(_CHUNK)
                data = inflate.decompress(packed, size)
                if data or not packed:
                    return data
        except zlib.error as error:
            self.fault = f"its deflated data is damaged: {error}"
        return b""

    def _end(self) -> None:
        self._over = True
        inflate = self._inflate
        whole = inflate is None or (inflate.eof and not inflate.unused_data and not self._left)
        if self.fault is None and (not whole or self._size != self.member.size):
            self.fault = "its data is longer or shorter than the directory says"
        if self.fault is None and self._crc != self.member.crc:
            self.fault = "its CRC-32 is not that of the directory"

    def finish(self) -> None:
        """Read what is left."""
        while self.read(_CHUNK):
            pass
