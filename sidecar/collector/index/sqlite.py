"""The index in an SQLite file: the default.

It may lose its last transactions in a power cut; it is then behind the objects, and the log brings it up to them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sidecar.collector.index.sql import SqlIndex
from sidecar.errors import StorageError

_PATIENCE_SECONDS = 10.0  # for another process that writes


def open_sqlite(path: Path) -> SqlIndex:
    """The index in the file at ``path``, which is made if it is not there. Raises StorageError."""
    return SqlIndex(_Sqlite(path))


class _Sqlite:
    bytes_type = "BLOB"
    serial_type = "INTEGER PRIMARY KEY AUTOINCREMENT"

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        with _mapped():
            self._connection = sqlite3.connect(
                path, timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
            except sqlite3.Error:
                self._connection.close()
                raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        with self._lock, _mapped():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield _Transaction(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(statement, values).rowcount

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(statement, rows)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"the index cannot be used: {error}") from None
