"""The parcel: a run of a chain's records on its way to the collector (proto/SHIPPING.md, "Parcel"), and what the
identity key signs of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from hashlib import sha256

from sidecar.chain.stream import MAGIC, Kind, record, records
from sidecar.errors import Malformed, Oversize

MAX_PACKED = 10_485_760
MAX_RECORDS_BYTES = 16_777_216
MAX_RECORDS = 20_000
MAX_GENESIS = 65_536
MAX_ASKED = 64

Record = tuple[Kind, bytes]


def pack(run: Iterable[Record]) -> bytes:
    """The records, framed and deflated; level 1, since entries are compressed already where that pays."""
    return zlib.compress(MAGIC + b"".join(record(kind, body) for kind, body in run), 1)


def unpack(packed: bytes) -> list[Record]:
    """The records of a parcel; never inflates more than :data:`MAX_RECORDS_BYTES`.

    Raises:
        Oversize: longer than allowed, packed or not, or too many records.
        Malformed: not deflated, or not records.
    """
    if len(packed) > MAX_PACKED:
        raise Oversize(f"a parcel has at most {MAX_PACKED} bytes")
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, MAX_RECORDS_BYTES + 1)
    except zlib.error:
        raise Malformed("the parcel is not deflated data") from None
    if len(data) > MAX_RECORDS_BYTES:
        raise Oversize(f"a parcel holds at most {MAX_RECORDS_BYTES} bytes of records")
    if not stream.eof or stream.unused_data:
        raise Malformed("the parcel is cut short, or has data after it")
    return _bounded(data)


def _bounded(data: bytes) -> list[Record]:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    found: list[Record] = []
    for each in records(read):
        if len(found) == MAX_RECORDS:
            raise Oversize(f"a parcel holds at most {MAX_RECORDS} records")
        found.append(each)
    return found


def parcel_message(chain_id: bytes, packed: bytes) -> bytes:
    """What the identity key signs of a parcel."""
    return digest_message(chain_id, sha256(packed).digest())


def digest_message(chain_id: bytes, digest: bytes) -> bytes:
    """As :func:`parcel_message`, of a parcel's SHA-256."""
    return b"sidecar/v1/parcel\0" + chain_id + digest


def enrol_message(genesis: bytes, token: bytes) -> bytes:
    """What the identity key signs to have its chain enrolled."""
    return b"sidecar/v1/enrol\0" + sha256(genesis).digest() + sha256(token).digest()
