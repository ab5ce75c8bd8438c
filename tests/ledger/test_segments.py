"""Segments: sealed by count, by time and at the end; keys that go; clocks that step."""

from __future__ import annotations

import dataclasses
from concurrent.futures import wait
from typing import Any

import pytest

from sidecar.chain import note
from sidecar.chain.entry import EntryType, Header, StoredEntry
from sidecar.chain.epoch import EpochNote
from sidecar.chain.limits import UNKNOWN_CLOCK_ERROR
from sidecar.chain.merkle import EMPTY_ROOT
from sidecar.chain.ratchet import Ratchet, SegmentKeys, mac_key_commit
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind, records
from sidecar.errors import UsageError
from sidecar.ledger import Options, ledger_stream
from sidecar.ledger.segment import OpenSegment
from tests.ledger.worlds import PATIENCE, SECOND, World, decision, loaded, refused


def seals(world: World) -> list[Seal]:
    with ledger_stream(world.directory) as read:
        return [Seal.parse(note.parse(body).text) for kind, body in records(read) if kind is Kind.SEAL]


def headers(world: World) -> list[Header]:
    with ledger_stream(world.directory) as read:
        return [Header.decode(StoredEntry.parse(body).header) for kind, body in records(read) if kind is Kind.ENTRY]


def test_ten_thousand_entries_make_a_segment(world: World) -> None:
    ledger = world.open(options=dataclasses.replace(world.options, queue_limit=20_000))
    futures = [ledger.append(refused()) for _ in range(10_050)]
    wait(futures, PATIENCE)
    recorded = [f.result(0) for f in futures]
    assert [r.seq for r in recorded] == list(range(4, 10_054))
    assert recorded[9_998].segment == 1 and recorded[9_999].segment == 2
    proof = ledger.prove(recorded[5_000].seq)
    assert proof.index == 5_001
    ledger.close()
    assert [(s.reason, s.count) for s in seals(world)] == [("close", 3), ("count", 10_000), ("close", 52)]
    world.assert_verifies([recorded[9_998].receipt, recorded[9_999].receipt])


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_tiny_segments_in_one_group(world: World, entries: int) -> None:
    ledger, store = world.open_counted(options=dataclasses.replace(world.options, segment_entries=entries))
    store.gate.clear()
    futures = [ledger.append(decision(n)) for n in range(7)]
    store.gate.set()
    recorded = [f.result(PATIENCE) for f in futures]
    ledger.close()
    assert {s.count for s in seals(world)[1:-1]} == {entries}
    world.assert_verifies([r.receipt for r in recorded])


def test_a_segment_is_sealed_after_its_time_also_when_empty(world: World) -> None:
    ledger, store = world.open_counted()
    first = ledger.append(loaded()).result(PATIENCE)
    world.clock.move(60 * SECOND)
    store.wait_for_commits(2)
    world.clock.move(60 * SECOND)
    store.wait_for_commits(3)
    world.clock.move(59 * SECOND)
    same = ledger.append(refused()).result(PATIENCE)
    world.clock.move(SECOND)
    later = ledger.append(refused()).result(PATIENCE)
    assert [r.segment for r in (first, same, later)] == [1, 3, 4]
    ledger.close()
    found = seals(world)
    assert [(s.reason, s.count) for s in found] == [
        ("close", 3), ("time", 2), ("time", 0), ("time", 1), ("close", 2),
    ]  # fmt: skip
    empty = found[2]
    assert (empty.root, empty.span, empty.first, empty.last) == (EMPTY_ROOT, None, 5, first.leaf)
    assert {s.policy for s in found[1:]} == {headers(world)[first.seq].payload_commit}
    world.assert_verifies([first.receipt, same.receipt, later.receipt])


def test_the_seal_is_durable_before_the_next_segment_answers(world: World) -> None:
    ledger, store = world.open_counted()
    world.clock.move(60 * SECOND)
    recorded = ledger.append(refused()).result(PATIENCE)
    sealing, writing = store.batches[-2:]
    assert not sealing.entries and [kind for kind in sealing.notes if kind[1]]
    assert len(writing.entries) == 1 and recorded.segment == 2
    ledger.close()


def test_an_idle_position_keeps_the_last_head_and_seal(world: World) -> None:
    ledger, store = world.open_counted()
    recorded = ledger.append(refused()).result(PATIENCE)
    world.clock.move(60 * SECOND)
    store.wait_for_commits(2)
    ledger.append(refused()).result(PATIENCE)
    position = ledger.position()
    assert position.segment == 2 and position.next_seq == recorded.seq + 2
    assert Seal.parse(note.parse(position.last_seal).text).segment == 1
    ledger.close()


@pytest.mark.parametrize("step", [-3_600 * SECOND, SECOND + 1, 10 * 365 * 86_400 * SECOND])
def test_a_step_of_the_wall_clock_is_recorded_once(world: World, step: int) -> None:
    ledger = world.open()
    ledger.append(refused()).result(PATIENCE)
    world.clock.move(SECOND, wall=SECOND + step)
    recorded = [ledger.append(refused()).result(PATIENCE) for _ in range(2)]
    ledger.close()
    types = [h.type for h in headers(world)][recorded[0].seq - 1 : recorded[1].seq + 1]
    assert types == [EntryType.CLOCK, EntryType.REJECTED, EntryType.REJECTED]
    world.assert_verifies([r.receipt for r in recorded])


def test_a_slow_drift_and_a_small_step_are_not_recorded(world: World) -> None:
    ledger = world.open()
    world.clock.move(SECOND, wall=2 * SECOND - 1_000)
    ledger.append(refused()).result(PATIENCE)
    ledger.close()
    assert EntryType.CLOCK not in [h.type for h in headers(world)]
    world.assert_verifies()


def test_a_clock_entry_may_fill_a_segment(world: World) -> None:
    ledger = world.open(options=dataclasses.replace(world.options, segment_entries=2))
    world.clock.move(SECOND, wall=-5 * SECOND)
    recorded = ledger.append(refused()).result(PATIENCE)
    assert recorded.segment == 2
    world.clock.move(SECOND, wall=9 * SECOND)
    ledger.close()  # CLOSE, too, comes after a CLOCK of its own
    kinds = [h.type.name for h in headers(world)]
    assert kinds[3:] == ["OPEN", "CLOCK", "REJECTED", "CLOCK", "CLOSE"]
    world.assert_verifies([recorded.receipt])


def test_a_wall_clock_set_back_between_runs_is_recorded(world: World) -> None:
    world.open().close()
    world.clock.move(SECOND, wall=-86_400 * SECOND)
    ledger = world.open()
    assert ledger.append(refused()).result(PATIENCE).seq == 7
    ledger.close()
    assert [h.type.name for h in headers(world)][5:] == ["OPEN", "CLOCK", "REJECTED", "CLOSE"]
    world.assert_verifies()


def test_a_boot_clock_that_starts_anew_is_no_step(world: World) -> None:
    world.open().close()
    world.clock.move(-50 * SECOND, wall=300 * SECOND)
    world.open().close()
    assert EntryType.CLOCK not in [h.type for h in headers(world)]
    world.assert_verifies()


def test_boot_time_rises_on_a_clock_that_stands_still(world: World) -> None:
    ledger = world.open()
    for _ in range(20):
        ledger.append(refused()).result(PATIENCE)
    ledger.close()
    mono = [h.mono_ns for h in headers(world) if h.epoch == 1]
    assert mono == sorted(set(mono)) and mono[0] == 100 * SECOND
    assert {h.clock_error_ms for h in headers(world)} == {3}
    assert UNKNOWN_CLOCK_ERROR != 3


def test_keys_of_written_entries_are_not_kept(world: World) -> None:
    # Attack 12: whoever takes the process's memory finds no key of an entry before, and none of a sealed segment.
    seeds: list[bytes] = []

    def entropy(n: int) -> bytes:
        seeds.append(bytes([7 + len(seeds)]) * n)
        return seeds[-1]

    ledger = world.open(entropy=entropy)
    seed, chain_id = seeds[0], ledger.position().chain_id
    for n in range(3):
        ledger.append(decision(n, agent="payroll")).result(PATIENCE)
    with ledger_stream(world.directory) as read:
        epoch = [EpochNote.parse(note.parse(b).text) for k, b in records(read) if k is Kind.EPOCH][-1]
    keys = Ratchet(chain_id, epoch.epoch, seed, epoch.segment).advance()
    segment = ledger._writer._epoch.open
    assert isinstance(segment, OpenSegment)
    held = [v for v in vars(segment).values() if isinstance(v, bytes)]
    assert mac_key_commit(keys.mac_key) in held  # it is this segment's state that is looked at
    assert keys.mac_key not in held and seed not in held
    world.clock.move(60 * SECOND)
    ledger.append(refused()).result(PATIENCE)
    held = [v for v in vars(segment).values() if isinstance(v, bytes)]
    assert keys.tag_key not in held and vars(segment)["_signer"] is None
    with pytest.raises(RuntimeError, match="destroyed"):
        segment.seal("close", None, 0)
    ledger.close()
    assert isinstance(keys, SegmentKeys) and keys.mac_key.hex() not in repr(keys)


@pytest.mark.parametrize(
    "wrong",
    [
        {"segment_entries": 0}, {"segment_entries": 10_001}, {"segment_ns": 0}, {"segment_ns": 60 * SECOND + 1},
        {"queue_limit": 0}, {"batch": 0}, {"max_bytes": 1 << 20}, {"reserve_bytes": 0}, {"config": b"short"},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Options(**wrong)
