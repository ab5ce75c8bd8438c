"""What the sidecar and the process beside it say to each other: frames, each of some pieces of bytes.

    u32 bytes of what follows | f64 seconds | u32 pieces | u32 length of each piece | the pieces

Little-endian. The length 2^32-1 stands for no piece (`None`). ``seconds`` is the processor time that the pieces took;
0 in a question.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, Protocol

Pieces = Sequence[bytes | None]

_SIZE: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<dI")
_NONE: Final = 0xFFFF_FFFF


class Reading(Protocol):
    """Gives so many bytes; fewer only at the end."""

    def read(self, size: int, /) -> bytes: ...


class NoFrame(ValueError):
    """Bytes that are no frame, or a longer one than may come."""


def pack(pieces: Pieces, seconds: float = 0.0) -> bytes:
    """The whole frame."""
    lengths = [_NONE if piece is None else len(piece) for piece in pieces]
    parts = [_HEAD.pack(seconds, len(pieces)), struct.pack(f"<{len(lengths)}I", *lengths), *filter(None, pieces)]
    return b"".join((_SIZE.pack(sum(map(len, parts))), *parts))


def read(stream: Reading) -> list[bytes | None] | None:
    """The next frame's pieces, waiting for them; None at the end. Raises NoFrame, OSError."""
    size = stream.read(_SIZE.size)
    if len(size) < _SIZE.size:
        return None
    (length,) = _SIZE.unpack(size)
    body = stream.read(length)
    return None if len(body) < length else _unpack(body)[1]


def take(buffer: bytearray, limit: int) -> tuple[float, list[bytes | None]] | None:
    """Seconds and pieces of the frame that ``buffer`` begins with, taken out of it; None while it is not whole.

    ``limit``: the most bytes that one may have. Raises NoFrame.
    """
    if len(buffer) < _SIZE.size:
        return None
    (length,) = _SIZE.unpack_from(buffer)
    if length > limit:
        raise NoFrame("a frame is too long")
    end = _SIZE.size + length
    if len(buffer) < end:
        return None
    body = bytes(buffer[_SIZE.size : end])
    del buffer[:end]
    return _unpack(body)


def _unpack(body: bytes) -> tuple[float, list[bytes | None]]:
    try:
        seconds, count = _HEAD.unpack_from(body)
        lengths = struct.unpack_from(f"<{count}I", body, _HEAD.size)
    except (struct.error, OverflowError, MemoryError):
        raise NoFrame("a frame is cut short") from None
    first = _HEAD.size + 4 * count
    ends = list(accumulate((0 if length == _NONE else length for length in lengths), initial=first))
    if ends[-1] != len(body):
        raise NoFrame("a frame's pieces do not fill it")
    found = [body[start:end] for start, end in pairwise(ends)]
    return seconds, [None if length == _NONE else piece for length, piece in zip(lengths, found, strict=True)]
