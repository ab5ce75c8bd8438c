"""Which permits were taken, for as long as each could be taken again: in memory, or in a file that outlives processes.

A clock that is put back must not bring to life what has expired and was forgotten, so the latest time counts.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from sidecar.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

Taking = Literal["taken", "expired", "used", "full", "store"]

_WAIT: Final = 2.0  # seconds for other processes
_MAKE: Final = (
    "CREATE TABLE IF NOT EXISTS taken (decision_id TEXT PRIMARY KEY, not_after INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS ends ON taken (not_after)",
    "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), latest INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO clock VALUES (1, 0)",
)


class Taken(Protocol):
    """Remembers what was taken; of many who try at once, one takes it."""

    def take(self, decision_id: str, not_after: int, now: int) -> Taking:
        """Times in ns. Only "taken" is leave, and then it is remembered already; "store": it cannot be known."""
        ...


class TakenInMemory:
    """By this object alone. ``remember``: the most at a time."""

    def __init__(self, remember: int) -> None:
        self._remember = remember
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._expiries: list[tuple[int, str]] = []
        self._latest = 0

    def take(self, decision_id: str, not_after: int, now: int) -> Taking:
        """As `Taken.take`."""
        with self._lock:
            now = self._latest = max(self._latest, now)
            while self._expiries and self._expiries[0][0] <= now:
                self._taken.discard(heapq.heappop(self._expiries)[1])
            if not_after <= now:
                return "expired"
            if decision_id in self._taken:
                return "used"
            if len(self._taken) >= self._remember:
                return "full"
            self._taken.add(decision_id)
            heapq.heappush(self._expiries, (not_after, decision_id))
            return "taken"


class TakenInFile:
    """By a SQLite file (0600) that processes of one host share and that outlives them; durable before "taken".

    Raises:
        UsageError: the file cannot be made, or is none of these.
    """

    def __init__(self, path: Path, remember: int) -> None:
        self._path, self._remember = path.absolute(), remember
        self._lock = threading.Lock()
        self._of: tuple[int, sqlite3.Connection] | None = None
        self._parents: list[sqlite3.Connection] = []
        import sqlite3

        self._fault = sqlite3.Error
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            with self._lock, self._writing() as to:
                for statement in _MAKE:
                    to.execute(statement)
        except OSError as error:
            raise UsageError(f"cannot write {path}, for the permits that were taken: {error.strerror}") from None
        except sqlite3.Error:
            raise UsageError(f"{path} is not a file of permits that were taken; name another") from None

    def take(self, decision_id: str, not_after: int, now: int) -> Taking:
        """As `Taken.take`."""
        try:
            with self._lock, self._writing() as to:
                return self._take(to, decision_id, not_after, now)
        except self._fault:  # locked for too long, full, damaged
            self._of = None
            return "store"

    def _take(self, to: sqlite3.Connection, decision_id: str, not_after: int, now: int) -> Taking:
        (latest,) = to.execute("SELECT latest FROM clock").fetchone()
        now = max(latest, now)
        to.execute("DELETE FROM taken WHERE not_after <= ?", (now,))
        to.execute("UPDATE clock SET latest = ?", (now,))
        if not_after <= now:
            return "expired"
        if to.execute("SELECT 1 FROM taken WHERE decision_id = ?", (decision_id,)).fetchone():
            return "used"
        if to.execute("SELECT count(*) FROM taken").fetchone()[0] >= self._remember:
            return "full"
        to.execute("INSERT INTO taken VALUES (?, ?)", (decision_id, not_after))
        return "taken"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of this process' own connection, alone among all processes, durable at its end."""
        to = self._connection()
        to.execute("BEGIN IMMEDIATE")
        try:
            yield to
        except BaseException:
            to.rollback()
            raise
        to.commit()

    def _connection(self) -> sqlite3.Connection:
        if self._of is not None and self._of[0] != os.getpid():  # after a fork: neither used nor closed here
            self._parents.append(self._of[1])
            self._of = None
        if self._of is None:
            import sqlite3

            to = sqlite3.connect(self._path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            to.execute("PRAGMA journal_mode = WAL")
            to.execute("PRAGMA synchronous = FULL")
            self._of = os.getpid(), to
        return self._of[1]
