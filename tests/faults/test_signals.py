"""SIGTERM and SIGKILL while many callers ask: whatever was answered is recorded."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from sidecar.chain import note
from sidecar.chain.entry import EntryType
from sidecar.chain.seal import Seal
from sidecar.chain.stream import records
from sidecar.ledger import ledger_stream
from tests.faults.kills import Kills
from tests.faults.load import Load, Told, assert_kept, recorded
from tests.program import made, serving

KILLS = 30


def test_sigterm_under_load_ends_in_order(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    told = Told()

    async def main() -> int:
        with serving(ledger) as server:
            async with Load(server.address, told).running(unary=10, batches=2, streams=2):
                await told.more(300)
                return await asyncio.to_thread(server.stop)

    assert asyncio.run(main()) == 0
    assert_kept(ledger, key, told)
    *_, (last, _) = recorded(ledger)
    assert last.type is EntryType.CLOSE
    with ledger_stream(ledger) as read:
        *_, (_, sealed) = records(read)
    assert Seal.parse(note.parse(sealed).text).reason == "close"


def test_thirty_kills_lose_no_answer(tmp_path: Path) -> None:
    """`make soak` does a thousand."""
    ledger, key = made(tmp_path)
    kills = Kills(random.Random(3))
    with asyncio.Runner() as runner:
        while kills.count < KILLS:
            kills.kill(ledger, runner)
            if kills.count == KILLS // 2:
                assert_kept(ledger, key, kills.told)  # as the kill left it
    assert kills.under_load > kills.starting > 0 and len(kills.told.receipts) > KILLS
    assert_kept(ledger, key, kills.told)
    with serving(ledger) as server:
        assert server.stop() == 0
    assert_kept(ledger, key, kills.told)
