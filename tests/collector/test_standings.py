"""A chain's line in the index that was lowered, taken away, changed or exaggerated: no roll-call says less for it, and
`sidecar collector verify` finds it.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import note
from sidecar.chain.merkle import leaf_hash
from sidecar.chain.parcel import unpack
from sidecar.chain.rollcall import Standing
from sidecar.chain.stream import Kind
from sidecar.collector.index import open_sqlite
from sidecar.collector.index.sql import SqlIndex
from sidecar.collector.standings import Standings
from sidecar.errors import StorageError
from sidecar.verify import Evidence, parse_trust
from sidecar.verify.trust import Trust
from tests.collecting import collecting
from tests.collector.test_ingest import Sender, rolled, two
from tests.collector.test_shipping import until
from tests.collector.test_shipping_vectors import CHAIN, KEYS, STEPS, TOKEN, Clocked, load
from tests.program import sidecar
from tests.scribe import Record, judge, secret

TRUE = Standing(secret("chain"), 3, 7, secret("seal"), 90, secret("leaf"), 5)
OTHER = secret("other")
POISONED = {
    "lowered": dataclasses.replace(TRUE, sealed=5, seal=OTHER, seq=60, leaf=OTHER),
    "emptied": Standing(TRUE.chain_id, 0, None, None, None, None, None),
    "another seal": dataclasses.replace(TRUE, seal=OTHER),
    "another leaf": dataclasses.replace(TRUE, leaf=OTHER),
    "an earlier epoch": dataclasses.replace(TRUE, epoch=2),
}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqlIndex]:
    with closing(open_sqlite(tmp_path / "index.db")) as made:
        yield made


@pytest.mark.parametrize("line", POISONED.values(), ids=list(POISONED))
@pytest.mark.parametrize("when", ["while it runs", "before it starts"])
def test_the_roll_never_says_less(index: SqlIndex, line: Standing, when: str) -> None:
    running = Standings(index)
    running.raise_to(TRUE)
    assert running.all() == [TRUE] and running.mended == 0
    found = index.standing(TRUE.chain_id)
    assert found is not None and index.stand(line, found[1])
    standings = running if when == "while it runs" else Standings(index, [TRUE])
    assert standings.all() == [TRUE] and standings.mended == 1
    assert list(index.standings()) == [TRUE]


def test_a_line_that_is_gone_comes_back(index: SqlIndex) -> None:
    standings = Standings(index)
    standings.raise_to(TRUE)
    index.clear()
    assert standings.all() == [TRUE] == list(index.standings())


def test_a_line_that_could_not_be_written_is_called_all_the_same(index: SqlIndex, tmp_path: Path) -> None:
    broken = _Fails(index)
    standings = Standings(broken)  # type: ignore[arg-type]
    broken.fails = True
    with pytest.raises(StorageError):
        standings.raise_to(TRUE)
    broken.fails = False
    assert standings.all() == [TRUE] == list(index.standings())


class _Fails:
    """An index that may be out of reach where a chain's line is asked for."""

    def __init__(self, index: SqlIndex) -> None:
        self._index, self.fails = index, False

    def standing(self, chain_id: bytes) -> tuple[Standing, int] | None:
        if self.fails:
            raise StorageError("out of reach")
        return self._index.standing(chain_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


def test_a_parcel_that_was_durable_when_the_index_failed_is_logged_and_called(tmp_path: Path) -> None:
    """The sidecar is told nothing, sends it again, and is told that it is held: so it must be in log and roll-call."""
    collector = Clocked(tmp_path, roll_seconds=0.01, index=_Fails)
    try:
        collector.ingest.enrol(load("genesis.json"), TOKEN, bytes.fromhex(KEYS["enrolment"]), "")
        parcel, signature = load("first.parcel"), bytes.fromhex(STEPS[0]["signature"])
        collector.index.fails = True
        with pytest.raises(StorageError):
            collector.ingest.ship(CHAIN, parcel, signature, "")
        collector.index.fails = False
        assert collector.ingest.ship(CHAIN, parcel, signature, "").acknowledgement == load("first.ack")
        notes = [note.parse(body).text for kind, body in unpack(parcel) if kind in (Kind.EPOCH, Kind.SEAL)]
        leaves = [leaf_hash(text.encode()) for text in notes]
        until(lambda: len(collector.index.positions(leaves)) == len(leaves) == 2)
        until(lambda: called(collector) == (0, STEPS[0]["seq"] - 1))
    finally:
        collector.close()


def called(collector: Clocked) -> tuple[int | None, int | None] | None:
    """The last seal and entry that the roll-call names."""
    found = collector.sequencer.roll_call(CHAIN, collector.log.tip.size)
    if found is None or found[1].answer is None:
        return None
    return found[1].answer.standing.sealed, found[1].answer.standing.seq


def poison(place: Path, chain_id: bytes, statement: str, line: str = "") -> None:
    with closing(sqlite3.connect(place / "index.db", timeout=60)) as index, index:
        values = (line, chain_id) if line else (chain_id,)
        assert index.execute(statement, values).rowcount == 1


SET, DELETE = "UPDATE chain SET line = ? WHERE chain = ?", "DELETE FROM chain WHERE chain = ?"


def test_attack_8_with_a_poisoned_index_an_old_copy_is_still_seen_as_old(tmp_path: Path) -> None:
    """INCOMPLETE at the entry that the collector acknowledged last, whatever became of the index meanwhile."""
    whole, shorter = two("poisoned")
    shorter.head()
    for _ in range(2):
        whole.decision()
    whole.head()
    place, chain = tmp_path / "collector", whole.chain_id
    less = Standing(chain, 0, 0, secret("a seal"), 1, secret("a leaf"), 1).line()
    more = Standing(chain, 0, 0, secret("a seal"), 10**9, secret("a leaf"), 1).line()
    with collecting(place) as collector:
        sender = Sender(whole, collector)
        sender.ship(whole.records)
        rolled(sender)
        trust = parse_trust(sidecar("collector", "trust", "--data-dir", place, "--dev").stdout.encode())
        for how in ((SET, less), (DELETE,)):
            poison(place, chain, *how)
            assert_old(sender, shorter.records, whole.seq - 1, trust)
        with urllib.request.urlopen(f"{collector.url}/metrics", timeout=20) as page:
            assert b"\ncollector_index_mended_total 0\n" not in page.read()
        assert collector.stop() == 0
    poison(place, chain, SET, more)
    assert f"chain {chain.hex()}: the index claims more of it than is held" in verified(place)
    poison(place, chain, SET, less)
    assert f"the index says less, or another thing, of chain {chain.hex()}" in verified(place)
    with collecting(place) as collector:
        assert_old(Sender(whole, collector), shorter.records, whole.seq - 1, trust)
        assert collector.stop() == 0
    assert "WRONG" not in verified(place)


def assert_old(sender: Sender, records: Sequence[Record], seq: int, trust: Trust) -> None:
    """What is left of the ledger is not whole, says the next roll-call."""
    first = rolled(sender)
    while (receipt := rolled(sender)) == first:
        pass
    report = judge(records, Evidence(trust=trust, logged=[receipt]))
    bad = report.first_bad()
    assert bad is not None and (report.verdict.name, bad.seq) == ("INCOMPLETE", seq), report.findings


def verified(place: Path) -> str:
    return sidecar("collector", "verify", "--data-dir", place, "--dev", "--workers", "1").stdout
