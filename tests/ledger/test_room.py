"""How much room is left: exactly, roughly where that is enough, and put aside ahead of need."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

from sidecar.ledger.batch import Batch
from sidecar.ledger.options import MIB, Options, Room
from sidecar.ledger.store import LmdbStore
from tests.ledger.worlds import PATIENCE, World, decision, loaded

BODY = bytes(500_000)


def test_freed_pages_are_looked_for_where_little_is_left(tmp_path: Path) -> None:
    options = Options(max_bytes=16 * MIB)
    store = LmdbStore.create(tmp_path, options.max_bytes)
    room = Room(tmp_path, store, options)
    try:
        for seq in range(16):
            batch = Batch()
            batch.entry(seq, BODY)
            store.commit(batch)
        full = room.left()
        assert MIB <= room.left(MIB) <= full
        store.let_go(range(15), [], 15)
        exact = room.left()
        assert exact > full + 14 * len(BODY)
        assert MIB <= room.left(MIB) < exact  # some of what was freed is not said, and need not be
        assert room.left(exact) == exact == room.left(options.max_bytes)
    finally:
        store.close()


def test_commits_do_not_lengthen_the_file_one_by_one(world: World) -> None:
    file, lengths = world.directory / "ledger.mdb", set()
    ledger = world.open()
    for n in range(40):
        ledger.append(decision(n)).result(PATIENCE)
        lengths.add(file.stat().st_size)
    assert len(lengths) == 1 and lengths.pop() > MIB > ledger.usage().bytes_used
    left = world.snapshot("crashed")
    ledger.close()
    for each in (world, left):
        again = each.open()
        again.append(loaded()).result(PATIENCE)
        again.close()
        each.assert_verifies()
    assert file.stat().st_size < 2 * MIB  # a start puts nothing more aside than is missing


def test_where_little_is_left_nothing_is_put_aside(world: World) -> None:
    ledger = world.open(options=dataclasses.replace(world.options, max_bytes=32 * MIB))
    ledger.append(decision(1)).result(PATIENCE)
    ledger.close()
    assert (world.directory / "ledger.mdb").stat().st_size < MIB // 2


def test_nothing_is_put_aside_while_somebody_commits(tmp_path: Path) -> None:
    """The pages that a commit adds begin where the zeros would."""
    store, file = LmdbStore.create(tmp_path, 64 * MIB), tmp_path / "ledger.mdb"
    length, reaching = file.stat().st_size, threading.Thread(target=store.reach)
    with store._env.begin(write=True) as txn:
        reaching.start()
        reaching.join(0.2)
        assert file.stat().st_size == length
        txn.put(bytes(32), bytes(200_000), db=store._authority)
    reaching.join(PATIENCE)
    assert file.stat().st_size > MIB
    with store._env.begin() as txn:
        assert txn.get(bytes(32), db=store._authority) == bytes(200_000)
    store.close()
