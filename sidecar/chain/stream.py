"""The framing of segments in files and pipes (proto/LEDGER.md, "Stream"): magic, then ``kind ‖ u32 length ‖ body``."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sidecar.chain.entry import EntryType
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
    BARE = 9  # an entry without payload and salt
    CONTEXT_SEAL = 10
    AUTHORITY = 11
    REGISTRY_BEFORE = 12


_FRAME = struct.Struct(">BI")
_CHUNK = 1 << 16
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
    """Cut a stream into records. ``read(n)`` gives at most n bytes, and none only at the end.

    Memory is bounded by the longest record allowed, whatever the stream says. Every record that is whole is given
    before ``read`` is asked for more, so what it raises hides none.

    Raises:
        Malformed: wrong magic, unknown kind, a length over the limit, a record cut short.
    """
    data = _extended(read, b"", len(MAGIC))
    if data[: len(MAGIC)] != MAGIC:
        raise Malformed("stream does not start with SDCSEG 0 1")
    at, have = len(MAGIC), len(data)
    while True:
        end = at + _FRAME.size
        if end <= have:
            kind, length = _FRAME.unpack_from(data, at)
            if kind not in _KINDS:
                raise Malformed(f"unknown record kind {kind}")
            if length > MAX_RECORD:
                raise Malformed("record length is over the limit")
            start, end = end, end + length
            if end <= have:
                yield _KINDS[kind], data[start:end]
                at = end
                continue
        data, end, at = _extended(read, data[at:], end - at), end - at, 0
        have = len(data)
        if not have:
            return
        if have < end:
            raise Malformed("stream ends within a record")


def _extended(read: Callable[[int], bytes], data: bytes, needed: int) -> bytes:
    """``data`` and what follows it: at least ``needed`` bytes in all, or fewer where the stream ends."""
    pieces, have = [data], len(data)
    while have < needed and (piece := read(max(_CHUNK, needed - have))):
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)


def attachment_of(kind: EntryType, payload: Mapping[str, Any]) -> str:
    """The SHA-256 in hex of the attachment that a checked payload's entry comes with, or ""."""
    if kind is EntryType.POLICY and payload["event"] in ("activated", "resumed"):
        return str(payload["bundle_digest"])
    return ""


def reader(pieces: Iterator[bytes]) -> Callable[[int], bytes]:
    """A stream that comes in pieces, as something to read from: at most so many bytes, none at its end."""
    held = bytearray()

    def read(size: int) -> bytes:
        while not held:
            piece = next(pieces, None)
            if piece is None:
                return b""
            held.extend(piece)
        data = bytes(held[:size])
        del held[:size]
        return data

    return read
