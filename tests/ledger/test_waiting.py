"""Which decisions wait for approvals: written with them, ended with what ends them, and never believed alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time, wall_ns_of
from sidecar.errors import LedgerDamaged, LedgerError, Malformed
from sidecar.ledger import Draft, Ledger
from sidecar.ledger.batch import Batch
from sidecar.ledger.store import LmdbStore
from tests.ledger.test_faults import FAULTS, faulty
from tests.ledger.worlds import PATIENCE, SECOND, World, decision, decision_id
from tests.scribe import principal


def waits(world: World, n: int, seconds: int = 60) -> Draft:
    draft = decision(n, effect="REQUIRE_APPROVAL")
    expires = policy_time(world.clock.now().wall_ns + seconds * SECOND)
    terms = {"count": 1, "roles": [], "expires": expires}
    return dataclasses.replace(draft, payload={**draft.payload, "terms": terms})


def asked_again(n: int, of: int, seq: int, effect: str) -> Draft:
    draft = decision(n, effect=effect)
    approval = {"decision_id": decision_id(of), "decision_seq": seq, "approvals": []}
    return dataclasses.replace(draft, payload={**draft.payload, "approval": approval}, ref_seq=seq)


def says(n: int, seq: int, verdict: str) -> Draft:
    payload: dict[str, Any] = {
        "type": "APPROVAL", "decision_id": decision_id(n), "decision_seq": seq,
        "agent": {"id": "invoices", "proof": "asserted"}, "by": principal("ann", "asserted"), "verdict": verdict,
        "action_digest": "ab" * 32, "arguments_digest": "cd" * 32, "comment": "",
        "policy": {"revision": "r1", "bundle_digest": ""},
    }  # fmt: skip
    return Draft(EntryType.APPROVAL, payload, ref_seq=seq)


def write(ledger: Ledger, *drafts: Draft) -> list[int]:
    return [ledger.append(draft).result(PATIENCE).seq for draft in drafts]


def test_a_decision_waits_until_it_is_settled_also_over_a_restart_and_a_crash(world: World) -> None:
    ledger = world.open()
    seqs = write(ledger, *(waits(world, n, 60 - n) for n in range(1, 6)), decision(6))
    assert ledger.waiting(10) == seqs[4::-1]  # the first to expire comes first
    assert ledger.waiting(2) == [seqs[4], seqs[3]]
    one, two, three, four, five = seqs[:5]
    write(ledger, says(1, one, "approve"), says(2, two, "reject"))
    write(ledger, asked_again(7, 3, three, "ALLOW"), asked_again(8, 4, four, "DENY"))
    assert ledger.waiting(10) == [five, four, one]
    crashed = world.snapshot("crashed")
    ledger.close()
    for left in (world, crashed):
        ledger = left.open()
        assert ledger.waiting(10) == [five, four, one]
        ledger.close()


def test_a_wait_is_over_when_it_expires_and_is_forgotten(world: World) -> None:
    ledger, store = world.open_counted()
    (seq,) = write(ledger, waits(world, 1))
    world.clock.move(60 * SECOND - 1)
    assert ledger.waiting(10) == [seq]
    world.clock.move(2)
    assert ledger.waiting(10) == []
    assert store.inner.waiting(0, 10) == [seq]
    (later,) = write(ledger, waits(world, 2))
    assert store.inner.waiting(0, 10) == [later]
    ledger.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wait_ends_exactly_where_the_entry_that_ends_it_is(world: World, fault: str) -> None:
    ledger = world.open(faulty(2, fault))
    (seq,) = write(ledger, waits(world, 1))
    with pytest.raises(LedgerError, match="input/output"):
        ledger.append(asked_again(2, 1, seq, "ALLOW")).result(PATIENCE)
    ledger.close()
    ledger = world.open()
    assert ledger.waiting(10) == ([seq] if fault == "failed" else [])
    ledger.close()


def test_a_row_of_another_shape_is_found(world: World) -> None:
    store = LmdbStore.open(world.directory, world.options.max_bytes)
    batch = Batch()
    batch.waits.append(b"\xff" * 15)
    store.commit(batch)
    store.close()
    ledger = world.open()
    with pytest.raises(LedgerDamaged):
        ledger.waiting(10)
    ledger.close()


def test_times_are_read_as_they_are_written() -> None:
    for ns in (0, 1, 1_795_000_000_123_456_789, 253_402_300_799_999_999_999):
        assert wall_ns_of(policy_time(ns)) == ns
    with pytest.raises(Malformed):
        wall_ns_of("2026-02-30T00:00:00.000000000Z")


def test_a_wait_until_no_day_is_not_written(world: World) -> None:
    ledger, draft = world.open(), waits(world, 1)
    draft.payload["terms"]["expires"] = "2026-02-30T00:00:00.000000000Z"
    with pytest.raises(Malformed, match="proper DECISION"):
        ledger.append(draft).result(PATIENCE)
    ledger.close()
