"""Which entries refer to an entry: written with them, there after a restart and a crash, and never believed alone."""

from __future__ import annotations

import lmdb
import pytest

from sidecar.chain.entry import EntryType
from sidecar.errors import LedgerDamaged, LedgerError
from sidecar.ledger import Ledger
from sidecar.ledger.batch import Batch, about_key
from sidecar.ledger.look import FILE
from sidecar.ledger.store import LmdbStore
from sidecar.verify import Verdict
from tests.ledger.test_faults import FAULTS, faulty
from tests.ledger.worlds import PATIENCE, World, decision, outcome, refused


def write(ledger: Ledger, *numbers: int) -> list[int]:
    return [ledger.append(decision(n)).result(PATIENCE).seq for n in numbers]


def poison(world: World, batch: Batch) -> None:
    store = LmdbStore.open(world.directory, world.options.max_bytes)
    store.commit(batch)
    store.close()


def test_what_refers_to_an_entry_is_found_also_after_a_restart_and_a_crash(world: World) -> None:
    ledger = world.open()
    first, second = write(ledger, 1, 2)
    assert ledger.about(first) == [] == ledger.about(2**64 - 2)
    told = [ledger.append(outcome(n, seq)).result(PATIENCE).seq for n, seq in ((2, second), (1, first), (2, second))]
    ledger.append(refused()).result(PATIENCE)
    expected = {first: [(told[1], EntryType.OUTCOME)], second: [(seq, EntryType.OUTCOME) for seq in (told[0], told[2])]}
    assert {seq: ledger.about(seq) for seq in (first, second)} == expected
    crashed = world.snapshot("crashed")
    ledger.close()
    for left in (world, crashed):
        ledger = left.open()
        assert {seq: ledger.about(seq) for seq in (first, second)} == expected
        ledger.close()
        bad = [f.seq for f in left.verify().findings if f.verdict is not Verdict.UNANCHORED]
        assert bad == [told[2]]  # a second outcome, which no sidecar writes


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reference_is_there_exactly_where_its_entry_is(world: World, fault: str) -> None:
    ledger = world.open(faulty(2, fault))
    (seq,) = write(ledger, 1)
    with pytest.raises(LedgerError, match="input/output"):
        ledger.append(outcome(1, seq)).result(PATIENCE)
    ledger.close()
    ledger = world.open()
    assert ledger.about(seq) == ([] if fault == "failed" else [(seq + 1, EntryType.OUTCOME)])
    ledger.close()


def test_a_poisoned_index_of_references_does_not_mislead(world: World) -> None:
    ledger = world.open()
    seqs = write(ledger, 1, 2, 3, 4)
    told = ledger.append(outcome(1, seqs[0])).result(PATIENCE).seq
    ledger.close()
    batch = Batch()
    batch.about(seqs[1], told, EntryType.OUTCOME)  # it refers to another
    batch.about(seqs[2], 999, EntryType.OUTCOME)  # there is none
    batch.about(seqs[0], seqs[3], EntryType.DECISION)  # it refers to none
    batch.abouts.append((seqs[3].to_bytes(8, "big") + told.to_bytes(8, "big"), b""))
    poison(world, batch)
    ledger = world.open()
    for seq in seqs:
        with pytest.raises(LedgerDamaged, match="index of references"):
            ledger.about(seq)
    ledger.close()
    world.assert_verifies()  # an aid: nothing that was recorded changed


def test_a_reference_of_another_type_than_its_entry_is_not_believed(world: World) -> None:
    ledger = world.open()
    (seq,) = write(ledger, 1)
    told = ledger.append(outcome(1, seq)).result(PATIENCE).seq
    ledger.close()
    with lmdb.open(str(world.directory / FILE), subdir=False, max_dbs=1) as environment:
        about = environment.open_db(b"about", create=False)
        with environment.begin(write=True) as txn:
            txn.put(about_key(seq, told), bytes((EntryType.DECISION,)), db=about)
    ledger = world.open()
    with pytest.raises(LedgerDamaged, match="index of references"):
        ledger.about(seq)
    ledger.close()
