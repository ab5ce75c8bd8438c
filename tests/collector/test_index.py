"""One suite for both databases: SQLite, and a real PostgreSQL of the test's own."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from sidecar.chain.rollcall import Standing
from sidecar.collector import FleetLog
from sidecar.collector.index import Alarm, Tip, open_sqlite
from sidecar.collector.index.postgres import open_postgres
from sidecar.collector.index.sql import SqlIndex
from sidecar.errors import StorageError
from tests.collector.memory import MemoryStorage
from tests.collector.test_log import KEY, ORIGIN, notes
from tests.scribe import secret
from tests.servers.running import Postgres, postgres

Open = Callable[[], SqlIndex]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same empty database each time it is called."""
    made: list[SqlIndex] = []
    if request.param == "sqlite":
        open_it: Open = lambda: open_sqlite(tmp_path / "index.db")  # noqa: E731
    else:
        where = request.getfixturevalue("server")
        name = f"d{uuid.uuid4().hex}"
        with psycopg.connect(where.address(), autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{name}"')
        open_it = lambda: open_postgres(where.address(name))  # noqa: E731

    def opened() -> SqlIndex:
        made.append(open_it())
        return made[-1]

    yield opened
    for each in made:
        each.close()


def tip(number: int) -> Tip:
    return Tip(number, 10 * number + 10, b"checkpoint %d" % number)


LEAVES = [secret("leaf", i) for i in range(1_200)]


def test_a_tip_is_advanced_from_the_one_before_only(opening: Open) -> None:
    index = opening()
    assert index.tip() is None
    assert not index.advance(0, tip(1), LEAVES[:1], 0)
    assert index.tip() is None and index.positions(LEAVES[:1]) == {}
    assert index.advance(None, tip(0), LEAVES[:2], 0)
    assert not index.advance(None, tip(0), LEAVES[:2], 0)
    assert index.advance(0, tip(1), LEAVES[2:], 2)
    assert not index.advance(0, tip(1), [secret("other")], 9)
    assert index.tip() == tip(1)
    assert index.positions([*LEAVES, secret("other")]) == {leaf: i for i, leaf in enumerate(LEAVES)}
    assert opening().tip() == tip(1)


def test_of_many_at_once_one_advances(opening: Open) -> None:
    each = [opening() for _ in range(4)]
    each[0].advance(None, tip(0), [], 0)
    done: list[bool] = []
    start = threading.Barrier(4)

    def advance(index: SqlIndex, mine: int) -> None:
        start.wait()
        done.append(index.advance(0, replace(tip(1), checkpoint=b"by %d" % mine), [], 0))

    threads = [threading.Thread(target=advance, args=(index, i)) for i, index in enumerate(each)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False, False, False, True]


FIRST = Standing(secret("a"), 0, None, None, None, None, None)
LATER = Standing(secret("a"), 2**32 - 1, 2**64 - 1, secret("seal"), 2**64 - 2, secret("leaf"), -(2**63))


def test_a_standing_is_replaced_by_whoever_saw_it(opening: Open) -> None:
    index = opening()
    assert index.standing(FIRST.chain_id) is None
    assert not index.stand(FIRST, 1)
    assert index.stand(FIRST, 0) and not index.stand(LATER, 0)
    assert index.standing(FIRST.chain_id) == (FIRST, 1)
    assert index.stand(LATER, 1) and not index.stand(FIRST, 1)
    assert index.standing(FIRST.chain_id) == (LATER, 2)


def test_standings_come_in_rising_order(opening: Open) -> None:
    index = opening()
    chains = [replace(FIRST, chain_id=secret("chain", i)) for i in range(30)]
    chains += [replace(FIRST, chain_id=bytes(32)), replace(FIRST, chain_id=b"\xff" * 32)]
    for each in chains:
        index.stand(each, 0)
    assert list(index.standings()) == sorted(chains, key=lambda s: s.chain_id)


def test_alarms_and_clearing(opening: Open) -> None:
    index = opening()
    alarms = [
        Alarm(2**62, secret("a"), "fork", "two seals", "evidence/1 evidence/2"),
        Alarm(5, bytes(32), "gap", "", ""),
    ]
    for each in alarms:
        index.raise_alarm(each)
    index.advance(None, tip(0), LEAVES[:3], 0)
    index.stand(FIRST, 0)
    index.clear()
    assert index.tip() is None and index.positions(LEAVES) == {} and list(index.standings()) == []
    assert index.alarms() == alarms and opening().alarms() == alarms


def test_a_poisoned_line_is_found(opening: Open) -> None:
    index = opening()
    index.stand(FIRST, 0)
    with index._database.transaction() as t:
        t.run("UPDATE chain SET line = ?", ("not a line",))
    with pytest.raises(StorageError, match="reindex"):
        index.standing(FIRST.chain_id)
    with pytest.raises(StorageError, match="reindex"):
        list(index.standings())


def test_an_error_undoes_the_whole_transaction(opening: Open) -> None:
    index = opening()
    with pytest.raises(StorageError), index._database.transaction() as t:
        t.run("INSERT INTO chain VALUES (?, 1, ?)", (bytes(32), FIRST.line()))
        t.run("INSERT INTO no_such_table VALUES (1)")
    assert list(index.standings()) == []


def test_a_later_versions_database_is_refused(opening: Open) -> None:
    with opening()._database.transaction() as t:
        t.run("INSERT INTO migration VALUES (?)", (99,))
    with pytest.raises(StorageError, match="later version"):
        opening()


def test_two_that_start_at_once_make_the_tables_once(opening: Open) -> None:
    made: list[SqlIndex] = []
    threads = [threading.Thread(target=lambda: made.append(opening())) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 4 and all(each.tip() is None for each in made)


def test_a_log_with_it(opening: Open) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, opening(), ORIGIN, KEY)
    log.append(notes(30))
    assert [t.position for t in FleetLog(storage, opening(), ORIGIN, KEY).append(notes(3, 29))] == [29, 30, 31]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError):
        open_sqlite(tmp_path / "index.db")
    with pytest.raises(StorageError):
        open_sqlite(tmp_path / "none" / "index.db")
    assert sqlite3.sqlite_version_info >= (3, 24)  # ON CONFLICT


def test_a_connection_that_broke_is_made_anew(server: Postgres) -> None:
    index = open_postgres(server.address())
    with psycopg.connect(server.address(), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(StorageError):
        index.tip()
    assert index.tip() is None
    index.close()


def test_a_database_out_of_reach_and_its_secret() -> None:
    with pytest.raises(StorageError) as refused:
        open_postgres("host=127.0.0.1 port=9 user=x password=very-secret dbname=x")
    assert "very-secret" not in str(refused.value)
