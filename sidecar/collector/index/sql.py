"""The index in SQL that both databases understand; a `Database` is what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sidecar.chain.rollcall import Standing
from sidecar.collector.index.migrations import MIGRATIONS
from sidecar.collector.index.port import Alarm, Tip
from sidecar.errors import Malformed, StorageError

_PAGE = 1_000
_ASKED = 500  # values in one statement


class Transaction(Protocol):
    """One transaction. Statements have ``?`` for each value."""

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Execute; how many rows were changed."""

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute once for each row."""

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a query."""


class Database(Protocol):
    """A database, and the words it has for two types."""

    bytes_type: str
    serial_type: str

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Committed when left, rolled back when left by an exception; one at a time. Raises StorageError."""

    def close(self) -> None:
        """Let go of it."""


class SqlIndex:
    """See `Index`.

    Raises:
        StorageError: the database cannot be had, or is of a later version than this program.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        try:
            self._migrate()
        except BaseException:
            database.close()
            raise

    def _migrate(self) -> None:
        types = {"bytes": self._database.bytes_type, "serial": self._database.serial_type}
        with self._database.transaction() as t:
            t.run("CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY)")
            (done,) = t.rows("SELECT count(*) FROM migration")[0]
            if done > len(MIGRATIONS):
                raise StorageError("the index was made by a later version of this program: use that, or a new index")
            for number in range(done, len(MIGRATIONS)):
                for statement in MIGRATIONS[number]:
                    t.run(statement.format(**types))
                t.run("INSERT INTO migration VALUES (?)", (number,))

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def tip(self) -> Tip | None:
        with self._database.transaction() as t:
            found = t.rows("SELECT number, size, checkpoint FROM tip")
        return Tip(found[0][0], found[0][1], bytes(found[0][2])) if found else None

    def advance(self, before: int | None, tip: Tip, leaves: Sequence[bytes], first: int) -> bool:
        values = (tip.number, tip.size, tip.checkpoint)
        with self._database.transaction() as t:
            if before is None:
                changed = t.run("INSERT INTO tip VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING", values)
            else:
                changed = t.run(
                    "UPDATE tip SET number = ?, size = ?, checkpoint = ? WHERE number = ?", (*values, before)
                )
            if changed:
                places = [(leaf, first + i) for i, leaf in enumerate(leaves)]
                t.run_many("INSERT INTO position VALUES (?, ?) ON CONFLICT DO NOTHING", places)
        return bool(changed)

    def positions(self, leaves: Sequence[bytes]) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        with self._database.transaction() as t:
            for at in range(0, len(leaves), _ASKED):
                part = leaves[at : at + _ASKED]
                marks = ", ".join("?" * len(part))
                rows = t.rows(f"SELECT leaf, place FROM position WHERE leaf IN ({marks})", part)  # noqa: S608  marks only
                found |= {bytes(leaf): int(place) for leaf, place in rows}
        return found

    def standing(self, chain_id: bytes) -> tuple[Standing, int] | None:
        with self._database.transaction() as t:
            found = t.rows("SELECT line, version FROM chain WHERE chain = ?", (chain_id,))
        return (_standing(chain_id, found[0][0]), int(found[0][1])) if found else None

    def stand(self, standing: Standing, version: int) -> bool:
        line, chain = standing.line(), standing.chain_id
        with self._database.transaction() as t:
            if version == 0:
                return bool(t.run("INSERT INTO chain VALUES (?, 1, ?) ON CONFLICT DO NOTHING", (chain, line)))
            update = "UPDATE chain SET line = ?, version = version + 1 WHERE chain = ? AND version = ?"
            return bool(t.run(update, (line, chain, version)))

    def standings(self) -> Iterator[Standing]:
        after = b""
        while True:
            with self._database.transaction() as t:
                query = "SELECT chain, line FROM chain WHERE chain > ? ORDER BY chain LIMIT ?"
                found = t.rows(query, (after, _PAGE))
            if not found:
                return
            after = bytes(found[-1][0])
            yield from (_standing(bytes(chain), line) for chain, line in found)

    def raise_alarm(self, alarm: Alarm) -> None:
        values = (alarm.time, alarm.chain_id, alarm.kind, alarm.detail, alarm.evidence)
        with self._database.transaction() as t:
            t.run("INSERT INTO alarm (time, chain, kind, detail, evidence) VALUES (?, ?, ?, ?, ?)", values)

    def alarms(self) -> list[Alarm]:
        with self._database.transaction() as t:
            found = t.rows("SELECT time, chain, kind, detail, evidence FROM alarm ORDER BY number")
        return [Alarm(time, bytes(chain), *rest) for time, chain, *rest in found]

    def clear(self) -> None:
        with self._database.transaction() as t:
            for table in ("tip", "position", "chain"):
                t.run(f"DELETE FROM {table}")  # noqa: S608  one of three words


def _standing(chain_id: bytes, line: str) -> Standing:
    try:
        found = Standing.parse(line)
        if found.chain_id != chain_id:
            raise Malformed("a chain's line is another chain's")
        return found
    except Malformed as error:
        raise StorageError(f"the index is damaged ({error}): rebuild it with `reindex`") from None
