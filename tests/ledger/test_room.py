"""How much room is left: exactly, and roughly where that is enough."""

from __future__ import annotations

from pathlib import Path

from sidecar.ledger.batch import Batch
from sidecar.ledger.options import MIB, Options, Room
from sidecar.ledger.store import LmdbStore

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
