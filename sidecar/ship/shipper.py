"""The thread that ships: what is durable goes to the collector, in order; receipts come back beside the ledger.

It reads the ledger like any reader, and no decision waits for it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from sidecar.chain import note
from sidecar.chain.note import VerifierKey
from sidecar.chain.parcel import MAX_ASKED, Record, pack, parcel_message
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind
from sidecar.errors import CollectorRefused, CollectorUnavailable, LedgerBehind, LedgerError, SidecarError
from sidecar.ship.backlog import Backlog
from sidecar.ship.link import Link, Where
from sidecar.ship.receipts import Receipts
from sidecar.ship.start import Left, acknowledged, enrol

log = logging.getLogger("sidecar.ship")

PARCEL = 1 << 20  # bytes of records, give or take an entry
_LONGEST_PAUSE = 30.0
_LOOK = 0.05  # seconds between two looks at the end
FATAL = ("FORK", "ROLLBACK", "CLONE")


class Shipment(Protocol):
    """what `ledger.Ledger.book` gives for a place."""

    @property
    def records(self) -> tuple[Record, ...]: ...
    @property
    def segment(self) -> int: ...
    @property
    def seq(self) -> int: ...


class Position(Protocol):
    """`ledger.Position`."""

    @property
    def segment(self) -> int: ...


class Book(Protocol):
    """What is read of a ledger: `ledger.Ledger.book`."""

    def shipment(self, segment: int, seq: int, limit: int) -> Shipment:
        """The records from a place on. Raises LedgerError."""

    def trim(self, receipted: int) -> int:
        """Let go of what need not stay. Raises LedgerError."""

    def size(self, first: int, after: int) -> int:
        """Bytes of entries. Raises LedgerError."""

    def first(self, segment: int) -> int:
        """The number of the entry that a segment starts with."""

    def position(self) -> Position:
        """How far it is durable."""

    def notes(self, segment: int) -> list[bytes]:
        """A segment's signed notes; none of one that is not sealed. Raises LedgerError."""


class Shipper:
    """``period``: seconds between two looks; ``roll_seconds``: between two questions for the roll-call.

    ``on_failure``: the collector holds another history than the ledger; told once, on this thread.
    """

    def __init__(
        self,
        book: Book,
        left: Left,
        link: Link,
        key: VerifierKey,
        receipts: Receipts,
        backlog: Backlog,
        token: Callable[[], bytes],
        *,
        period: float,
        roll_seconds: float,
        on_failure: Callable[[LedgerError], None],
    ) -> None:
        self._book, self._left, self._link, self._key = book, left, link, key
        self._receipts, self._backlog, self._token = receipts, backlog, token
        self._period, self._roll_seconds, self._on_failure = period, roll_seconds, on_failure
        self._place: tuple[int, int] | None = None
        self._head = b""
        self._wanted: list[bytes] = []
        self._looked_back = False
        self._roll_due = 0.0
        self._unreceipted_since: float | None = None
        self.bytes = self.refused = self.failures = self.trimmed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self._thread.start()

    @property
    def anchored(self) -> int:
        """The number of the first entry that no receipt covers."""
        segment = self._receipts.anchored
        notes = [] if segment is None else self._book.notes(segment)
        seal = Seal.parse(note.parse(notes[-1]).text) if notes else None
        return 0 if seal is None else seal.first + seal.count

    @property
    def unanchored(self) -> float:
        """For how many seconds the oldest note that was shipped waits for its receipt; 0: none does."""
        since = self._unreceipted_since
        return 0.0 if since is None else max(0.0, time.monotonic() - since)

    def close(self) -> None:
        """Break off; :meth:`finish` goes on from there."""
        self._stop.set()
        while self._thread.is_alive():
            self._link.close()
            self._thread.join(0.05)

    def finish(self, seconds: float) -> bool:
        """After :meth:`close` and the ledger's last seal: ship the rest and have its receipts, at most so long.

        False: not all was had.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                self._roll_due = 0.0
                self._round(lambda: time.monotonic() < end)
                if not self._wanted and self._rolled():
                    return True
            except SidecarError as error:
                log.warning("the end of the ledger is not with the collector yet: %s", error)
                self._place = None
            if time.monotonic() + _LOOK > end:
                return False
            time.sleep(_LOOK)

    def _rolled(self) -> bool:
        """Whether a roll-call names the ledger's end."""
        said = self._receipts.rolled
        return said is not None and self._place == ((said.sealed or 0) + 1, (said.seq or 0) + 1)

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._period
            try:
                self._round(lambda: not self._stop.is_set())
                self.failures = 0
            except CollectorRefused as error:
                self.refused += 1
                if error.code in FATAL:
                    log.critical("%s", error)
                    self._on_failure(LedgerBehind(str(error)))
                    return
                pause = self._failed(error)
            except Exception as error:  # also a defect must not end shipping unseen
                pause = self._failed(error)
            self._stop.wait(pause)

    def _failed(self, error: Exception) -> float:
        self.failures += 1
        self._place = None  # what arrived is not known: ask
        if not self._stop.is_set():
            said = str(error) if isinstance(error, SidecarError) else f"a defect, {type(error).__name__}"
            log.warning("not shipped: %s", said)
        longest = min(_LONGEST_PAUSE, max(0.1, self._period) * 2.0 ** min(self.failures, 12))
        return longest * (0.5 + random.random() / 2)  # noqa: S311  spreads load, guards nothing

    def _round(self, going: Callable[[], bool]) -> None:
        """Ship all there is, then ask for receipts."""
        if self._place is None:
            self._ask_where()
        while going():
            began = time.monotonic()
            assert self._place is not None
            found = self._book.shipment(*self._place, PARCEL)
            if not found.records or found.records == ((Kind.HEAD, self._head),):
                self._backlog.shipped(self._place[1], began, self._book.size)
                break
            self._ship(found.records, began)
        self._ask_receipts()

    def _ask_where(self) -> None:
        try:
            found = self._link.where(self._left.chain_id)
        except CollectorRefused as error:
            if error.code != "UNKNOWN_CHAIN":
                raise
            enrol(self._link, self._left, self._token())
            found = self._link.where(self._left.chain_id)
        self._move(found, None)

    def _ship(self, records: tuple[Record, ...], began: float) -> None:
        parcel = pack(records)
        signature = self._left.sign(parcel_message(self._left.chain_id, parcel))
        found = self._link.ship(self._left.chain_id, parcel, signature)
        self.bytes += len(parcel)
        before, last = self._place, records[-1]
        self._move(found, began if last[0] is Kind.HEAD else None)
        if last[0] is Kind.HEAD:
            self._head = last[1]
        elif self._place == before:
            raise CollectorUnavailable("the collector does not go on")
        self._want([note.parse(body).text.encode() for kind, body in records if kind in (Kind.EPOCH, Kind.SEAL)])

    def _move(self, found: Where, all_before: float | None) -> None:
        ack = acknowledged(found, self._left.chain_id, self._key)
        if ack.seq is not None and self._left.leaf(ack.seq) != ack.leaf:
            self._tell(ack.segment)
            raise CollectorRefused("FORK", f"it holds another entry {ack.seq} than the ledger")
        self._place = found.segment, found.seq
        after = 0 if ack.seq is None else ack.seq + 1
        self._backlog.shipped(after, all_before, self._book.size)

    def _tell(self, segment: int) -> None:
        """Show the collector the history that contradicts its own: it keeps both, and raises the alarm."""
        segment = min(segment, self._book.position().segment)
        records = self._book.shipment(segment, self._book.first(segment), PARCEL).records
        parcel = pack(records)
        signature = self._left.sign(parcel_message(self._left.chain_id, parcel))
        self._link.ship(self._left.chain_id, parcel, signature)

    def _want(self, texts: list[bytes]) -> None:
        self._wanted = self._receipts.missing([*dict.fromkeys([*self._wanted, *texts])])
        if not self._wanted:
            self._unreceipted_since = None
        elif self._unreceipted_since is None:
            self._unreceipted_since = time.monotonic()

    def _ask_receipts(self) -> None:
        if not self._looked_back:
            self._want(self._all_notes())
            self._looked_back = True
        if not self._wanted and time.monotonic() < self._roll_due:
            return
        asked = self._wanted[:MAX_ASKED]
        found = self._link.receipts(self._left.chain_id, asked, self._receipts.since)
        proved = self._receipts.store(self._left.chain_id, asked, found)
        self._roll_due = time.monotonic() + self._roll_seconds
        self._want([])
        if proved and self._receipts.anchored is not None:  # not by those of before alone: see SHIPPING.md
            self.trimmed += self._book.trim(self._receipts.anchored)

    def _all_notes(self) -> list[bytes]:
        """The notes of every sealed segment: a receipt may have been lost with the last run."""
        texts: list[bytes] = []
        segment = 0
        while found := self._book.notes(segment):
            texts += [note.parse(each).text.encode() for each in found]
            segment += 1
        return texts
