"""Receipts out of the log's objects alone: no index is asked, so none can hide an entry (proto/LOG.md, "Batches").

Everything is proved under the newest checkpoint that enough witnesses cosigned; a seal under the newest of these that
bears timestamps, where it is in that, and a consistency proof joins the two. Batches are read from the newest
backwards, no farther than what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.chain import checkpoint, merkle, note, tile, timestamp
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.logged import Logged, parse_entry
from sidecar.chain.note import VerifierKey
from sidecar.chain.rollcall import Roll, RollCall
from sidecar.chain.tlog_proof import TlogProof
from sidecar.collector import objects
from sidecar.collector.log import with_lines
from sidecar.collector.roll import read_roll
from sidecar.collector.storage import Storage
from sidecar.errors import LogRefused, Malformed, SignatureInvalid, StorageError

_FARTHEST = 1_000  # checkpoints one goes back for cosignatures


@dataclass(frozen=True, slots=True)
class Proved:
    """Receipts of a seal and of a chain's line in a roll-call, and what joins their checkpoints; empty: none.
    ``stamps``: timestamps on the checkpoint of the seal. ``size``, ``stamped``: the sizes of the two checkpoints."""

    size: int
    seal: bytes
    roll_call: bytes
    joined: bytes = b""
    stamped: int = 0
    stamps: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Under:
    """A checkpoint, its number, and the timestamps on it."""

    number: int
    signed: bytes
    at: Checkpoint
    stamps: tuple[bytes, ...]


class LookedUp:
    """The log of ``key`` on ``storage``. ``witnesses``: how many must have cosigned what receipts rest on.

    Raises:
        LogRefused: a checkpoint is not this log's.
        StorageError: the store cannot be read.
    """

    def __init__(self, storage: Storage, key: VerifierKey, witnesses: int = 0) -> None:
        self._storage, self._key = storage, key
        self._tiles = objects.Tiles(storage)
        self._newest, self._stamped = self._chosen(witnesses)
        self._roll: tuple[int, Roll] | None = None  # the newest, once it was come by

    def _chosen(self, witnesses: int) -> tuple[_Under, _Under]:
        """The newest checkpoint with enough cosignatures, and the newest of these with timestamps."""
        newest: _Under | None = None
        for each in self._cosigned(witnesses):
            newest = newest or each
            if each.stamps:
                return newest, each
        none = _Under(-1, b"", Checkpoint(self._key.name, 0, merkle.EMPTY_ROOT), ())
        return newest or none, none

    def _cosigned(self, witnesses: int) -> Iterator[_Under]:
        newest = objects.newest(lambda n: objects.read_checkpoint(self._storage, n) is not None, -1)
        for number in range(newest, max(-1, newest - _FARTHEST), -1):
            signed = objects.read_checkpoint(self._storage, number)
            if signed is None:
                raise StorageError(f"checkpoint {number} is gone")
            try:
                at, _ = checkpoint.verify(signed, self._key)
            except (Malformed, SignatureInvalid) as error:
                raise LogRefused(f"the stored checkpoint {number}: {error}") from None
            for name in sorted(self._storage.names(objects.cosigned_name(at.size))):
                signed = with_lines(signed, self._storage.read(name, note.MAX_SIZE) or b"")
            if len(note.parse(signed).signatures) > witnesses:
                names = sorted(self._storage.names(objects.stamped_name(at.size)))
                stamps = (self._storage.read(name, timestamp.MAX_BYTES) for name in names)
                yield _Under(number, signed, at, tuple(each for each in stamps if each))

    def prove(self, chain_id: bytes, texts: Sequence[str]) -> Proved:
        """A receipt of the first of these seals that the log holds, and of the chain's line in the newest roll-call.

        Raises:
            StorageError, LogRefused: an object is missing or damaged.
        """
        wanted = {merkle.leaf_hash(text.encode()): rank for rank, text in enumerate(texts)}
        found: dict[int, int] = {}  # rank to position
        for position, entry in self._backwards():
            if self._roll is None and entry.startswith(b"sidecar/v1/roll-call\n"):
                self._roll = position, self._called(entry)
            rank = wanted.get(merkle.leaf_hash(entry))
            if rank is not None:
                found[rank] = position
            if found and self._roll is not None:
                break
        best, roll_call = min(found, default=None), self._answer(chain_id)
        if best is None:
            return Proved(self._newest.at.size, b"", roll_call)
        under = self._stamped if found[best] < self._stamped.at.size else self._newest
        seal = self._receipt(found[best], _logged(texts[best]), under)
        return Proved(self._newest.at.size, seal, roll_call, self._joined(under), under.at.size, under.stamps)

    def _joined(self, old: _Under) -> bytes:
        new, read = self._newest, self._tiles.at(self._newest.at.size)
        if old.at.size == new.at.size:
            return b""
        ranges = merkle.consistency_ranges(old.at.size, new.at.size)
        return Consistency(old.at.size, tuple(tile.range_root(each, read) for each in ranges), new.signed).encode()

    def _backwards(self) -> Iterator[tuple[int, bytes]]:
        for number in range(self._newest.number, -1, -1):
            held = objects.read_batch(self._storage, number, self._key)
            if held is None:
                raise StorageError(f"batch {number} is gone")
            entries = held.entries()
            for offset in range(len(entries) - 1, -1, -1):
                yield held.size + offset, entries[offset]

    def _called(self, entry: bytes) -> Roll:
        call = parse_entry(entry.decode())
        assert isinstance(call, RollCall)
        return read_roll(self._storage, call)

    def _answer(self, chain_id: bytes) -> bytes:
        if self._roll is None:
            return b""
        position, roll = self._roll
        for at, standing in enumerate(roll.standings):
            if standing.chain_id == chain_id:
                logged = Logged(roll.call, roll.call.text(), roll.answer(at))
                return self._receipt(position, logged, self._newest)
        return b""

    def _receipt(self, position: int, logged: Logged, under: _Under) -> bytes:
        read = self._tiles.at(under.at.size)
        path = [tile.range_root(each, read) for each in merkle.inclusion_ranges(position, under.at.size)]
        return TlogProof(logged.extra(), position, tuple(path), under.signed).encode()


def _logged(text: str) -> Logged:
    return Logged(parse_entry(text), text)
