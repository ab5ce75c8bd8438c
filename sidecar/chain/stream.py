"""The framing of segments in files and pipes (proto/LEDGER.md, "Stream"): magic, then ``kind ‖ u32 length ‖ body``."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from sidecar.chain.limits import MAX_RECORD
from sidecar.errors import Malformed

MAGIC = b"SDCSEG\x00\x01"


class Kind(enum.IntEnum):
    """Record kinds."""

    GENESIS = 1
    EPOCH = 2
    OPEN = 3
    SEAL_BEFORE = 4
    ENTRY = 5
    HEAD = 6
    SEAL = 7
    ATTACHMENT = 8


_KINDS = {int(k): k for k in Kind}


def record(kind: Kind, body: bytes) -> bytes:
    """One framed record.

    Raises:
        Malformed: a body over the limit.
    """
    if len(body) > MAX_RECORD:
        raise Malformed("record is over the limit")
    return bytes((kind,)) + len(body).to_bytes(4, "big") + body


def records(read: Callable[[int], bytes]) -> Iterator[tuple[Kind, bytes]]:
    """Cut a stream into records. ``read(n)`` gives exactly n bytes, or fewer only at the end.

    Memory is bounded by the longest record allowed, whatever the stream says.

    Raises:
        Malformed: wrong magic, unknown kind, a length over the limit, a record cut short.
    """
    if read(len(MAGIC)) != MAGIC:
        raise Malformed("stream does not start with SDCSEG 0 1")
    while frame := read(5):
        if len(frame) < 5:
            raise Malformed("stream ends within a record")
        length = int.from_bytes(frame[1:], "big")
        if frame[0] not in _KINDS:
            raise Malformed(f"unknown record kind {frame[0]}")
        if length > MAX_RECORD:
            raise Malformed("record length is over the limit")
        body = read(length)
        if len(body) != length:
            raise Malformed("stream ends within a record")
        yield _KINDS[frame[0]], body
