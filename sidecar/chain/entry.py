"""One entry: 184 bytes of header, a 32-byte tag, a payload beside them (proto/LEDGER.md, "Entry").

A header commits to its payload by a salted hash and to its predecessor by the predecessor's leaf, which covers the
predecessor's tag. Everything is computed over the stored bytes; nothing is encoded again to be checked.
"""

from __future__ import annotations

import enum
import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain.limits import MAX_FIELDS, MAX_PAYLOAD, NO_SEQ, UNKNOWN_CLOCK_ERROR, ZERO16
from sidecar.errors import Malformed

MAGIC = b"SDCREC\x00\x01"
HEADER_SIZE = 184
TAG_SIZE = 32
SALT_SIZE = 32
ALG = 1

LAYOUT = struct.Struct(">8sBBHIQQ32s32s32sIIqQIIQ16s")
"""The header's fields in order, for readers that unpack many."""

_CODEC_AT = HEADER_SIZE + TAG_SIZE + SALT_SIZE
_INFLATE_AT_LEAST = 65_536  # so that an exchanged payload is known as such, not as a bomb
_COMPRESS_FROM = 1_760  # LMDB: a value over 2,016 bytes, 249 of them before the payload, costs 4 KiB instead of 2


class OtherLength(Malformed):
    """A stored payload that is sound in itself but not of the length its header commits to."""


class EntryType(enum.IntEnum):
    """Type codes of version 1."""

    GENESIS = 1
    OPEN = 2
    DECISION = 3
    OUTCOME = 4
    APPROVAL = 5
    REJECTED = 6
    POLICY = 7
    TOMBSTONE = 8
    CLOCK = 9
    CLOSE = 10
    REGISTRY = 11


TYPES: Final = {int(t): t for t in EntryType}
"""The types by their codes."""

WITH_FIELDS = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL})
"""The types that may have sealed personal fields."""


@dataclass(frozen=True, slots=True)
class Header:
    """The decoded header. Times are nanoseconds, ``clock_error_ms`` milliseconds; checked when built.

    Raises:
        Malformed: a field out of its range, or a reference that does not point backwards.
    """

    type: EntryType
    epoch: int
    seq: int
    segment: int
    chain_id: bytes
    prev: bytes
    payload_commit: bytes
    payload_len: int
    wall_ns: int
    mono_ns: int
    clock_error_ms: int = UNKNOWN_CLOCK_ERROR
    ref_seq: int = NO_SEQ
    agent_tag: bytes = ZERO16
    field_count: int = 0

    def __post_init__(self) -> None:
        _check_ranges(self.seq, self.payload_len, self.ref_seq)
        _check_fields(self.type, self.field_count)

    def encode(self) -> bytes:
        """The 184 bytes."""
        return LAYOUT.pack(
            MAGIC, self.type, ALG, 0, self.epoch, self.seq, self.segment, self.chain_id, self.prev,
            self.payload_commit, self.payload_len, self.field_count, self.wall_ns, self.mono_ns, self.clock_error_ms, 0,
            self.ref_seq, self.agent_tag,
        )  # fmt: skip

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read 184 bytes.

        Raises:
            Malformed: wrong size or magic, unknown type or alg, a flag or a reserved byte that is not zero.
        """
        if len(data) != HEADER_SIZE:
            raise Malformed("header is not 184 bytes")
        fields = LAYOUT.unpack(data)
        return cls(header_type(fields), *fields[4:11], *fields[12:15], *fields[16:], *fields[11:12])


def header_type(fields: tuple[Any, ...]) -> EntryType:
    """The type of a header cut by :data:`LAYOUT`, once all of its fields are found to be in order.

    Raises:
        Malformed: as `Header.decode`.
    """
    magic, kind, alg, flags, _, seq, _, _, _, _, length, personal, _, _, _, zero, ref, _ = fields
    if magic != MAGIC:
        raise Malformed("header magic is not SDCREC 0 1")
    if kind not in TYPES:
        raise Malformed(f"unknown entry type {kind}")
    if alg != ALG:
        raise Malformed(f"unknown alg {alg}")
    if flags or zero:
        raise Malformed("a flag or reserved byte is not zero")
    _check_ranges(seq, length, ref)
    if personal:
        _check_fields(kind, personal)
    return TYPES[kind]


def _check_ranges(seq: int, payload_len: int, ref_seq: int) -> None:
    if ref_seq != NO_SEQ and ref_seq >= seq:
        raise Malformed("ref_seq does not point to an earlier entry")
    if not 2 <= payload_len <= MAX_PAYLOAD:
        raise Malformed("payload_len out of range")


def _check_fields(kind: int, count: int) -> None:
    if count and (kind not in WITH_FIELDS or not 0 < count <= MAX_FIELDS):
        raise Malformed("field_count is out of range, or not for this type")


def payload_commit(salt: bytes, payload: bytes) -> bytes:
    """The 32-byte commitment to a payload under its 32-byte salt."""
    digest = hashlib.sha256(b"sidecar/v1/payload\0")
    digest.update(salt)
    digest.update(payload)
    return digest.digest()


def leaf(header: bytes, tag: bytes) -> bytes:
    """The entry's leaf: RFC 6962 section 2.1 leaf hash of ``header ‖ tag``."""
    return hashlib.sha256(b"\x00" + header + tag).digest()


TAGGED: Final = 216
"""Bytes of header and tag: a leaf's input, and all of an entry whose payload is not here."""


def tagged(body: bytes) -> tuple[bytes, bytes]:
    """Header and tag of a stored entry, with its payload or bare.

    Raises:
        Malformed: shorter than both.
    """
    if len(body) < TAGGED:
        raise Malformed("entry is cut short")
    return body[:HEADER_SIZE], body[HEADER_SIZE:TAGGED]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as LMDB and streams hold it, cut into its parts and nothing more."""

    header: bytes
    tag: bytes
    salt: bytes
    codec: int
    stored: bytes

    @classmethod
    def parse(cls, body: bytes) -> StoredEntry:
        """Cut a stored entry.

        Raises:
            Malformed: shorter than its fixed part.
        """
        if len(body) <= _CODEC_AT:
            raise Malformed("entry is cut short")
        return cls(
            body[:HEADER_SIZE],
            body[HEADER_SIZE:216],
            body[216:_CODEC_AT],
            body[_CODEC_AT],
            body[_CODEC_AT + 1 :],
        )

    def payload(self, length: int) -> bytes:
        """The payload of ``length`` bytes; never inflated beyond the greater of that and 64 KiB.

        Raises:
            OtherLength: sound, but of another length: not the payload that was committed to.
            Malformed: unknown codec, bad or trailing compressed data, or more of it than may be inflated.
        """
        return unpacked(self.codec, self.stored, length)


def unpacked(codec: int, stored: bytes, length: int) -> bytes:
    """As :meth:`StoredEntry.payload`, of the stored form's last two parts."""
    if length > MAX_PAYLOAD:
        raise Malformed("payload is over the limit")
    if codec == 0:
        data = stored
    elif codec == 1:
        data = _inflate(stored, length)
    else:
        raise Malformed(f"unknown payload codec {codec}")
    if len(data) != length:
        raise OtherLength("its payload has not the length that the header commits to")
    return data


def _inflate(stored: bytes, length: int) -> bytes:
    stream, limit = zlib.decompressobj(), max(length, _INFLATE_AT_LEAST)
    try:
        data = stream.decompress(stored, limit + 1)
    except zlib.error as error:
        raise Malformed("compressed payload is damaged") from error
    if len(data) > limit or not stream.eof or stream.unused_data or stream.unconsumed_tail:
        raise Malformed("compressed payload is cut short, goes on too long, or has data after it")
    if len(stored) >= len(data):
        raise Malformed("compressed payload is not shorter than the payload")
    return data


def store(header: bytes, tag: bytes, salt: bytes, payload: bytes) -> bytes:
    """The stored form; long payloads are compressed where that makes them shorter."""
    codec, stored = b"\x00", payload
    if len(payload) > _COMPRESS_FROM:
        packed = _deflate(payload)
        if len(packed) < len(payload):
            codec, stored = b"\x01", packed
    return b"".join((header, tag, salt, codec, stored))


def _deflate(payload: bytes) -> bytes:
    """For most payloads a window of 4 KB is as good: its tables are 16 KB, not 256, and it takes half the time."""
    window, memory = (12, 5) if len(payload) <= 4_096 else (15, 8)
    stream = zlib.compressobj(1, zlib.DEFLATED, window, memory)
    return stream.compress(payload) + stream.flush()
