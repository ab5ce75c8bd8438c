"""What the collector proves: entries of the log and a chain's line in the roll-call, all under one checkpoint."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar.chain import note
from sidecar.chain.logged import Logged
from sidecar.chain.merkle import leaf_hash
from sidecar.chain.note import Signature, SignedNote
from sidecar.chain.parcel import MAX_ASKED
from sidecar.chain.timestamp import Timestamp
from sidecar.collector.index import Index
from sidecar.collector.sequencer import Sequencer, size_of
from sidecar.errors import CollectorRefused, Malformed

_KEEP_EVERY = 60.0  # seconds between two timestamps of one authority that are kept as objects
_GATHERED = 16  # checkpoints whose cosignatures are gathered


@dataclass(frozen=True, slots=True)
class Proved:
    """As `ReceiptsResponse`."""

    proofs: list[bytes]
    roll_call: bytes = b""
    consistency: bytes = b""
    timestamps: tuple[bytes, ...] = ()


class Proofs:
    """``witnesses``: how many must have cosigned a checkpoint before receipts rest on it; 0: none."""

    def __init__(
        self, sequencer: Sequencer, index: Index, witnesses: int = 0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._sequencer, self._index, self._witnesses, self._monotonic = sequencer, index, witnesses, monotonic
        self._kept: dict[str, float] = {}  # when a timestamp of each authority was last kept
        self._lock = threading.Lock()
        self._cosigned = b""
        self._gathered: dict[int, bytes] = {}
        self._stamped: tuple[bytes, tuple[bytes, ...]] = (b"", ())  # a checkpoint, and what authorities said of it

    def cosigned(self, signed: bytes, line: Signature) -> None:
        """A witness cosigned a checkpoint. Raises LogRefused, StorageError."""
        with self._lock:
            size = size_of(signed)
            with_line = self._sequencer.fleet.cosigned(self._gathered.get(size) or _bare(signed), line)
            self._gathered[size] = with_line
            for old in sorted(self._gathered)[:-_GATHERED]:
                del self._gathered[old]
            lines = len(note.parse(with_line).signatures) - 1
            if lines >= self._witnesses and size_of(with_line) >= size_of(self._cosigned):
                self._cosigned = with_line

    def stamped(self, authority: str, signed: bytes, stamp: Timestamp) -> None:
        """An authority put a time on a checkpoint; one a minute stays with the log's objects. Raises StorageError."""
        with self._lock:
            now, last = self._monotonic(), self._kept.get(authority)
            if last is None or now - last >= _KEEP_EVERY:
                self._sequencer.fleet.stamped(size_of(signed), stamp.encode())
                self._kept[authority] = now
            held, before = self._stamped
            if not held or note.parse(held).text != stamp.checkpoint:
                held, before = signed, ()
            self._stamped = held, (*before, stamp.encode())

    def shown(self) -> bytes:
        """The checkpoint that receipts rest on now; empty: there is none."""
        return self._cosigned if self._witnesses else self._sequencer.fleet.signed

    def of(self, chain_id: bytes, entries: list[bytes], since: int) -> Proved:
        """Proofs of entries (their texts) and of the chain's line. Raises CollectorRefused, StorageError."""
        if len(entries) > MAX_ASKED:
            raise CollectorRefused("OVERSIZE", f"at most {MAX_ASKED} entries are asked for at once")
        logged = self._logged(chain_id, entries)
        places = self._index.positions(list(logged))
        (under, stamps), fleet = self._under(chain_id, list(places.values()), since), self._sequencer.fleet
        size = size_of(under)
        if size == 0 or since > size:
            return Proved([b""] * len(entries))
        proofs = []
        for leaf, each in logged.items():
            position = places.get(leaf, size)
            proofs.append(fleet.receipt(position, each, under) if position < size else b"")
        called = self._sequencer.roll_call(chain_id, size)
        roll = fleet.receipt(called[0], called[1], under) if called else b""
        joined = fleet.consistency(since, under) if 0 < since < size else b""
        return Proved(proofs, roll, joined, stamps)

    def _under(self, chain_id: bytes, places: list[int], since: int) -> tuple[bytes, tuple[bytes, ...]]:
        """The checkpoint to answer under, and its timestamps: the last stamped, where that has all that is there to be
        told, else the newest shown."""
        shown, (stamped, stamps) = self.shown(), self._stamped
        called = self._sequencer.roll_call(chain_id, size_of(shown))
        newest = max([*places, -1 if called is None else called[0]], default=-1)
        if since <= size_of(stamped) and newest < size_of(stamped):
            return stamped, stamps
        return shown, ()

    def _logged(self, chain_id: bytes, entries: list[bytes]) -> Mapping[bytes, Logged]:
        try:
            found = {leaf_hash(text): Logged.parse(text) for text in entries if len(text) <= note.MAX_SIZE}
            if len(found) != len(entries) or any(each.chain_id != chain_id for each in found.values()):
                raise Malformed("an entry twice, of another chain, or too long")
        except Malformed as error:
            raise CollectorRefused("MALFORMED", str(error)) from None
        return found


def _bare(signed: bytes) -> bytes:
    """A checkpoint of the log with its own line alone: what is stored with it may be of a witness of before."""
    read = note.parse(signed)
    return note.encode(SignedNote(read.text, read.signatures[:1]))
