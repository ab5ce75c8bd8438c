"""Messages between sidecar and collector lost, repeated, reordered, answered late: all arrives, once, in order."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from sidecar.chain.seeds import Custody
from sidecar.errors import CollectorRefused, CollectorUnavailable, LedgerError
from sidecar.ship import Backlog, Bounds, Receipts
from sidecar.ship.link import Proved, Where
from sidecar.ship.shipper import Shipper
from tests.collector.test_log import VKEY
from tests.fuzz.test_fuzz_collector import Collector
from tests.ledger.worlds import World, decision
from tests.scribe import custodian


class Lossy:
    """A link to a collector in this process that loses, repeats and reorders as chance has it."""

    def __init__(self, collector: Collector, chooser: random.Random) -> None:
        self._collector, self._chooser = collector, chooser
        self.sent: list[tuple[bytes, bytes, bytes]] = []
        self.lost = self.defects = 0
        self.calm = False

    def enrol(self, genesis: bytes, token: bytes, signature: bytes) -> None:
        self._collector.ingest.enrol(genesis, token, signature, "")
        self._maybe_lose()

    def where(self, chain_id: bytes) -> Where:
        self._maybe_lose()
        found = self._collector.ingest.where(chain_id, "")
        return Where(found.acknowledgement, found.segment, found.seq)

    def ship(self, chain_id: bytes, parcel: bytes, signature: bytes) -> Where:
        self._maybe_lose()
        self.sent.append((chain_id, parcel, signature))
        if not self.calm and self._chooser.random() < 0.3:  # an older one arrives once more, before or after
            self._collector.ingest.ship(*self._chooser.choice(self.sent), "")
        try:
            found = self._collector.ingest.ship(chain_id, parcel, signature, "")
        except CollectorRefused as refusal:
            assert refusal.code == "GAP"
            found = self._collector.ingest.where(chain_id, "")
        self._maybe_lose()
        return Where(found.acknowledgement, found.segment, found.seq)

    def receipts(self, chain_id: bytes, entries: list[bytes], since: int) -> Proved:
        self._maybe_lose()
        found = self._collector.proofs.of(chain_id, entries, since)
        return Proved(tuple(found.proofs), found.roll_call, found.consistency, found.timestamps)

    def close(self) -> None:
        pass

    def _maybe_lose(self) -> None:
        chance = 1.0 if self.calm else self._chooser.random()
        if chance < 0.2:
            self.lost += 1
            raise CollectorUnavailable("lost")
        if chance < 0.27:
            self.defects += 1
            raise RuntimeError("a defect")


@pytest.mark.parametrize("seed", [1, 2])
def test_all_arrives_once_and_in_order(tmp_path: Path, seed: int) -> None:
    (tmp_path / "collector").mkdir()
    collector, chooser = Collector(tmp_path / "collector"), random.Random(seed)
    world = World(tmp_path / "ledger", Custody("any", (custodian("lossy", 0),)))
    world.create()
    ledger = world.open()
    failures: list[LedgerError] = []
    link = Lossy(collector, chooser)
    backlog = Backlog(lambda: (ledger.position().next_seq, ledger.position().written), Bounds())
    receipts = Receipts(tmp_path / "ledger", VKEY)
    shipper = Shipper(
        ledger.book(),
        ledger.left,
        link,
        VKEY,
        receipts,
        backlog,
        lambda: b"",
        period=0.002,
        roll_seconds=0.01,
        on_failure=failures.append,
    )
    try:
        for number in range(120):
            ledger.append(decision(number)).result(60)
            if number % 25 == 0:
                world.clock.move(61 * 10**9)
        end = time.monotonic() + 60
        while (link.lost < 8 or link.defects < 1 or backlog.acknowledged < 40) and time.monotonic() < end:
            time.sleep(0.005)
    finally:
        shipper.close()
        link.calm = True
        ledger.end()
    assert shipper.finish(60)
    found = collector.ingest.where(ledger.left.chain_id, "")
    assert (found.segment, found.seq) == (ledger.position().segment + 1, ledger.position().next_seq)
    assert backlog.entries == 0 and failures == []
    assert collector.index.alarms() == []
    assert receipts.anchored == ledger.position().segment
    ledger.close()
    collector.sequencer.close()
    collector.index.close()
