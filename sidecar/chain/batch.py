"""The batch: what was decided to follow a checkpoint; the log's only lock (proto/LOG.md, "Batches").

Magic ``SDCBAT`` 00 01, ``u64`` number, ``u64`` size before, root before (32 bytes), then the signed notes, each after
its ``u16`` length, and last the log's signature over all of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import note, tile
from sidecar.chain.logged import entry_of
from sidecar.errors import Malformed

MAGIC = b"SDCBAT\x00\x01"
MAX_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 4_096
_HEAD = struct.Struct(">8sQQ32s")
_LABEL = b"sidecar/v1/batch\x00"
_SIGNATURE = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch ``number`` follows the tree of ``size`` entries with ``root``.

    Raises:
        Malformed: empty or too large, or a note that is none of the log's.
    """

    number: int
    size: int
    root: bytes
    notes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.notes) <= MAX_ENTRIES or len(self.root) != 32 or max(self.number, self.size) >= 2**63:
            raise Malformed(f"batch: 1 to {MAX_ENTRIES} notes after a tree are required")
        if _HEAD.size + _SIGNATURE + sum(len(each) + 2 for each in self.notes) > MAX_BYTES:
            raise Malformed(f"batch: longer than {MAX_BYTES} bytes")

    def entries(self) -> list[bytes]:
        """The entries: the texts of its notes.

        Raises:
            Malformed: a note that is none of the log's.
        """
        return [entry_of(each) for each in self.notes]

    def encode(self, private: Ed25519PrivateKey) -> bytes:
        """The object's bytes, signed by the log's key; the same arguments give the same bytes."""
        body = _HEAD.pack(MAGIC, self.number, self.size, self.root) + tile.join_entries(self.notes)
        return body + private.sign(_LABEL + body)

    @classmethod
    def parse(cls, data: bytes, public_key: bytes) -> Batch:
        """Read an object that the log of this key wrote.

        Raises:
            Malformed: not a batch.
            SignatureInvalid: not signed by this key.
        """
        if not _HEAD.size + _SIGNATURE <= len(data) <= MAX_BYTES:
            raise Malformed("batch: too short or too long")
        data, signature = data[:-_SIGNATURE], data[-_SIGNATURE:]
        note.verify_signature(public_key, signature, _LABEL + data)
        magic, number, size, root = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise Malformed("batch: not one of this version")
        return cls(number, size, root, tuple(tile.split_entries(data[_HEAD.size :])))
