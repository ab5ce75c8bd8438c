"""The number that says how blind one is: right at every place, and never too small."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc.aio
import pytest

from sidecar.api import Metrics
from sidecar.api.unanchored import MOST, Unanchored
from tests.api.pages import series
from tests.api.running import request, running


def decisions(first: int, after: int) -> int:
    """Every third entry is one."""
    return (after + 2) // 3 - (first + 2) // 3


def test_it_is_counted_as_ends_and_receipts_move_on() -> None:
    chance = random.Random(5)
    counted, anchored, end = Unanchored(decisions), 0, 0
    for _ in range(500):
        end += chance.randrange(MOST // 4)
        anchored = chance.choice((anchored, anchored, chance.randint(anchored, end)))
        assert counted.look(anchored, end) == decisions(anchored, end)
    assert counted.look(end, end) == 0
    assert counted.look(0, 9) == 3  # an old place again


def test_what_is_not_counted_yet_counts() -> None:
    counted, end = Unanchored(decisions), 3 * MOST
    seen = [counted.look(0, end) for _ in range(4)]
    assert seen[0] > seen[1] > seen[2] == seen[3] == MOST
    assert seen[0] == 2 * MOST + decisions(0, MOST)


def test_decisions_are_told_from_other_entries(tmp_path: Path) -> None:
    metrics = Metrics("test")

    async def main() -> None:
        async with running(tmp_path, metrics=metrics) as run:
            for number in range(5):
                await run.decisions.Decide(request())
                with pytest.raises(grpc.aio.AioRpcError):
                    await run.decisions.Decide(request(agent=f"\n{number}"))
            now = series(metrics.page())
            assert now["sidecar_unanchored_decisions",] == 5
            assert now["sidecar_unanchored_entries",] == run.ledger.position().next_seq > 10

    asyncio.run(main())
