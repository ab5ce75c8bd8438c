"""The batch: what was decided to follow a checkpoint; the log's only lock (proto/LOG.md, "Batches").

Magic ``SDCBAT`` 00 01, ``u64`` number, ``u64`` size before, root before (32 bytes), then the signed notes, each after
its ``u16`` length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sidecar.chain import tile
from sidecar.chain.logged import entry_of
from sidecar.errors import Malformed

MAGIC = b"SDCBAT\x00\x01"
MAX_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 4_096
_HEAD = struct.Struct(">8sQQ32s")


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
        if _HEAD.size + sum(len(each) + 2 for each in self.notes) > MAX_BYTES:
            raise Malformed(f"batch: longer than {MAX_BYTES} bytes")

    def entries(self) -> list[bytes]:
        """The entries: the texts of its notes.

        Raises:
            Malformed: a note that is none of the log's.
        """
        return [entry_of(each) for each in self.notes]

    def encode(self) -> bytes:
        """The object's bytes."""
        return _HEAD.pack(MAGIC, self.number, self.size, self.root) + tile.join_entries(self.notes)

    @classmethod
    def parse(cls, data: bytes) -> Batch:
        """Read an object.

        Raises:
            Malformed: not a batch.
        """
        if len(data) > MAX_BYTES or len(data) < _HEAD.size:
            raise Malformed("batch: too short or too long")
        magic, number, size, root = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise Malformed("batch: not one of this version")
        return cls(number, size, root, tuple(tile.split_entries(data[_HEAD.size :])))
