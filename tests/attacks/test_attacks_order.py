"""Attacks 2, 3, 4, 5, 14, 17: entries and segments deleted, inserted, moved, doubled, cut off, replayed."""

from __future__ import annotations

import dataclasses

import pytest

from sidecar.chain import entry
from sidecar.chain.stream import Kind
from sidecar.verify import Evidence, Verdict
from tests.attacks.expect import T, at, found, nothing_worse, seal_of
from tests.scribe import NO_EVIDENCE, Record, Scribe, story

STORY = story()
KNOWN = pytest.mark.parametrize("evidence", [NO_EVIDENCE, STORY.keyed], ids=["no key", "key"])


def long() -> Scribe:
    s = Scribe()
    s.open()
    for _ in range(6):
        s.decision()
    s.seal("count")
    for _ in range(3):
        s.decision()
    s.head()
    return s


LONG = long()


@KNOWN
@pytest.mark.parametrize("seq", range(1, 7))
def test_attack_2_delete(seq: int, evidence: Evidence) -> None:
    records = list(LONG.records)
    del records[at(records, seq)]
    report = found(records, T, 0, seq, evidence)
    assert report.findings_total <= 4, report.findings


@KNOWN
@pytest.mark.parametrize("seq", range(2, 7))
def test_attack_2_duplicate(seq: int, evidence: Evidence) -> None:
    records = list(LONG.records)
    records.insert(at(records, seq), records[at(records, seq)])
    report = found(records, T, 0, seq + 1, evidence)
    assert report.findings_total <= 4, report.findings


@KNOWN
@pytest.mark.parametrize("seq", range(2, 6))
def test_attack_2_reorder(seq: int, evidence: Evidence) -> None:
    records = list(LONG.records)
    i = at(records, seq)
    records[i], records[i + 1] = records[i + 1], records[i]
    report = found(records, T, 0, seq, evidence)
    assert report.findings_total <= 5, report.findings


@KNOWN
@pytest.mark.parametrize("seq", range(2, 8))
def test_attack_2_insert(seq: int, evidence: Evidence) -> None:
    """An entry that links to the one before; only its tag is a guess."""
    header = dataclasses.replace(LONG.headers[7], seq=seq, segment=0, prev=LONG.leaf_of(seq - 1))
    body = LONG.records[at(LONG.records, 7)].body
    forged = entry.store(
        header.encode(), bytes(32), body[216:248], entry.StoredEntry.parse(body).payload(header.payload_len)
    )
    records = list(LONG.records)
    records.insert(seal_of(records, 0) if seq == 8 else at(records, seq), Record(Kind.ENTRY, forged, 0, seq))
    found(records, T, 0 if seq < 8 else 1, seq, evidence)


def test_attack_2_delete_at_the_end_of_a_sealed_segment() -> None:
    records = list(LONG.records)
    del records[at(records, 7)]
    found(records, T, 0, None)


def cut_after_segment(segment: int) -> list[Record]:
    return [r for r in STORY.records if r.segment <= segment]


@KNOWN
def test_attack_3_truncated_sealed_tail(evidence: Evidence) -> None:
    records = cut_after_segment(3)
    report = nothing_worse(records, evidence)
    assert "that nothing after entry 10 was cut off: only a later receipt or a log can tell" in report.not_checked
    held = dataclasses.replace(evidence, receipts=[STORY.receipt(12)])
    found(records, Verdict.INCOMPLETE, 4, 12, held)


@KNOWN
def test_attack_3_receipt_of_the_segment_that_is_said_to_be_open(evidence: Evidence) -> None:
    held = dataclasses.replace(evidence, receipts=[STORY.receipt(5)])
    found(cut_after_segment(0), Verdict.INCOMPLETE, 1, 5, held)


@KNOWN
def test_attack_4_open_tail_with_a_head_in_other_hands(evidence: Evidence) -> None:
    records = [r for r in LONG.records if r.kind is not Kind.HEAD and (r.seq or 0) < 10]
    records.append(Record(Kind.HEAD, LONG.sign_head(9, decided=False), 1, 9))
    held = dataclasses.replace(evidence, receipts=[LONG.receipt(10)])
    found(records, Verdict.INCOMPLETE, 1, 10, held)


@KNOWN
def test_attack_4_the_head_is_further_than_the_entries(evidence: Evidence) -> None:
    records = [r for r in LONG.records if r.kind is not Kind.ENTRY or (r.seq or 0) < 10]
    found(records, Verdict.INCOMPLETE, 1, 10, evidence)


@KNOWN
def test_attack_5_open_tail_that_nobody_has_seen(evidence: Evidence) -> None:
    """The thief kept an older head from an older copy of the disk."""
    records = [r for r in LONG.records if r.kind is not Kind.HEAD and (r.seq or 0) < 10]
    records.append(Record(Kind.HEAD, LONG.sign_head(9, decided=False), 1, 9))
    report = nothing_worse(records, evidence)
    assert "that nothing after entry 9 was cut off: only a later receipt or a log can tell" in report.not_checked


@KNOWN
def test_attack_5_without_the_head(evidence: Evidence) -> None:
    found([r for r in LONG.records if r.kind is not Kind.HEAD], T, 1, 8, evidence)


@KNOWN
def test_attack_14_an_empty_segment_is_dropped(evidence: Evidence) -> None:
    records = list(STORY.records)
    del records[seal_of(records, 2)]
    found(records, T, 2, None, evidence)


@KNOWN
@pytest.mark.parametrize("segment", [1, 3])
def test_attack_14_a_segment_is_dropped(segment: int, evidence: Evidence) -> None:
    records = [r for r in STORY.records if r.segment != segment]
    bad = found(records, T, segment, {1: 5, 3: 8}[segment], evidence).first_bad()
    assert bad is not None and "missing" in bad.reason


@KNOWN
def test_attack_14_all_segments_of_an_epoch_are_dropped(evidence: Evidence) -> None:
    records = [r for r in STORY.records if r.segment != 4]
    found(records, T, 4, 11, evidence)


@KNOWN
def test_attack_14_a_seal_alone_is_dropped(evidence: Evidence) -> None:
    records = list(STORY.records)
    del records[seal_of(records, 0)]
    found(records, T, 0, None, evidence)


@KNOWN
@pytest.mark.parametrize("source", ["chain", "epoch", "segment"])
def test_attack_17_replay(source: str, evidence: Evidence) -> None:
    """An entry from elsewhere takes the place of entry 6."""
    other = Scribe("beta")
    other.open()
    for _ in range(6):
        other.decision()
    bodies = {
        "chain": other.records[at(other.records, 6)].body,
        "epoch": STORY.records[at(STORY.records, 12)].body,
        "segment": STORY.records[at(STORY.records, 3)].body,
    }
    records = list(STORY.records)
    records[at(records, 6)] = Record(Kind.ENTRY, bodies[source], 1, 6)
    found(records, T, 1, 6, evidence)


@KNOWN
def test_attack_17_the_same_place_of_another_run(evidence: Evidence) -> None:
    """A twin of the process, from a clone of the disk: same chain, same epoch, same place, another seed."""
    twin = Scribe()
    twin.open(seed=bytes(32))
    for _ in range(5):
        twin.decision()
    records = list(LONG.records)
    records[at(records, 4)] = twin.records[at(twin.records, 4)]
    found(records, T, 0, 4, evidence)
