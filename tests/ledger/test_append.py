"""Recording: one entry, many entries, refused entries; looking up and proving what was recorded."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import pytest

from sidecar.chain import lines, note
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.head import Head
from sidecar.chain.merkle import leaf_hash, verify_inclusion
from sidecar.chain.seal import Seal
from sidecar.errors import LedgerDamaged, LedgerError, Malformed, NotFound, WrongState
from sidecar.ledger import Draft
from sidecar.ledger.batch import Batch, NoteKind
from sidecar.ledger.store import LmdbStore
from tests.ledger.worlds import PATIENCE, World, decision, decision_id, loaded, outcome, refused


def test_what_is_recorded_is_found_proved_and_verified(world: World) -> None:
    ledger = world.open()
    recorded = ledger.append(decision(1)).result(PATIENCE)
    assert ledger.find(decision_id(1)) == recorded.seq == ledger.decision(decision_id(1)).seq
    entry = ledger.entry(recorded.seq)
    assert leaf_hash(entry.header + entry.tag) == recorded.leaf
    assert ledger.payload(recorded.seq) == decision(1).payload
    assert (entry.seq, entry.segment) == (recorded.seq, recorded.segment)
    ledger.close()

    ledger = world.open()
    proof = ledger.prove(recorded.seq)
    seal = Seal.parse(note.parse(proof.seal).text)
    verify_inclusion(proof.index, seal.count, recorded.leaf, proof.path, seal.root)
    assert proof.leaf_input == entry.header + entry.tag
    ledger.close()
    world.assert_verifies([recorded.receipt])


def test_a_receipt_names_its_own_entry_and_decision_also_within_a_group(world: World) -> None:
    ledger, store = world.open_counted()
    store.gate.clear()
    first = ledger.append(refused())
    assert store.arrived.acquire(timeout=PATIENCE)  # the first is being committed: the next three become one group
    futures = [ledger.append(d) for d in (decision(1), refused(), decision(2, effect="DENY", agent="payroll"))]
    store.gate.set()
    recorded = [f.result(PATIENCE) for f in (first, *futures)]
    ledger.close()

    key = _first_key(world)
    chain_id = ledger.position().chain_id
    heads = [Head.parse(note.verify_single(r.receipt, lines.segment_name(chain_id, r.segment), key)) for r in recorded]
    assert [(h.seq, h.leaf) for h in heads] == [(r.seq, r.leaf) for r in recorded]
    said = [None if h.decided is None else (h.decided.decision_id, h.decided.effect, h.decided.request) for h in heads]
    payloads = (decision(1).payload, decision(2, effect="DENY", agent="payroll").payload)
    one, two = ((p["decision_id"], p["effect"], bytes.fromhex(p["request_digest"])) for p in payloads)
    assert said == [None, one, None, two]
    assert len(store.batches[1].entries) == 3  # one commit for the group
    world.assert_verifies([r.receipt for r in recorded])


def test_answers_leave_only_after_the_commit_returned(world: World) -> None:
    ledger, store = world.open_counted()
    store.gate.clear()
    future = ledger.append(refused())
    assert store.arrived.acquire(timeout=PATIENCE)
    before = ledger.position()
    assert not future.done() and before.next_seq == 4
    store.gate.set()
    assert future.result(PATIENCE).seq == 4
    assert ledger.position().next_seq == 5
    ledger.close()


def test_an_outcome_refers_to_its_decision(world: World) -> None:
    ledger = world.open()
    seq = ledger.append(decision(1, agent="payroll")).result(PATIENCE).seq
    other = ledger.append(refused()).result(PATIENCE).seq
    for bad in (
        outcome(1, other),
        outcome(2, seq),
        outcome(1, seq + 50),
        dataclasses.replace(outcome(1, seq), ref_seq=other),
        dataclasses.replace(outcome(1, seq), ref_seq=2**64 - 1),
    ):
        with pytest.raises(Malformed):
            ledger.append(bad).result(PATIENCE)
    told = ledger.append(outcome(1, seq, agent="payroll")).result(PATIENCE)
    assert Header.decode(ledger.entry(told.seq).header).ref_seq == seq
    ledger.close()
    world.assert_verifies()


def _bad_drafts() -> list[tuple[str, Draft]]:
    good, deep = decision(1), {}
    for _ in range(63):
        deep = {"a": deep}
    return [
        ("own type", Draft(EntryType.CLOSE, {"type": "CLOSE", "reason": "shutdown"})),
        ("reserved type", Draft(EntryType.APPROVAL, {"type": "APPROVAL"})),
        ("another type's payload", Draft(EntryType.POLICY, refused().payload)),
        ("missing member", Draft(EntryType.REJECTED, {"type": "REJECTED"})),
        ("beyond JSON", dataclasses.replace(good, payload={**good.payload, "result": {1: 2}})),
        ("beyond integers", dataclasses.replace(good, payload={**good.payload, "result": 2**60})),
        ("noncharacter", dataclasses.replace(good, payload={**good.payload, "peer": "\ufdd0"})),
        ("surrogate", dataclasses.replace(good, payload={**good.payload, "peer": "\ud800"})),
        ("too deep", dataclasses.replace(good, payload={**good.payload, "result": deep})),
        ("no list", dataclasses.replace(good, payload={**good.payload, "reasons": ()})),
        ("broken arguments", decision(1, arguments='{"a":1,"a":2}')),
        ("broken arguments, others read", dataclasses.replace(decision(1, arguments='{"a":1,"a":2}'), read=(b"{}",))),
        ("too long", dataclasses.replace(good, payload={**good.payload, "peer": "x" * (8 << 20)})),
        ("a refusal with a reference", dataclasses.replace(refused(), ref_seq=0)),
    ]


@pytest.mark.parametrize(("what", "draft"), _bad_drafts(), ids=[w for w, _ in _bad_drafts()])
def test_what_the_verifier_would_refuse_is_not_written(world: World, what: str, draft: Draft) -> None:
    ledger = world.open()
    before = ledger.position()
    with pytest.raises(Malformed):
        ledger.append(draft).result(PATIENCE)
    with pytest.raises(Malformed):
        asyncio.run(ledger.record(draft))
    assert ledger.position() == before
    assert ledger.append(refused()).result(PATIENCE).seq == before.next_seq  # and the ledger lives
    ledger.close()
    world.assert_verifies()


def test_a_draft_is_taken_as_it_was_when_handed_over(world: World) -> None:
    ledger, store = world.open_counted()
    store.gate.clear()
    draft = decision(1)
    future = ledger.append(draft)
    draft.payload["effect"] = "DENY"
    store.gate.set()
    assert ledger.payload(future.result(PATIENCE).seq)["effect"] == "ALLOW"
    ledger.close()
    world.assert_verifies()


def test_many_callers_from_one_loop(world: World) -> None:
    ledger = world.open()

    async def all_at_once() -> list[int]:
        return [r.seq for r in await asyncio.gather(*(ledger.record(decision(n)) for n in range(300)))]

    assert sorted(asyncio.run(all_at_once())) == list(range(4, 304))
    ledger.close()
    world.assert_verifies()


def test_a_cancelled_caller_leaves_a_whole_entry(world: World) -> None:
    ledger, store = world.open_counted()
    store.gate.clear()

    async def give_up() -> None:
        task = asyncio.create_task(ledger.record(decision(1)))
        await asyncio.to_thread(store.arrived.acquire, timeout=PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.gate.set()
        assert (await ledger.record(decision(2))).seq == 5

    asyncio.run(give_up())
    assert ledger.find(decision_id(1)) == 4
    ledger.close()
    world.assert_verifies()


def test_a_caller_whose_loop_is_gone_harms_nobody(world: World) -> None:
    ledger, store = world.open_counted()
    store.gate.clear()
    loop = asyncio.new_event_loop()
    task = loop.create_task(ledger.record(decision(1)))
    loop.run_until_complete(asyncio.sleep(0))
    assert store.arrived.acquire(timeout=PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    store.gate.set()
    assert ledger.append(refused()).result(PATIENCE).seq == 5
    ledger.close()
    world.assert_verifies()


def test_a_future_that_is_under_way_cannot_be_cancelled(world: World) -> None:
    ledger, store = world.open_counted()
    store.gate.clear()
    future = ledger.append(refused())
    assert not future.cancel()
    store.gate.set()
    assert future.result(PATIENCE).seq == 4
    ledger.close()


def test_a_full_queue_refuses_and_recovers(world: World) -> None:
    ledger, store = world.open_counted(options=dataclasses.replace(world.options, queue_limit=3))
    store.gate.clear()
    futures = [ledger.append(refused())]
    assert store.arrived.acquire(timeout=PATIENCE)
    futures += [ledger.append(refused()) for _ in range(3)]
    assert ledger.usage().queue_depth == 3
    with pytest.raises(LedgerError, match="cannot keep up"):
        ledger.append(refused()).result(PATIENCE)
    store.gate.set()
    assert [f.result(PATIENCE).seq for f in futures] == [4, 5, 6, 7]
    assert ledger.append(refused()).result(PATIENCE).seq == 8
    ledger.close()
    world.assert_verifies()


def test_closing_writes_what_waits_and_happens_once(world: World) -> None:
    ledger, store = world.open_counted()
    store.gate.clear()
    futures = [ledger.append(decision(n)) for n in range(5)]
    threads = [threading.Thread(target=ledger.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    store.gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [f.result(0).seq for f in futures] == [4, 5, 6, 7, 8]
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.append(refused()).result(PATIENCE)
    with pytest.raises(LedgerError, match="closed"):
        asyncio.run(ledger.record(refused()))
    assert world.failures == []
    world.assert_verifies()


def test_what_is_not_there_or_not_sealed(world: World) -> None:
    ledger = world.open()
    seq = ledger.append(loaded()).result(PATIENCE).seq
    for absent in (seq + 1, 2**64 - 1, 2**70, -1):
        with pytest.raises(NotFound):
            ledger.entry(absent)
        with pytest.raises(NotFound):
            ledger.prove(absent)
    with pytest.raises(WrongState, match="not sealed"):
        ledger.prove(seq)
    for unknown in (decision_id(9), "no id", decision_id(9).upper(), ""):
        assert ledger.find(unknown) is None
        with pytest.raises(NotFound):
            ledger.decision(unknown)
    ledger.close()


def test_a_poisoned_index_does_not_mislead(world: World) -> None:
    ledger = world.open()
    seqs = [ledger.append(decision(n)).result(PATIENCE).seq for n in range(2)]
    ledger.close()
    store = LmdbStore.open(world.directory, world.options.max_bytes)
    poison = Batch(sealed=True)
    poison.decision(bytes.fromhex(decision_id(7).replace("-", "")), seqs[0])
    poison.decision(bytes.fromhex(decision_id(8).replace("-", "")), 999)
    store.commit(poison)
    store.close()
    ledger = world.open()
    for n in (7, 8):
        with pytest.raises(LedgerDamaged, match="index"):
            ledger.find(decision_id(n))
    assert ledger.find(decision_id(1)) == seqs[1]
    ledger.close()


def test_usage_tells_how_far_it_is(world: World) -> None:
    ledger = world.open()
    before = ledger.usage()
    ledger.append(decision(1, arguments='{"a":"' + "y" * 100_000 + '"}')).result(PATIENCE)
    after = ledger.usage()
    assert (after.entries, after.segment, after.queue_depth) == (before.entries + 1, 1, 0)
    assert after.bytes_limit == world.options.max_bytes and after.bytes_used >= before.bytes_used
    ledger.check_writable()
    ledger.close()


def test_a_disk_that_takes_nothing_is_not_writable(world: World) -> None:
    """It hangs: nothing has failed, and nothing will be answered."""
    ledger, store = world.open_counted()
    store.gate.clear()
    waits = ledger.append(decision(1))
    assert store.arrived.acquire(timeout=PATIENCE)
    world.clock.move(5 * 10**9)
    ledger.check_writable()
    world.clock.move(2 * 10**9)
    with pytest.raises(LedgerError, match="has not taken an entry for 7 s"):
        ledger.check_writable()
    store.gate.set()
    waits.result(PATIENCE)
    ledger.check_writable()
    ledger.close()


def _first_key(world: World) -> bytes:
    """The signing key of segment 1, from its epoch note."""
    from sidecar.chain.epoch import EpochNote

    store = LmdbStore.open(world.directory, world.options.max_bytes)
    signed: Any = store.note(1, NoteKind.EPOCH)
    store.close()
    return EpochNote.parse(note.parse(signed).text).key
