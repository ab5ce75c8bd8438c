"""The one thread that makes the fleet log grow: notes that were accepted, and the roll-call once a minute."""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections.abc import Callable

from sidecar.anchor import Pauses
from sidecar.chain import note
from sidecar.chain.batch import MAX_ENTRIES
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.logged import Logged, parse_entry
from sidecar.chain.merkle import leaf_hash
from sidecar.chain.rollcall import Roll, Standing
from sidecar.chain.seal import Seal, seal_hash
from sidecar.collector.index import Index
from sidecar.collector.log import FleetLog
from sidecar.collector.rebuild import last_said
from sidecar.collector.roll import call_roll
from sidecar.collector.standings import Standings
from sidecar.collector.storage import Storage
from sidecar.errors import LogRefused, SidecarError, StorageError

log = logging.getLogger("sidecar.collector")

SETTLED = 10.0  # seconds that somebody waits for what was submitted
GATHER = 0.05  # seconds that notes are gathered for one batch


class Sequencer:
    """``roll_seconds`` between roll-calls; ``now`` in ns; ``on_refused``: the log will not sign any more, and why.

    ``on_signed``: told each new checkpoint, on this thread.

    Raises:
        LogRefused, StorageError: the log's objects cannot be read back to its last roll-call.
    """

    def __init__(
        self,
        fleet: FleetLog,
        storage: Storage,
        index: Index,
        *,
        roll_seconds: float,
        now: Callable[[], int],
        on_refused: Callable[[LogRefused], None],
        on_signed: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self.fleet = fleet
        self._storage, self._now = storage, now
        self.standings = Standings(index, last_said(storage, fleet.key, fleet.number))
        self._roll_seconds, self._on_refused, self._on_signed = roll_seconds, on_refused, on_signed
        self._wake = threading.Condition()
        self._waiting: dict[bytes, bytes] = {}  # leaf hash to signed note
        self._roll: tuple[Roll, int] | None = None
        self._due = time.monotonic() + roll_seconds
        self._ended = self._refused = False
        self.failures = 0
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Notes that are not in the log yet."""
        return len(self._waiting)

    def submit(self, notes: list[bytes]) -> None:
        """Log these notes, which were checked and are durable, soon."""
        if not notes:
            return
        with self._wake:
            for signed in notes:
                self._waiting.setdefault(leaf_hash(note.parse(signed).text.encode()), signed)
            self._wake.notify_all()

    def settle(self) -> None:
        """Return once all that was submitted is in the log. Raises StorageError where that takes too long."""
        with self._wake:
            if not self._wake.wait_for(lambda: not self._waiting, SETTLED):
                raise StorageError("the log does not grow; ask again")

    def refuse(self, error: LogRefused) -> None:
        """Sign nothing more: what is signed elsewhere shows that this is not the log that it was."""
        log.critical("the log will not sign: %s", error)
        with self._wake:
            self._refused = self._ended = True
            self._wake.notify_all()

    def close(self) -> None:
        """Log what waits, and stop."""
        with self._wake:
            self._ended = True
            self._wake.notify_all()
        self._thread.join()

    def roll_call(self, chain_id: bytes, size: int) -> tuple[int, Logged] | None:
        """The chain's line in the last roll-call, if that is among the first ``size`` entries."""
        called = self._roll
        if called is None or called[1] >= size:
            return None
        roll, position = called
        at = bisect.bisect_left(roll.standings, chain_id, key=lambda standing: standing.chain_id)
        if at == len(roll.standings) or roll.standings[at].chain_id != chain_id:
            return None
        return position, Logged(roll.call, roll.call.text(), roll.answer(at))

    def _run(self) -> None:
        pauses = Pauses(first=0.1, longest=10.0)
        while True:
            with self._wake:
                self._wake.wait_for(self._something, max(0.0, self._due - time.monotonic()))
                ended = self._ended
                if self._refused:
                    return
                if self._waiting and not ended:
                    self._wake.wait_for(lambda: self._ended, GATHER)
                batch = dict(list(self._waiting.items())[:MAX_ENTRIES])
            try:
                self._grow(batch)
                self.failures = 0
            except LogRefused as error:
                log.critical("the log will not sign: %s", error)
                self._on_refused(error)
                return
            except Exception as error:  # also a defect must not end the log's growth unseen
                self.failures += 1
                said = str(error) if isinstance(error, SidecarError) else f"defect {type(error).__name__}"
                log.error("the log does not grow: %s", said)
                if ended:
                    return
                with self._wake:
                    self._wake.wait_for(lambda: self._ended, pauses.after(self.failures))
                continue
            if ended and not self._waiting:
                return

    def _something(self) -> bool:
        return self._ended or bool(self._waiting) or time.monotonic() >= self._due

    def _grow(self, batch: dict[bytes, bytes]) -> None:
        before = self.fleet.tip.size
        if batch:
            for taken in self.fleet.append(list(batch.values())):
                self._sealed(taken.entry)
            with self._wake:
                for leaf in batch:
                    self._waiting.pop(leaf, None)
                self._wake.notify_all()
        if time.monotonic() >= self._due or (self._ended and not self._waiting):
            kept = self.fleet.keep_until()
            roll = call_roll(self._storage, self.standings.all, self.fleet.key.name, self._now, kept)
            (taken,) = self.fleet.append([roll.call.text().encode()])
            self._roll = roll, taken.position
            self._due = time.monotonic() + self._roll_seconds
        if self.fleet.tip.size != before:
            self._on_signed(self.fleet.signed)

    def _sealed(self, entry: bytes) -> None:
        """A roll-call may name a seal once it is in the log."""
        text = entry.decode()
        read = parse_entry(text)
        if isinstance(read, Seal):
            sealed = Standing(read.chain_id, read.epoch, read.segment, seal_hash(text), None, None, None)
            self.standings.raise_to(sealed)


def size_of(signed: bytes) -> int:
    """The size of a signed checkpoint's tree; 0: there is none yet."""
    return Checkpoint.parse(note.parse(signed).text).size if signed else 0
