"""Looking through a pack before anything unpacks it (format: gitformat-pack(5)).

Each object is inflated into nothing, piece by piece, so that one which claims little and inflates to gigabytes, or a
delta that does, is found while it costs no memory.
"""

from __future__ import annotations

import mmap
import zlib
from typing import BinaryIO, Final

from .git_errors import Damaged, Unreachable

MOST_OBJECTS: Final = 1_000_000
_OFFSET_DELTA: Final = 6
_BASE_DELTA: Final = 7
_TYPES: Final = (1, 2, 3, 4, _OFFSET_DELTA, _BASE_DELTA)
_PIECE: Final = 64 << 10
_TRAILER: Final = 20  # the SHA-1 of all before it


def look_through(pack: BinaryIO, most: int) -> int:
    """How many objects a pack has; none of them, nor what any delta makes, is larger than ``most`` bytes.

    Raises `Unreachable` for one that is, `Damaged` for what is no pack.
    """
    pack.flush()
    with mmap.mmap(pack.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if len(data) < 12 + _TRAILER or data[:4] != b"PACK" or data[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
            raise Damaged("what the server sent is no pack")
        count = int.from_bytes(data[8:12], "big")
        if count > MOST_OBJECTS:
            raise Unreachable(f"the repository has more than {MOST_OBJECTS:,} objects; give the policy one of its own")
        try:
            at = 12
            for _ in range(count):
                at = _skip(data, at, most)
        except (IndexError, zlib.error):
            raise Damaged("the server sent a pack that is cut short, or garbled") from None
        if at != len(data) - _TRAILER:
            raise Damaged("the server sent a pack of another length than it says")
    return count


def _skip(data: mmap.mmap, at: int, most: int) -> int:
    """Where the object after the one at ``at`` begins."""
    kind, size, at = _head(data, at)
    if kind == _OFFSET_DELTA:
        while data[at] & 0x80:
            at += 1
        at += 1
    elif kind == _BASE_DELTA:
        at += 20
    if size > most:
        raise _too_large(size, most)
    begin, at = _inflate(data, at, size)
    if kind in (_OFFSET_DELTA, _BASE_DELTA):
        _, after = _varint(begin, 0)
        made, _ = _varint(begin, after)
        if made > most:
            raise _too_large(made, most)
    return at


def _head(data: mmap.mmap, at: int) -> tuple[int, int, int]:
    byte = data[at]
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 0x80:
        at += 1
        byte = data[at]
        size |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise Damaged("the server sent a pack with an object of impossible size")
    if kind not in _TYPES:
        raise Damaged("the server sent a pack with an object of an unknown kind")
    return kind, size, at + 1


def _inflate(data: mmap.mmap, at: int, size: int) -> tuple[bytes, int]:
    """The first bytes of what a stream holds, which must be ``size`` in all, and where the stream ends."""
    inflater = zlib.decompressobj()
    begin, got = b"", 0
    feed = min(size + 64, _PIECE)
    piece = data[at : at + feed]
    at += len(piece)
    while True:
        made = inflater.decompress(piece, _PIECE)
        begin = begin or made[:32]
        got += len(made)
        if got > size:
            raise Damaged("the server sent a pack with an object that is larger than it says")
        if inflater.eof:
            break
        piece = inflater.unconsumed_tail
        if not piece:
            piece = data[at : at + _PIECE]
            at += len(piece)
            if not piece and not made:
                raise Damaged("the server sent a pack that is cut short")
    if got != size:
        raise Damaged("the server sent a pack with an object that is smaller than it says")
    return begin, at - len(inflater.unused_data)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _too_large(size: int, most: int) -> Unreachable:
    return Unreachable(
        f"the repository holds an object of {size:,} bytes, more than the {most:,} taken; "
        "keep large files out of the policy's repository"
    )
