"""What a sidecar keeps of a log's receipts: only what extends the tree that it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.chain import note
from sidecar.chain.epoch import EpochNote
from sidecar.chain.logged import Logged
from sidecar.chain.rollcall import Roll, Standing
from sidecar.chain.tlog_proof import TlogProof
from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.errors import CollectorRefused
from sidecar.ship import Receipts
from sidecar.ship.link import Proved
from tests.collector.memory import MemoryStorage
from tests.collector.test_log import KEY, ORIGIN, REAL, STORY, VKEY, notes

CHAIN = EpochNote.parse(note.parse(STORY.notes[0]).text).chain_id
ASKED = [note.parse(REAL[0]).text.encode()]


class Log:
    """A log and what it proves of the chain's own note, which is its first entry."""

    def __init__(self, place: Path, name: str) -> None:
        self._log = FleetLog(MemoryStorage(), open_sqlite(place / f"{name}.db"), ORIGIN, KEY)
        (self._own,) = self._log.append(REAL[:1])

    def grow(self, first: int, count: int) -> Log:
        self._log.append(notes(count, first))
        return self

    def call(self, time: int) -> tuple[int, Logged]:
        """Its place, and what it says of the chain: nothing but that there is one."""
        standing = Standing(CHAIN, 0, None, None, None, None, None)
        roll = Roll(ORIGIN, time, [standing])
        (taken,) = self._log.append([roll.call.text().encode()])
        return taken.position, Logged(roll.call, roll.call.text(), roll.answer(0))

    def rolled(self, called: tuple[int, Logged], since: int) -> Proved:
        found = self.proved(since)
        return replace(found, proofs=(), roll_call=self._log.receipt(*called))

    def proved(self, since: int) -> Proved:
        size = self._log.tip.size
        joined = self._log.consistency(since) if 0 < since < size else b""
        return Proved((self._log.receipt(self._own.position, Logged.parse(self._own.entry)),), b"", joined, ())


def kept(place: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in (place / "receipts").iterdir()}


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A directory whose receipts are of trees of 4 and of 6 entries."""
    log, receipts = Log(tmp_path, "log").grow(0, 3), Receipts(tmp_path, VKEY)
    receipts.store(CHAIN, ASKED, log.proved(0))
    receipts.store(CHAIN, ASKED, log.grow(3, 2).proved(4))
    assert receipts.since == 6
    return tmp_path


@pytest.mark.parametrize("again", [False, True], ids=["goes on", "starts again"])
def test_what_extends_it_is_kept(held: Path, again: bool) -> None:
    receipts = Receipts(held, VKEY)
    if again:
        assert receipts.since == 6
    receipts.store(CHAIN, ASKED, Log(held, "same").grow(0, 5).grow(5, 4).proved(6))
    assert receipts.since == 10 and "10.tlog-consistency" in kept(held)


@pytest.mark.parametrize("grown", [5, 9], ids=["to the same size", "beyond"])
def test_a_log_that_was_restored_and_went_another_way_is_refused(held: Path, grown: int) -> None:
    """As of an old copy: the first entries are the same."""
    before, receipts = kept(held), Receipts(held, VKEY)
    other = Log(held, "other").grow(0, 2).grow(100, grown - 2)
    with pytest.raises(CollectorRefused, match="does not extend that of 6"):
        receipts.store(CHAIN, ASKED, other.proved(6))
    assert kept(held) == before and receipts.since == 6


def test_what_a_crash_left_half_written_is_taken_away(held: Path) -> None:
    before = kept(held)
    (held / "receipts" / "seal-0-9.tlog-proof.new").write_bytes(b"c2sp.org/tlog-pr")
    assert Receipts(held, VKEY).since == 6 and kept(held) == before


def test_a_smaller_tree_is_nothing_new(held: Path) -> None:
    before, receipts = kept(held), Receipts(held, VKEY)
    receipts.store(CHAIN, ASKED, Log(held, "old").grow(0, 2).proved(0))
    assert kept(held) == before and receipts.since == 6


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: b""], ids=["cut", "emptied"])
def test_a_damaged_file_is_not_what_it_goes_by(held: Path, damage: Callable[[bytes], bytes]) -> None:
    """The newest that can be read is; the log has to extend that one."""
    for each in (held / "receipts").glob("*6.*"):
        each.write_bytes(damage(each.read_bytes()))
    receipts = Receipts(held, VKEY)
    assert receipts.since == 4
    with pytest.raises(CollectorRefused, match="does not extend that of 4"):
        receipts.store(CHAIN, ASKED, Log(held, "other").grow(50, 8).proved(4))


def test_a_receipt_of_another_entry_than_was_asked_for_is_refused(held: Path) -> None:
    """Of the same chain and log: such as of the seal that another one took the place of when a loss was accepted."""
    before, receipts, log = kept(held), Receipts(held, VKEY), Log(held, "same").grow(0, 5).grow(5, 4)
    other, good = note.parse(REAL[1]).text.encode(), log.proved(6)
    swapped = replace(good, proofs=(b"", *good.proofs)), replace(good, proofs=(), roll_call=good.proofs[0])
    for asked, proved in [([], good), ([other], good), ([*ASKED, other], swapped[0]), (ASKED, swapped[1])]:
        with pytest.raises(CollectorRefused, match="MALFORMED"):
            receipts.store(CHAIN, asked, proved)
    assert kept(held) == before and receipts.since == 6


@pytest.mark.parametrize("again", [False, True], ids=["goes on", "starts again"])
def test_an_older_roll_call_does_not_take_the_place_of_a_newer(tmp_path: Path, again: bool) -> None:
    """Two collectors of one log each prove the roll-call that they called."""
    log, receipts = Log(tmp_path, "log"), Receipts(tmp_path, VKEY)
    old, new = log.call(1), log.call(2)
    receipts.store(CHAIN, [], log.rolled(new, 0))
    newest = kept(tmp_path)["roll-call.tlog-proof"]
    receipts = Receipts(tmp_path, VKEY) if again else receipts
    known = receipts.since
    log.grow(0, 1)
    assert receipts.store(CHAIN, [], log.rolled(old, known))
    assert kept(tmp_path)["roll-call.tlog-proof"] == newest
    newer = log.call(3)
    receipts.store(CHAIN, [], log.rolled(newer, receipts.since))
    assert Logged.parse(TlogProof.parse(kept(tmp_path)["roll-call.tlog-proof"]).extra or b"").entry == newer[1].entry
