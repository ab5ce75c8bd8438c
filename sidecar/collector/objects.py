"""The log's objects by name (proto/LOG.md, "Batches"), and reading hashes out of stored tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sidecar.chain import batch, note, tile
from sidecar.chain.batch import Batch
from sidecar.chain.merkle import HASH_BYTES
from sidecar.chain.note import VerifierKey
from sidecar.chain.tile import Tile
from sidecar.collector.storage import Storage
from sidecar.errors import Malformed, SignatureInvalid, StorageError

PREFIX = "log/"
_TILE_BYTES = tile.WIDTH * 32
BUNDLE_BYTES = tile.WIDTH * (tile.MAX_ENTRY + 2)
_CACHED = 1_024  # tiles, 8 KiB each at most


def batch_name(number: int) -> str:
    """The object of a batch."""
    return f"{PREFIX}batch/{tile.number_path(number)}"


def checkpoint_name(number: int) -> str:
    """The object of the checkpoint after a batch."""
    return f"{PREFIX}checkpoint/{tile.number_path(number)}"


def cosigned_name(size: int, key_hash: str = "") -> str:
    """The object of a witness's line for the checkpoint of ``size``; without a key hash, what all start with."""
    return f"{PREFIX}cosigned/{tile.number_path(size)}/{key_hash}"


def stamped_name(size: int, digest: str = "") -> str:
    """The object of a timestamp on the checkpoint of ``size``; without its SHA-256 in hex, what all start with."""
    return f"{PREFIX}stamped/{tile.number_path(size)}/{digest}"


def roll_call_name(root: bytes) -> str:
    """The object of a roll-call's lines."""
    return f"{PREFIX}roll-call/{root.hex()}"


def read_checkpoint(storage: Storage, number: int) -> bytes | None:
    """A checkpoint as it is stored; None if there is none. Raises StorageError."""
    return storage.read(checkpoint_name(number), note.MAX_SIZE)


def read_batch(storage: Storage, number: int, key: VerifierKey) -> Batch | None:
    """A batch; None if there is none. Raises StorageError, also where it is damaged or this log did not write it."""
    data = storage.read(batch_name(number), batch.MAX_BYTES)
    if data is None:
        return None
    try:
        read = Batch.parse(data, key.public_key)
        read.entries()
    except (Malformed, SignatureInvalid) as error:
        raise StorageError(f"{batch_name(number)} is damaged: {error}") from None
    return read


def newest(exists: Callable[[int], bool], known: int) -> int:
    """The last number of a run without gaps that starts at 0, or −1; ``known`` is in it, or −1."""
    low, step = known, 1
    while exists(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return low


class Tiles:
    """Hashes of a log's stored tiles, kept in memory up to a bound: a tile of one width never changes."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: dict[Tile, list[bytes]] = {}
        self._lock = threading.Lock()

    def at(self, size: int, *, fresh: bool = False) -> tile.ReadTile:
        """How to read the tiles of a tree of ``size`` entries, the size of a checkpoint.

        ``fresh``: partial tiles, which the next ones are made from, come out of storage and not out of memory. What is
        returned raises `StorageError` where a tile is missing or damaged.
        """

        def read(level: int, number: int) -> list[bytes]:
            which = Tile(level, number, tile.width_at(level, number, size))
            kept = self._kept.get(which)
            if kept is not None and not (fresh and which.width < tile.WIDTH):
                return kept
            hashes = self._stored(which)
            self._keep(which, hashes)
            return hashes

        return read

    def _keep(self, which: Tile, hashes: list[bytes]) -> None:
        with self._lock:
            if len(self._kept) >= _CACHED:
                self._kept.pop(next(iter(self._kept)))
            self._kept[which] = hashes

    def _stored(self, which: Tile) -> list[bytes]:
        data = self._storage.read(PREFIX + which.path(), _TILE_BYTES)
        if data is None and which.width < tile.WIDTH:  # since then it was filled, and its parts were removed
            full = self._storage.read(PREFIX + Tile(which.level, which.number).path(), _TILE_BYTES)
            data = None if full is None else full[: which.width * HASH_BYTES]
        if data is None:
            raise StorageError(f"{which.path()} is missing: the log cannot be read")
        try:
            return tile.split_hashes(data, which.width)
        except Malformed as error:
            raise StorageError(f"{which.path()} is damaged: {error}") from None
