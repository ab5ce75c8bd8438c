"""The fleet log: takes notes, writes tiles, signs checkpoints (proto/LOG.md, "Batches").

    log = FleetLog(storage, index, "log.example.org/fleet", key)
    (taken,) = log.append([signed_seal])
    receipt = log.receipt(taken.position, Logged.parse(taken.entry))

A batch is created, tiles follow from it, then the checkpoint is signed. Whatever fails in between is done again the
same way by whoever comes next: nothing but the creation of a batch decides anything. Signing waits until the new tree
was shown, out of storage, to extend the last one signed and every checkpoint the log was told of.

One thread at a time may call `append`; reading is free to all. Two logs on one storage and key take turns.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import batch as batches
from sidecar.chain import checkpoint, merkle, note, tile
from sidecar.chain.batch import Batch
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.logged import Logged, entry_of
from sidecar.chain.merkle import Tree
from sidecar.chain.note import Signature, SignedNote, VerifierKey
from sidecar.chain.tile import Edge, Tile
from sidecar.chain.tlog_proof import TlogProof
from sidecar.collector import objects
from sidecar.collector.index import Index, Tip
from sidecar.collector.objects import PREFIX, Tiles
from sidecar.collector.storage import Storage
from sidecar.collector.storage.port import create_same
from sidecar.errors import LogRefused, Malformed, ProofRejected, SignatureInvalid, StorageError

_log = logging.getLogger("sidecar.collector")

_AT_ONCE = 4  # parts removed each time that the log grows, which makes two or three


@dataclass(frozen=True, slots=True)
class Taken:
    """Where a note is in the log, and the entry it is there as."""

    position: int
    entry: bytes


class FleetLog:
    """The log of ``origin``, signed by ``key``, on ``storage``; ``index`` is brought up to it.

    ``known``: checkpoints of this log that others hold, as witnesses or an operator's backup; each must be part of it.
    ``keep_until`` gives the POSIX second before which nobody can remove what is stored now, where that can be enforced;
    partial tiles, which can be made again, are left out.

    Raises:
        LogRefused: what is stored is smaller than, or other than, what was signed.
        StorageError: storage or index cannot be used, or an object is damaged.
    """

    def __init__(
        self,
        storage: Storage,
        index: Index,
        origin: str,
        key: Ed25519PrivateKey,
        *,
        known: Sequence[bytes] = (),
        keep_until: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._storage, self._index, self._key, self._keep_until = storage, index, key, keep_until
        self._spare: deque[str] = deque()  # parts of full tiles, to be removed
        self.key = VerifierKey(origin, key.public_key().public_bytes_raw())
        self._tiles = Tiles(storage)
        self._lock = threading.Lock()
        self._known = [self._own(data, "a checkpoint the log was told of") for data in known]
        hinted = index.tip()
        self._number = self._newest(hinted)
        self._load()
        self._agree(-1, self.tip.size, self.tip.root)
        self._adopt_pending()
        beyond = [each.size for each in self._known if each.size > self.tip.size]
        if beyond:
            raise LogRefused(
                f"the stored log has {self.tip.size} entries and signed {max(beyond)} before: this is an old copy; "
                "bring back the newer objects"
            )
        self._catch_up()

    # --- opening

    def _own(self, data: bytes, what: str) -> Checkpoint:
        try:
            return checkpoint.verify(data, self.key)[0]
        except (Malformed, SignatureInvalid) as error:
            raise LogRefused(f"{what} is not one of this log and key: {error}") from None

    def _newest(self, hinted: Tip | None) -> int:
        if hinted is not None:
            stored = objects.read_checkpoint(self._storage, hinted.number)
            if stored is None:
                raise LogRefused(
                    f"the index knows checkpoint {hinted.number}, and storage does not hold it: it is an old copy, or "
                    "the index is another log's; bring back the newer objects"
                )
            if stored != hinted.checkpoint:
                raise LogRefused(f"index and storage hold two different checkpoints {hinted.number}: one log forked")
        return objects.newest(
            lambda n: objects.read_checkpoint(self._storage, n) is not None, -1 if hinted is None else hinted.number
        )

    def _load(self) -> None:
        """The tree of the newest checkpoint, and whether the tiles say the same."""
        if self._number < 0:
            self.tip, self.signed = Checkpoint(self.key.name, 0, merkle.EMPTY_ROOT), b""
        else:
            stored = objects.read_checkpoint(self._storage, self._number)
            if stored is None:
                raise StorageError(f"checkpoint {self._number} is gone")
            self.tip, self.signed = self._own(stored, f"the stored checkpoint {self._number}"), stored
        read = self._tiles.at(self.tip.size)
        if Tree(self.tip.size, tile.peaks(self.tip.size, read)).root() != self.tip.root:
            raise LogRefused(
                f"the stored tiles do not lead to the root of checkpoint {self._number}: damage, or a fork"
            )
        self._tail = self._stored_tail()
        for name in sorted(self._storage.names(objects.cosigned_name(self.tip.size))) if self.signed else ():
            held = self._storage.read(name, note.MAX_SIZE)
            self.signed = with_lines(self.signed, held or b"")

    def _stored_tail(self) -> list[bytes]:
        """The entries of the bundle that is not full."""
        number, width = divmod(self.tip.size, tile.WIDTH)
        if not width:
            return []
        which = Tile(None, number, width)
        data = self._storage.read(PREFIX + which.path(), objects.BUNDLE_BYTES)
        if data is None:  # an older checkpoint with newer tiles, as a backup has them: the part was filled, and removed
            data = self._storage.read(PREFIX + Tile(None, number).path(), objects.BUNDLE_BYTES)
        entries = []
        with contextlib.suppress(Malformed):
            entries = tile.split_entries(data or b"")[:width]
        if [merkle.leaf_hash(each) for each in entries] != self._tiles.at(self.tip.size)(0, number):
            raise StorageError(f"{which.path()} is missing or damaged")
        return entries

    def _agree(self, above: int, size: int, root: bytes) -> None:
        """Whether the tree of ``size`` entries extends each checkpoint told of that is larger than ``above``."""
        read = self._tiles.at(size)
        for each in self._known:
            if above < each.size <= size:
                found = root if each.size == size else Tree(each.size, tile.peaks(each.size, read)).root()
                if found != each.root:
                    raise LogRefused(f"the log signed another tree of {each.size} entries before: it forked")

    def _adopt_pending(self) -> None:
        """Finish batches that were created and not signed."""
        while (pending := objects.read_batch(self._storage, self._number + 1, self.key)) is not None:
            self._finish(pending)

    def _catch_up(self) -> None:
        """Bring the index up to the newest checkpoint."""
        tip = self._index.tip()
        for number in range(0 if tip is None else tip.number + 1, self._number + 1):
            held = objects.read_batch(self._storage, number, self.key)
            stored = objects.read_checkpoint(self._storage, number)
            if held is None or stored is None:
                raise StorageError(f"batch or checkpoint {number} is gone")
            self._register(held, stored)

    def _register(self, held: Batch, stored: bytes) -> None:
        leaves = [merkle.leaf_hash(each) for each in held.entries()]
        before = held.number - 1 if held.number else None
        self._index.advance(before, Tip(held.number, held.size + len(leaves), stored), leaves, held.size)

    # --- growing

    def append(self, notes: Sequence[bytes]) -> list[Taken]:
        """Log some notes: signed epoch notes and seals, whose signatures were checked, and texts of roll-calls.

        Returns once all are under a signed, durable checkpoint. A note whose text is in the log already is found there.

        Raises:
            Malformed: a note that the log does not take; none of them is taken.
            StorageError: some may be in the log or may get there; appending them again settles that.
            LogRefused: signing would contradict what was signed before.
        """
        entries = [entry_of(each) for each in notes]
        leaves = [merkle.leaf_hash(each) for each in entries]
        with self._lock:
            self._catch_up()
            self._adopt_pending()
            while missing := self._missing(notes, leaves, places := self._index.positions(leaves)):
                self._append(missing)
            self._confirm(places)
        return [Taken(places[leaf], entry) for leaf, entry in zip(leaves, entries, strict=True)]

    def _missing(self, notes: Sequence[bytes], leaves: Sequence[bytes], places: Container[bytes]) -> list[bytes]:
        """One batch of the notes that are not in the log yet, no text twice."""
        found: dict[bytes, bytes] = {}
        room = batches.MAX_BYTES // 2
        for signed, leaf in zip(notes, leaves, strict=True):
            if leaf in found or leaf in places:
                continue
            room -= len(signed) + 2
            if room < 0 or len(found) == batches.MAX_ENTRIES:
                break
            found[leaf] = signed
        return list(found.values())

    def _confirm(self, places: Mapping[bytes, int]) -> None:
        """Whether the tiles have these leaves where the index says so: a poisoned index must not pass for a log."""
        read = self._tiles.at(self.tip.size)
        tiles = {number: read(0, number) for number in {p // tile.WIDTH for p in places.values() if p < self.tip.size}}
        for leaf, place in places.items():
            number, offset = divmod(place, tile.WIDTH)
            if tiles.get(number, [])[offset : offset + 1] != [leaf]:
                raise StorageError(
                    "the index names a place in the log that holds another entry: rebuild it (`reindex`)"
                )

    def _append(self, notes: list[bytes]) -> None:
        """Batch these, or finish the batch that is in their place."""
        ours = Batch(self._number + 1, self.tip.size, self.tip.root, tuple(notes))
        name, data = objects.batch_name(ours.number), ours.encode(self._key)
        if self._storage.create(name, data, keep_until=self._keep_until()):
            self._finish(ours)
            return
        theirs = objects.read_batch(self._storage, ours.number, self.key)
        if theirs is None:
            raise StorageError(f"batch {ours.number} cannot be created and is not there")
        self._finish(theirs)

    def _finish(self, held: Batch) -> None:
        """Tiles and bundles of a batch, then its checkpoint, then the index."""
        if (held.number, held.size, held.root) != (self._number + 1, self.tip.size, self.tip.root):
            raise LogRefused(f"batch {held.number} does not follow checkpoint {self._number}: damage, or a fork")
        entries = held.entries()
        tail = self._write(entries)
        signed = self._sign(self.tip.size + len(entries))
        create_same(self._storage, objects.checkpoint_name(held.number), signed, keep_until=self._keep_until())
        self._number, self._tail = held.number, tail
        self.tip, self.signed = self._own(signed, "the new checkpoint"), signed
        self._register(held, signed)
        self._tidy(held.size)

    def _tidy(self, before: int) -> None:
        """Remove some of the parts of tiles that were filled, by now or since the log had ``before`` entries.

        A bundle of entries is stored up to 255 times over, a little longer each time. Who misses a part takes the full
        one (C2SP tlog-tiles). A few at a time: in S3 each costs two requests, and the log waits for them.
        """
        try:
            for number in range(before // tile.WIDTH, self.tip.size // tile.WIDTH):
                for full in tile.filled_by(number):
                    self._spare += self._storage.names(f"{PREFIX}{full.path()}.p/")
            for name in [self._spare.popleft() for _ in range(min(_AT_ONCE, len(self._spare)))]:
                self._storage.remove(name)
        except StorageError as error:  # they do no harm but for their room
            _log.warning("parts of the log's tiles could not be removed: %s", error)

    def _write(self, entries: list[bytes]) -> list[bytes]:
        """Tiles and bundles that these entries make; the entries of the bundle that is not full then."""
        edge = Edge(self.tip.size, self._tiles.at(self.tip.size, fresh=True))
        made = edge.grow([merkle.leaf_hash(each) for each in entries])
        held, first = self._tail + entries, self.tip.size // tile.WIDTH
        for at in range(0, len(held), tile.WIDTH):
            part = held[at : at + tile.WIDTH]
            made.append((Tile(None, first + at // tile.WIDTH, len(part)), tile.join_entries(part)))
        for which, data in made:
            keep = self._keep_until() if which.width == tile.WIDTH else None
            create_same(self._storage, PREFIX + which.path(), data, keep_until=keep)
        return held[len(held) // tile.WIDTH * tile.WIDTH :]

    def _sign(self, size: int) -> bytes:
        """The checkpoint of ``size``, once the stored tiles were shown to extend the one before."""
        read = self._tiles.at(size, fresh=True)
        new = Checkpoint(self.key.name, size, Tree(size, tile.peaks(size, read)).root())
        if self.tip.size:
            proof = [tile.range_root(each, read) for each in merkle.consistency_ranges(self.tip.size, new.size)]
            try:
                merkle.verify_consistency(self.tip.size, new.size, self.tip.root, new.root, proof)
            except ProofRejected:
                raise LogRefused("the stored tiles do not extend the last checkpoint: nothing more is signed") from None
        self._agree(self.tip.size, new.size, new.root)
        return checkpoint.sign(new, self._key)

    def cosigned(self, signed: bytes, line: Signature) -> bytes:
        """Keep a witness's line, which was checked, for a checkpoint of this log; that checkpoint with the line.

        The newest checkpoint is shown with it from now on. Of one witness's lines for one checkpoint the first stays.

        Raises:
            LogRefused: no checkpoint of this log.
            StorageError: the line may be kept or not.
        """
        of = self._own(signed, "the checkpoint that was cosigned")
        held = note.encode(SignedNote(of.text(), (line,)))
        name = objects.cosigned_name(of.size, line.key_hash.hex())
        if not self._storage.create(name, held, keep_until=self._keep_until()):
            held = self._storage.read(name, note.MAX_SIZE) or held
        with self._lock:
            if of == self.tip:
                self.signed = with_lines(self.signed, held)
        return with_lines(signed, held)

    def stamped(self, size: int, stamp: bytes) -> None:
        """Keep a timestamp on the checkpoint of ``size``. Raises StorageError: it may be kept or not."""
        name = objects.stamped_name(size, sha256(stamp).hexdigest())
        create_same(self._storage, name, stamp, keep_until=self._keep_until())

    # --- reading

    def keep_until(self) -> int | None:
        """The POSIX second before which nobody can remove what is stored now; None: that is not enforced."""
        return self._keep_until()

    @property
    def number(self) -> int:
        """The newest checkpoint's number; −1 before the first."""
        return self._number

    def receipt(self, position: int, logged: Logged, under: bytes | None = None) -> bytes:
        """The tlog-proof of the entry at ``position`` under a checkpoint of this log, the newest unless told another
        (that with a witness's cosignatures, say).

        Raises:
            IndexError: that checkpoint's tree does not reach so far.
            StorageError: a tile cannot be read.
        """
        signed, at = self._under(under)
        path = [tile.range_root(each, self._tiles.at(self.tip.size)) for each in merkle.inclusion_ranges(position, at)]
        return TlogProof(logged.extra(), position, tuple(path), signed).encode()

    def consistency(self, old: int, under: bytes | None = None) -> bytes:
        """That a checkpoint extends the tree of ``old`` entries (`chain.consistency`); from 0 the proof is empty.

        Raises:
            ValueError: ``old`` is larger than that checkpoint's tree.
            StorageError: a tile cannot be read.
        """
        signed, at = self._under(under)
        ranges = merkle.consistency_ranges(old, at) if old else []
        proof = tuple(tile.range_root(each, self._tiles.at(self.tip.size)) for each in ranges)
        return Consistency(old, proof, signed).encode()

    def _under(self, under: bytes | None) -> tuple[bytes, int]:
        if under is not None:
            return under, self._own(under, "the checkpoint asked for").size
        signed = self.signed
        return signed, Checkpoint.parse(note.parse(signed).text).size if signed else 0


def with_lines(signed: bytes, held: bytes) -> bytes:
    """A checkpoint with the signature lines that ``held``, the same checkpoint, has besides. Raises StorageError."""
    try:
        ours, theirs = note.parse(signed), note.parse(held)
        if ours.text != theirs.text:
            raise Malformed("it is of another checkpoint")
        more = tuple(line for line in theirs.signatures if line not in ours.signatures)
        return note.encode(SignedNote(ours.text, (*ours.signatures, *more)))
    except Malformed as error:
        raise StorageError(f"a stored cosignature is damaged: {error}") from None
