"""A thousand kills at random points under load: no answered decision is missing, every ledger verifies.

SIDECAR_SOAK_KILLS: how many. Half of them hit one growing ledger, half fresh ones. SIDECAR_SOAK_SEED: another run.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.faults.kills import Kills
from tests.faults.load import assert_kept, effects_recorded
from tests.program import made, serving
from tests.soak.figures import tell, wanted

pytestmark = pytest.mark.soak
LOOK_EVERY = 50  # kills of the growing ledger between two verifications
FRESH = 5  # kills of each fresh ledger


def chooser(which: int) -> random.Random:
    return random.Random(2 * wanted("SEED", 1) + which)


def told_of(kills: Kills, verified: int, seconds: float) -> str:
    return (
        f"{kills.count} kills ({kills.under_load} under load, {kills.starting} of a start) in {seconds:.0f} s: "
        f"{len(kills.told.receipts)} decisions answered, 0 missing, {verified} verifications, all without a finding"
    )


def test_kills_of_one_growing_ledger(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    ledger, key = made(tmp_path)
    kills, verified, started = Kills(chooser(0)), 0, time.monotonic()
    with asyncio.Runner() as runner:
        while kills.count < (wanted("KILLS", 1_000) + 1) // 2:
            kills.kill(ledger, runner)
            if kills.count % LOOK_EVERY == 0:
                assert_kept(ledger, key, kills.told)  # as the kill left it
                verified += 1
    with serving(ledger) as server:
        assert server.stop() == 0
    report = assert_kept(ledger, key, kills.told)
    tell(pytestconfig, "one growing ledger: " + told_of(kills, verified + 1, time.monotonic() - started))
    tell(pytestconfig, f"  at the end: {report.entries:,} entries in {report.segments:,} segments")


def test_kills_of_fresh_ledgers(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    left, verified, started = wanted("KILLS", 1_000) // 2, 0, time.monotonic()
    choose = chooser(1)
    whole = Kills(choose)
    with asyncio.Runner() as runner:
        for number in range(-(-left // FRESH)):
            place = tmp_path / str(number)
            place.mkdir()
            ledger, key = made(place)
            kills = Kills(choose)
            for _ in range(min(FRESH, left - whole.count)):
                kills.kill(ledger, runner)
            assert_kept(ledger, key, kills.told)
            verified += 1
            whole.under_load += kills.under_load
            whole.starting += kills.starting
            assert not whole.told.receipts.keys() & kills.told.receipts.keys()
            whole.told.receipts |= kills.told.receipts
            assert len(effects_recorded(ledger)) >= len(kills.told.receipts)
    tell(pytestconfig, f"{verified} fresh ledgers: " + told_of(whole, verified, time.monotonic() - started))
