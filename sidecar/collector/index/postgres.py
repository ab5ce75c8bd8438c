"""The index in PostgreSQL (extra ``postgres``). A connection that broke is made anew by the next transaction."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import psycopg.conninfo

from sidecar.collector.index.sql import SqlIndex
from sidecar.errors import StorageError

_MIGRATING = 0x5344_4349  # any number that nobody else locks in this database
# Where the connection string does not say otherwise. A database that is cut off, or whose host is gone, says nothing:
# it is given up after ten seconds, and asked anew.
_UNSAID = {
    "client_encoding": "UTF8",  # also of a database that has none
    "connect_timeout": "10",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}


def open_postgres(address: str) -> SqlIndex:
    """The index in the database at ``address``, a libpq connection string. Raises StorageError."""
    return SqlIndex(_Postgres(address))


class _Postgres:
    bytes_type = "BYTEA"
    serial_type = "BIGSERIAL PRIMARY KEY"

    def __init__(self, address: str) -> None:
        self._address = psycopg.conninfo.make_conninfo(**{**_UNSAID, **_said(address)})
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._first = True

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        with self._lock, self._mapped():
            if self._connection is None:
                self._connection = psycopg.connect(self._address)
            with self._connection.transaction():
                if self._first:
                    # Two collectors that start at once make the tables once.
                    self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATING,))
                yield _Transaction(self._connection)
            self._first = False

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if self._connection is None or self._connection.broken:
                self._drop()
            # libpq's own text can quote the connection string.
            raise StorageError(f"the index cannot be used: {type(error).__name__} {error.sqlstate or ''}") from None


def _said(address: str) -> dict[str, Any]:
    try:
        return psycopg.conninfo.conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        raise StorageError("the index cannot be used: the connection string is none of libpq's") from None


class _Transaction:
    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(_spelt(statement), values).rowcount

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_spelt(statement), rows)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(_spelt(statement), values).fetchall()


def _spelt(statement: str) -> str:
    """With this driver's marks for values; the statements are all `sql`'s own."""
    return statement.replace("?", "%s")
