"""The one thread that writes. It takes what waits, makes entries of it, commits them together, then answers.

Nothing is answered before its commit returned. After a commit that failed nothing is tried again: what is on disk is
not known, and a second attempt could sign two things for one place. Every caller is told, and the keys are forgotten.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.chain.entry import EntryType
from sidecar.chain.limits import NO_SEQ
from sidecar.errors import LedgerError
from sidecar.ledger.batch import Batch, Wait
from sidecar.ledger.clock import Clock, Moment
from sidecar.ledger.draft import Recorded
from sidecar.ledger.epoch import Epoch, clock_entry, close_entry
from sidecar.ledger.inbox import Inbox, Item, Waiter, refuse, release
from sidecar.ledger.memory import Memory
from sidecar.ledger.options import Options, Room, cost
from sidecar.ledger.port import Store
from sidecar.ledger.segment import Made, OpenSegment

OnCommit = Callable[[int, float], None]
"""Told of each commit that is durable: how many entries it holds (0: a seal alone), and its seconds."""

CLOSED = "the ledger is closed; start the sidecar again"


@dataclass(frozen=True, slots=True)
class Position:
    """How far the ledger is durable. ``segment``: the open one. ``last_seal``: the last seal, signed.

    ``head``: the last head signed; where the open segment is empty it is about the segment before. ``written``: how
    many bytes of entries this run stored.
    """

    chain_id: bytes
    epoch: int
    next_seq: int
    segment: int
    head: bytes
    last_seal: bytes
    written: int = 0


class Writer:
    """Owns the epoch and all writing to the store once started."""

    def __init__(
        self, epoch: Epoch, store: Store, room: Room, options: Options, clock: Clock, position: Position,
        memory: Memory, on_failure: Callable[[LedgerError], None], on_commit: OnCommit,
    ) -> None:  # fmt: skip
        self._epoch, self._store, self._room = epoch, store, room
        self._options, self._clock, self._memory = options, clock, memory
        self._on_failure, self._on_commit = on_failure, on_commit
        self._inbox = Inbox(options.queue_limit)
        self._due = clock.now().mono_ns + options.segment_ns
        self._failure: LedgerError | None = None
        self._held: Sequence[Item] = ()  # taken, not yet answered
        self._committing: int | None = None  # since when the store is at a commit, by the boot-time clock
        self.position = position
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    @property
    def depth(self) -> int:
        """How many entries wait."""
        return self._inbox.depth

    @property
    def stalled_ns(self) -> int:
        """For how long the store has been at a commit; 0: it is at none."""
        since = self._committing
        return 0 if since is None else self._clock.now().mono_ns - since

    @property
    def failure(self) -> LedgerError | None:
        """Why it stopped, if it did not stop in order."""
        return self._failure

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue an entry; its waiter is answered once it is durable. Raises LedgerError."""
        if self._inbox.put(item):
            self._inbox.wake()

    def put_from(self, loop: asyncio.AbstractEventLoop, item: Item) -> None:
        """As :meth:`put`, with what else this turn of the loop brings: one commit for all, and the writer does not wake
        while the loop still holds Python's lock."""
        if self._inbox.put(item):
            loop.call_soon(self._inbox.wake)

    def stop(self) -> None:
        """Write what waits, CLOSE and the last seal; return when that is done. May be called twice."""
        self._inbox.shut(LedgerError(CLOSED))
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self._fail(_as_ledger_error(error))
        finally:
            self._epoch.wipe()
        if self._failure is not None:
            self._on_failure(self._failure)

    def _work(self) -> None:
        ended = False
        while not ended:
            self._held, ended = self._inbox.take(self._options.batch, self._clock, self._due)
            taking = sum(cost(item.entry) for item in self._held)
            now = self._clock.now()
            left = self._room.lately(now.mono_ns, taking)
            self._held = self._admit(self._held, left)
            if self._room.exhausted(left):
                self._fail(self._room.refusal())
                break
            self._seal_if_due(now)
            self._write_held()
        self._held = [Item(close_entry())]
        self._write_held()

    def _admit(self, items: Sequence[Item], left: int) -> Sequence[Item]:
        """The items there is room for; the others are refused, and nothing of them is written."""
        admitted: list[Item] = []
        refused: list[Item] = []
        for item in items:
            left -= cost(item.entry)
            (admitted if left >= 0 else refused).append(item)
        if refused:
            refuse(refused, self._room.refusal())
        return admitted

    def _write_held(self) -> None:
        while self._held:
            self._write_group()

    def _write_group(self) -> None:
        """Make and commit entries up to the segment's end, then answer them; the rest stays held."""
        batch, segment = Batch(), self._epoch.open
        receipts: dict[int, bytes] = {}
        made, left = self._make(self._held, batch, receipts)
        head, seal = receipts.get(made[-1][1].seq) or segment.head(made[-1][1]), b""
        receipts[made[-1][1].seq] = head
        closing = made[-1][0].entry.type is EntryType.CLOSE
        try:
            if closing:
                seal = self._epoch.finish(self._clock.now(), batch)
            elif self._full():
                seal = self._epoch.roll("count", self._clock.now(), batch)
            else:
                batch.head = head
            self._commit(batch, len(made))
            self._move(head, seal, sum(len(entry.body) for _, entry in made))
            self._held = left
            release(_answers(made, segment, receipts))
        finally:
            if seal:
                segment.wipe()
        if seal and not closing:
            self._opened()

    def _make(
        self, items: Sequence[Item], batch: Batch, receipts: dict[int, bytes]
    ) -> tuple[list[tuple[Item, Made]], Sequence[Item]]:
        """Entries of the items, as many as the segment takes, and the items left. CLOCK where it must come.

        A receipt that is to be recalled is signed now, into ``receipts`` by seq, so that it is in the same commit.
        """
        made: list[tuple[Item, Made]] = []
        place = 0
        jumped: Moment | None = None
        while place < len(items) and not self._full():
            # The entry after a CLOCK is of the same moment: a clock that jumps at every reading must not hold it up.
            now = jumped or self._clock.now()
            step = self._epoch.step(now)
            jumped = now if step else None
            item = Item(clock_entry(step)) if step else items[place]
            place += 0 if step else 1
            entry = self._epoch.write(item.entry, now)
            batch.entry(entry.seq, entry.body)
            if item.entry.ref_seq != NO_SEQ:
                batch.about(item.entry.ref_seq, entry.seq, item.entry.type)
            if item.entry.expires is not None:
                batch.wait(Wait(item.entry.expires, entry.seq), now.wall_ns)
            if item.entry.settles is not None:
                batch.settle(item.entry.settles)
            if item.entry.attachment is not None:
                batch.attach(entry.seq, *item.entry.attachment)
            if entry.decided is not None:
                batch.decision(bytes.fromhex(entry.decided.decision_id.replace("-", "")), entry.seq)
            if item.entry.repeat_key is not None:
                receipt = receipts[entry.seq] = self._epoch.open.head(entry)
                period = max(0, now.wall_ns) // self._options.remember_ns
                value = self._memory.bind(item.entry.repeat_key, receipt)
                batch.request(period, item.entry.repeat_key, entry.seq, value)
            made.append((item, entry))
        return made, items[place:]

    def _full(self) -> bool:
        return self._epoch.open.count >= self._options.segment_entries

    def _seal_if_due(self, now: Moment) -> None:
        if self._full() or now.mono_ns >= self._due:
            batch, segment = Batch(), self._epoch.open
            seal = self._epoch.roll("count" if self._full() else "time", now, batch)
            try:
                self._commit(batch, 0)
            finally:
                segment.wipe()
            self._move(self.position.head, seal)
            self._opened()

    def _commit(self, batch: Batch, entries: int) -> None:
        self._committing = began = self._clock.now().mono_ns
        self._store.commit(batch)
        self._committing = None
        self._on_commit(entries, (self._clock.now().mono_ns - began) / 1e9)

    def _opened(self) -> None:
        """A segment was opened, and that is durable."""
        self._due = self._clock.now().mono_ns + self._options.segment_ns
        self._store.tidy()

    def _move(self, head: bytes, seal: bytes, written: int = 0) -> None:
        was, segment = self.position, self._epoch.open
        self.position = Position(
            was.chain_id,
            was.epoch,
            segment.next_seq,
            segment.segment,
            head,
            seal or was.last_seal,
            was.written + written,
        )

    def _fail(self, error: LedgerError) -> None:
        """Tell everyone who waits, and everyone to come."""
        self._failure = error
        refuse([*self._held, *self._inbox.fail(error)], error)


def _answers(
    made: Sequence[tuple[Item, Made]], segment: OpenSegment, receipts: dict[int, bytes]
) -> list[tuple[Waiter, Recorded]]:
    """A receipt for each entry somebody waits for; those in ``receipts`` are signed already."""
    return [
        (item.waiter, Recorded(m.seq, m.segment, m.leaf, receipts.get(m.seq) or segment.head(m)))
        for item, m in made
        if item.waiter is not None
    ]


def _as_ledger_error(error: Exception) -> LedgerError:
    if isinstance(error, LedgerError):
        return error
    return LedgerError(f"the ledger's writer failed ({type(error).__name__}); restart the sidecar, which looks again")
