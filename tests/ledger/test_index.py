"""The index of decisions: its rows come late, and nobody who asks the ledger sees that (proto/LEDGER.md, "LMDB")."""

from __future__ import annotations

import pytest

from sidecar.chain.stream import Kind
from sidecar.errors import LedgerError
from sidecar.ledger.batch import LATE, Batch
from sidecar.ledger.store import LmdbStore
from tests.ledger.test_faults import FAULTS, faulty
from tests.ledger.worlds import PATIENCE, SECOND, World, decision, decision_id, indexed, loaded, refused


def test_rows_are_written_together_and_a_seal_leaves_none_out(world: World) -> None:
    ledger, store = world.open_counted()
    rows = []
    for n in range(LATE + 2):
        seq = ledger.append(decision(n)).result(PATIENCE).seq
        assert ledger.find(decision_id(n)) == seq
        rows.append(len(indexed(world)))
    assert rows == [0] * (LATE - 1) + [LATE] * 3
    before = len(store.batches)
    world.clock.move(60 * SECOND)
    store.wait_for_commits(before + 1)
    assert len(indexed(world)) == LATE + 2
    ledger.append(decision(1000)).result(PATIENCE)
    assert len(indexed(world)) == LATE + 2
    ledger.close()
    assert len(indexed(world)) == LATE + 3


def test_a_start_after_a_crash_writes_the_last_rows_again_and_no_others(world: World) -> None:
    """Of as many decisions as may lack one, whatever comes between them."""
    ledger = world.open()
    seqs = {}
    for n in range(LATE - 1):
        seqs[n] = ledger.append(decision(n)).result(PATIENCE).seq
        ledger.append(refused()).result(PATIENCE)
    ledger.append(loaded()).result(PATIENCE)
    left = world.snapshot("crashed")
    ledger.close()
    assert not indexed(left)
    again = left.open()
    assert len(indexed(left)) == LATE - 1  # in the commit that has the recovery seal
    assert {n: again.find(decision_id(n)) for n in seqs} == seqs
    again.close()
    left.assert_verifies()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", [LATE - 1, LATE, LATE + 1])
def test_a_commit_with_the_rows_that_fails(world: World, nth: int, fault: str) -> None:
    ledger = world.open(faulty(nth, fault))
    seqs = [ledger.append(decision(n)).result(PATIENCE).seq for n in range(nth - 1)]
    with pytest.raises(LedgerError, match="input/output"):
        ledger.append(decision(nth - 1)).result(PATIENCE)
    assert [ledger.find(decision_id(n)) for n in range(nth - 1)] == seqs  # also of a ledger that has failed
    ledger.close()
    again = world.open()
    assert [again.find(decision_id(n)) for n in range(nth - 1)] == seqs
    assert (again.find(decision_id(nth - 1)) is None) == (fault == "failed")
    again.close()
    world.assert_verifies()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_recovery_that_fails_leaves_nothing_out(world: World, fault: str) -> None:
    ledger = world.open()
    seq = ledger.append(decision(1)).result(PATIENCE).seq
    left = world.snapshot("crashed")
    ledger.close()
    with pytest.raises(LedgerError, match="input/output"):
        left.open(faulty(0, fault))
    assert len(indexed(left)) == (fault != "failed")
    again = left.open()
    assert again.find(decision_id(1)) == seq
    again.close()
    left.assert_verifies()


def test_rewriting_keeps_head_and_rows(world: World) -> None:
    ledger = world.open()
    ledger.append(decision(1)).result(PATIENCE)
    left = world.snapshot("crashed")
    ledger.close()
    store = LmdbStore.open(left.directory, left.options.max_bytes)
    store.rewrite(left.directory / "beside")
    store.close()
    before = left.kinds()
    assert before[-1] is Kind.HEAD
    (left.directory / "beside").replace(left.directory / "ledger.mdb")
    assert left.kinds() == before
    again = left.open()
    assert again.find(decision_id(1)) == 4
    again.close()
    left.assert_verifies()


def test_a_row_that_is_there_already_is_left_alone(world: World) -> None:
    store = LmdbStore.open(world.directory, world.options.max_bytes)
    for place in (1, 2):
        batch = Batch(sealed=place == 2)
        batch.decision(bytes(16), place)
        store.commit(batch)
        assert store.find(bytes(16)) == 1
    store.close()
