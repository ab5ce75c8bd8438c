"""The ledger as the rest of the sidecar sees it: open, record, look up, prove, close."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import UUID

from sidecar.chain import note, strictjson
from sidecar.chain.entry import TAGGED, WITH_FIELDS, EntryType, Header, StoredEntry, leaf, payload_commit, tagged
from sidecar.chain.limits import MAX_DEPTH
from sidecar.chain.merkle import inclusion_path, verify_inclusion
from sidecar.chain.seal import Seal
from sidecar.errors import (
    Gone,
    LedgerDamaged,
    LedgerError,
    Malformed,
    NotFound,
    ProofRejected,
    SidecarError,
    WrongState,
)
from sidecar.ledger.batch import NoteKind
from sidecar.ledger.clock import Clock
from sidecar.ledger.directory import Lock
from sidecar.ledger.draft import Draft, Recorded, prepare
from sidecar.ledger.epoch import Entropy, WrapSeed
from sidecar.ledger.given import Decision, Entry, Proof, Usage
from sidecar.ledger.grants import Grants
from sidecar.ledger.inbox import Item, again
from sidecar.ledger.look import refuse_absent
from sidecar.ledger.memory import Memory
from sidecar.ledger.options import Options, Room
from sidecar.ledger.port import Store
from sidecar.ledger.sealing import Sealing, sealed
from sidecar.ledger.shipping import Book, Left, first_of
from sidecar.ledger.starting import Confirm, start
from sidecar.ledger.store import LmdbStore
from sidecar.ledger.trimming import Trimmer
from sidecar.ledger.writer import OnCommit, Position, Writer

OpenStore = Callable[[Path, int], Store]
_STALLED_NS = 5_000_000_000  # a commit that takes longer is no commit


class Ledger:
    """One open ledger. Every method may be called from any thread; :meth:`open` is the way in."""

    def __init__(
        self, lock: Lock, store: Store, room: Room, options: Options, writer: Writer, clock: Clock, memory: Memory,
        grants: Grants, left: Left,
    ) -> None:  # fmt: skip
        self.left = left
        self._memory, self._grants = memory, grants
        self._lock, self._store, self._room, self._clock = lock, store, room, clock
        self._options, self._writer = options, writer
        self._closing = threading.Lock()
        self._sealing: Sealing | None = None

    def seal_with(self, sealing: Sealing) -> None:
        """From now on personal fields are sealed and put back by this. To be called before anything is recorded."""
        self._sealing = sealing

    @classmethod
    def open(
        cls, directory: Path, *, wrap: WrapSeed, options: Options, clock: Clock, entropy: Entropy = os.urandom,
        on_failure: Callable[[LedgerError], None], open_store: OpenStore = LmdbStore.open,
        on_commit: OnCommit = lambda *_: None, confirm: Confirm = lambda _: True,
    ) -> Ledger:  # fmt: skip
        """Open a ledger and start its next epoch.

        A tail that a crash left is closed by a recovery seal, durable together with the new epoch. ``on_failure`` is
        called at most once, on the writer's thread, when nothing more can be recorded; it must not block. ``on_commit``
        is called there after each durable commit; it must neither block nor raise.

        Raises:
            LedgerBusy, LedgerUnknown, LedgerDamaged, LedgerFull, LedgerError: nothing was changed, and why.
        """
        refuse_absent(directory)
        lock = Lock(directory)
        try:
            store = open_store(directory, options.max_bytes)
            try:
                started = start(directory, store, wrap, options, clock, entropy, on_failure, on_commit, confirm)
            except BaseException:
                store.close()
                raise
        except BaseException:
            lock.release()
            raise
        writer, room, memory, grants, left = started
        return cls(lock, store, room, options, writer, clock, memory, grants, left)

    def append(self, draft: Draft) -> Future[Recorded]:
        """Record a draft. The future has the result once the entry is durable; it cannot be cancelled.

        Its error is Malformed, LedgerFull or what sealing raises (nothing was written), or LedgerError.
        """
        future: Future[Recorded] = Future()
        future.set_running_or_notify_cancel()
        try:
            self._writer.put(Item(prepare(sealed(draft, self._sealing, self._decision_at), self._decision_at), future))
        except SidecarError as error:
            future.set_exception(error)
        return future

    async def record(self, draft: Draft, still: Callable[[], bool] = lambda: True) -> Recorded:
        """As :meth:`append`, awaited. Cancelling the task only stops the waiting: the entry is whole, or not there.

        ``still``: whether it may stand after what was recorded up to now; sealing may take its time.

        Raises:
            Malformed, LedgerFull, LedgerError, or what sealing raises: as said there.
        """
        if self._sealing is not None and draft.type in WITH_FIELDS:
            draft = await asyncio.to_thread(sealed, draft, self._sealing, self._decision_at)
        if not still():
            raise LedgerError("the registry changed again and again while this was sealed; ask again")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Recorded] = loop.create_future()
        self._writer.put_from(loop, Item(prepare(draft, self._decision_at), waiter))
        return await waiter

    def position(self) -> Position:
        """How far the ledger is durable."""
        return self._writer.position

    def entry(self, seq: int) -> Entry:
        """A recorded entry, its payload held against its commitment.

        Raises:
            NotFound: there is none. Gone: its payload was pruned. LedgerDamaged: what is stored there is not an entry.
            LedgerError: closed.
        """
        if not 0 <= seq < self.position().next_seq:
            raise _absent(seq)
        body = self._body(seq)
        if len(body) == TAGGED:
            raise Gone(f"seq: the payload of entry {seq} was pruned, with the authority's leave")
        try:
            stored = StoredEntry.parse(body)
            header = Header.decode(stored.header)
            payload = stored.payload(header.payload_len)
        except Malformed as error:
            raise LedgerDamaged(f"entry {seq}: {error}; run `sidecar verify`") from None
        if header.seq != seq or payload_commit(stored.salt, payload) != header.payload_commit:
            raise LedgerDamaged(f"entry {seq} is not what was written; run `sidecar verify`")
        return Entry(seq, header.segment, stored.header, stored.tag, stored.salt, payload)

    def _body(self, seq: int) -> bytes:
        body = self._store.entry(seq)
        if body is None:
            kept = self._store.kept()
            if kept is not None and seq < kept.seq:
                raise Gone(f"seq: entry {seq} is no longer kept here; the collector has it")
            raise _absent(seq)
        return body

    def _tagged(self, seq: int) -> tuple[Header, bytes]:
        """Header and leaf of a durable entry, also of one whose payload was pruned."""
        if not 0 <= seq < self.position().next_seq:
            raise _absent(seq)
        try:
            header, tag = tagged(self._body(seq))
            return Header.decode(header), leaf(header, tag)
        except Malformed as error:
            raise LedgerDamaged(f"entry {seq}: {error}; run `sidecar verify`") from None

    def payload(self, seq: int) -> dict[str, Any]:
        """A recorded entry's payload, read; with its personal fields, unless they were erased (`unopened`).

        Raises as :meth:`entry`."""
        return self._opened(self.entry(seq))

    def _opened(self, entry: Entry) -> dict[str, Any]:
        try:
            payload = strictjson.parse_object(entry.payload, max_depth=MAX_DEPTH)
            if self._sealing is not None and "personal" in payload:
                self._sealing.open(entry.seq, payload)
            return payload
        except (Malformed, ProofRejected) as error:
            raise LedgerDamaged(f"entry {entry.seq}: {error}; run `sidecar verify`") from None

    def attachment(self, digest: bytes) -> bytes:
        """What an entry named by this SHA-256.

        Raises NotFound: nothing was. LedgerDamaged: what is stored there is something else. LedgerError: closed."""
        found = self._store.attachment(digest)
        if found is None:
            raise NotFound("digest: nothing of this digest is attached in this ledger")
        if hashlib.sha256(found).digest() != digest:
            raise LedgerDamaged("an attachment is not what was written; run `sidecar verify`")
        return found

    def last_attached(self) -> int | None:
        """The seq of the last entry that came with an attachment, or None."""
        return self._store.last_attached()

    def find(self, decision_id: str) -> int | None:
        """The seq of a decision's entry, or None. The index is only a hint: what it points to is looked at.

        Raises Gone: its payload was pruned. LedgerDamaged: the index points to something else."""
        return found[0].seq if (found := self._found(decision_id)) else None

    def decision(self, decision_id: str) -> Decision:
        """As :meth:`find`, and what was decided. Raises NotFound where there is none, and as :meth:`payload`."""
        found = self._found(decision_id)
        if found is None:
            kept = self._store.kept()
            older = f"; entries before {kept.seq} are no longer kept here, the collector has them" if kept else ""
            raise NotFound(f"decision_id: no such decision in this ledger{older}")
        entry, stored = found
        payload = self._opened(entry) if "personal" in stored else stored
        return Decision(entry.seq, Header.decode(entry.header).wall_ns, stored, payload)

    def _found(self, decision_id: str) -> tuple[Entry, dict[str, Any]] | None:
        try:
            key = UUID(decision_id)
        except ValueError:
            return None
        seq = self._store.find(key.bytes) if str(key) == decision_id else None
        if seq is None:
            return None
        found = self._decided_at(seq)
        if found is None or found[1]["decision_id"] != decision_id:
            raise LedgerDamaged("the index names another entry than that decision's; run `sidecar verify`")
        return found

    def about(self, seq: int) -> list[tuple[int, EntryType]]:
        """Number and type of each durable entry that refers to this one, rising; each is held against the entry itself.

        Raises:
            LedgerDamaged: the index names an entry that does not refer to this one, or is of another type.
        """
        found: list[tuple[int, EntryType]] = []
        for place, kind in self._store.about(seq):
            try:
                header, _ = self._tagged(place)
            except NotFound:
                raise _misled() from None
            if (header.ref_seq, header.type) != (seq, kind):
                raise _misled()
            found.append((place, header.type))
        return found

    def waiting(self, limit: int) -> list[int]:
        """Numbers of the decisions that wait for approvals now, the first to expire first, at most ``limit``.

        The index is only a hint: what it points to is for the caller to look at. Raises LedgerDamaged.
        """
        return self._store.waiting(self._clock.now().wall_ns, limit)

    def holds(self, seq: int, leaf_hash: bytes) -> bool:
        """Whether the entry at ``seq`` has this leaf. Raises LedgerDamaged for an entry that is none, Gone for one that
        is not kept here any more."""
        try:
            return self._tagged(seq)[1] == leaf_hash
        except Gone:
            raise
        except NotFound:
            return False

    def recall(self, repeat_key: bytes) -> Recorded | None:
        """What was recorded under a repeat key, unless that is longer ago than is remembered.

        The entry is the one that was recorded under this very key, whole; whether the request is the same is for the
        caller to see.

        Raises:
            LedgerDamaged: what is stored is not what was written.
        """
        now, memory = self._clock.now().wall_ns, self._options.remember_ns
        for period in (now // memory, now // memory - 1, now // memory + 1):  # or the clock was set back since
            found = self._store.recall(period, repeat_key) if period >= 0 else None
            if found is None:
                continue
            entry = self.entry(found[0])
            leaf_hash = leaf(entry.header, entry.tag)
            receipt = self._memory.recall(repeat_key, found[1], entry.seq, leaf_hash)
            if now - Header.decode(entry.header).wall_ns <= memory:
                return Recorded(entry.seq, entry.segment, leaf_hash, receipt)
        return None

    def permit(self, seq: int, decision: Mapping[str, Any]) -> bytes:
        """The permit of the DECISION at ``seq``, whose payload is given: the same every time, empty where it has none.

        Raises:
            NotFound: it is not durable yet.
        """
        if not 0 <= seq < self.position().next_seq:
            raise _absent(seq)
        return self._grants.permit(seq, decision)

    def prove(self, seq: int) -> Proof:
        """The inclusion proof of an entry. Reads the whole segment: milliseconds, not for an event loop's thread.

        Raises:
            NotFound: there is no such entry. WrongState: its segment is not sealed yet. LedgerDamaged: no proof fits.
        """
        header, its_leaf = self._tagged(seq)
        signed = self._store.note(header.segment, NoteKind.SEAL)
        if signed is None:
            raise WrongState(f"seq: segment {header.segment} is not sealed yet; ask again within a minute")
        try:
            seal = Seal.parse(note.parse(signed).text)
            leaves = [leaf(*tagged(body)) for body in self._store.entries(seal.first, seal.count)]
            index = seq - seal.first
            path = inclusion_path(leaves, index)
            verify_inclusion(index, seal.count, its_leaf, path, seal.root)
        except (Malformed, ProofRejected, IndexError):
            raise LedgerDamaged(f"segment {header.segment} does not fit its seal; run `sidecar verify`") from None
        return Proof(bytes(self._body(seq)[:TAGGED]), index, path, signed)

    def book(self) -> Book:
        """What is shipped of it."""

        def opened() -> int:
            return first_of(self._store, self.position().segment)

        trimmer = Trimmer(self._store, self._options.keep, opened, lambda: self._clock.now().wall_ns)
        return Book(self._store, self.position, trimmer)

    def end(self) -> None:
        """Write what waits, CLOSE and the last seal. What is there can still be read, up to :meth:`close`."""
        with self._closing:
            self._writer.stop()

    def usage(self) -> Usage:
        """How much is taken and how far the ledger is."""
        at = self.position()
        return Usage(
            self._store.used(), self._options.max_bytes, self._room.on_disk(), self._room.left(), at.next_seq,
            at.segment, self._writer.depth,
        )  # fmt: skip

    def decisions(self, first: int, after: int) -> int:
        """DECISION entries from ``first`` up to ``after``; a microsecond an entry. Raises LedgerError."""
        return self._store.count(EntryType.DECISION, first, after)

    def began(self, seq: int = 0) -> int:
        """The wall clock of an entry, of the chain's first unless told, ns since 1970. Raises as :meth:`entry`."""
        return self._tagged(seq)[0].wall_ns

    @property
    def failure(self) -> LedgerError | None:
        """Why nothing more can be recorded, if so; None also after :meth:`close` in order."""
        return self._writer.failure

    def check_writable(self) -> None:
        """Return if the next entry would be taken.

        Raises:
            LedgerFull, LedgerError: why it would not.
        """
        if self._writer.failure is not None:
            raise again(self._writer.failure)
        if (stalled := self._writer.stalled_ns) > _STALLED_NS:
            raise LedgerError(
                f"the disk has not taken an entry for {stalled // 10**9} s; see to it, decisions wait for it"
            )
        if self._room.left() < 0:
            raise self._room.refusal()

    def close(self) -> None:
        """Write what waits, CLOSE and the last seal; let go of the directory. May be called twice, from any thread
        but the writer's."""
        with self._closing:
            self._writer.stop()
            self._store.close()
            self._lock.release()

    def _decision_at(self, seq: int) -> dict[str, Any] | None:
        return (self._decided_at(seq) or (None, None))[1]

    def _decided_at(self, seq: int) -> tuple[Entry, dict[str, Any]] | None:
        try:
            entry = self.entry(seq)
        except Gone:
            raise
        except NotFound:
            return None
        if Header.decode(entry.header).type is not EntryType.DECISION:
            return None
        return entry, strictjson.parse_object(entry.payload, max_depth=MAX_DEPTH)


def _absent(seq: int) -> NotFound:
    return NotFound(f"seq: no entry {seq} in this ledger")


def _misled() -> LedgerDamaged:
    return LedgerDamaged("the index of references names an entry that refers to another; run `sidecar verify`")
