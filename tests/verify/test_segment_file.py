"""A segment file: one sealed segment with its context; and what may stand where in any stream."""

from __future__ import annotations

import dataclasses

import pytest

from sidecar.chain import lines, note
from sidecar.chain.ratchet import Ratchet, SegmentKeys
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.stream import Kind
from sidecar.verify import Disclosure, Evidence, Trust, Verdict
from tests.attacks.expect import M, T, at, found, nothing_worse, seal_of
from tests.scribe import NO_EVIDENCE, Record, Scribe, flip, judge, public, signing_key, story

STORY = story()
DISCLOSED = Evidence(disclosure=Disclosure(STORY.chain_id, STORY.keys))
KNOWN = pytest.mark.parametrize("evidence", [NO_EVIDENCE, STORY.keyed, DISCLOSED], ids=["no key", "key", "disclosure"])


@KNOWN
@pytest.mark.parametrize("segment", range(6))
def test_each_segment_by_itself(segment: int, evidence: Evidence) -> None:
    pin = Trust({STORY.chain_id: public(STORY.identity)})
    report = nothing_worse(STORY.segment_file(segment), dataclasses.replace(evidence, trust=pin))
    assert report.entries == sum(r.kind is Kind.ENTRY and r.segment == segment for r in STORY.records)
    assert report.segments == 1 and report.chain_id == STORY.chain_id


def test_what_rests_on_context_is_said() -> None:
    unchecked = judge(STORY.segment_file(1)).not_checked
    assert "that segment 1 follows the chain's segments before: only its context says so" in unchecked
    assert "the signing key of segment 1: only its context names it" in unchecked


@KNOWN
@pytest.mark.parametrize("seq", [5, 6, 7])
def test_edited_entry(seq: int, evidence: Evidence) -> None:
    records = STORY.segment_file(1)
    i = at(records, seq)
    for place in (8, 70, 100, 140, 190, 230, 260):
        edited = [*records[:i], Record(Kind.ENTRY, flip(records[i].body, place), 1, seq), *records[i + 1 :]]
        report = judge(edited, evidence)
        bad = report.first_bad()
        assert report.verdict >= T and bad is not None and (bad.segment, bad.seq) == (1, seq), (place, report.findings)


@pytest.mark.parametrize("segment", [1, 4])
def test_edited_context_is_never_believed_with_a_key(segment: int) -> None:
    """The seal before has no signer in the file, and of OPEN only note and seeds are bound to anything."""
    records = STORY.segment_file(segment)
    context = [i for i, r in enumerate(records) if r.kind in (Kind.GENESIS, Kind.EPOCH, Kind.OPEN)]
    for i in context:
        end = records[i].body.find(b'"software"') if records[i].kind is Kind.OPEN else len(records[i].body)
        for place in range(0, end, 7):
            edited = list(records)
            edited[i] = dataclasses.replace(records[i], body=flip(records[i].body, place))
            assert judge(edited, STORY.keyed).verdict >= T, (records[i].kind, place)


def test_cut_before_its_seal() -> None:
    records = STORY.segment_file(1)
    found(records[:-1], Verdict.INCOMPLETE, 1, None)


def test_another_chains_genesis() -> None:
    other = Scribe("beta")
    records = STORY.segment_file(1)
    records[0] = Record(Kind.GENESIS, other.genesis, 1)
    assert judge(records).verdict >= T


def test_another_identity_against_the_pin() -> None:
    pin = Trust({STORY.chain_id: public(signing_key("mallory"))})
    found(STORY.segment_file(1), T, 0, 0, Evidence(trust=pin))


def test_receipts_of_other_segments_are_left_unchecked() -> None:
    report = nothing_worse(STORY.segment_file(1), Evidence(receipts=[STORY.receipt(5), STORY.receipt(18)]))
    assert "receipts against their entries: 1" in report.checked
    assert "receipt 2: its segment 6 was not read" in report.not_checked


def order(*kinds: int) -> list[Record]:
    records = {int(r.kind): r for r in STORY.segment_file(1)[:4]}
    return [*(records[k] for k in kinds), *STORY.segment_file(1)[4:]]


@pytest.mark.parametrize(
    "kinds", [(1, 2, 4), (1, 3, 2, 4), (2, 1, 3, 4), (1, 1, 2, 3, 4), (1, 4), (1,), (4,), (3,), (1, 2, 3)]
)
def test_context_records_out_of_order(kinds: tuple[int, ...]) -> None:
    assert judge(order(*kinds)).verdict is M


def test_context_with_seeds_for_a_segment_that_holds_them() -> None:
    records = STORY.segment_file(4)
    records.insert(2, Record(Kind.OPEN, STORY.openings[1], 4))
    assert judge(records).verdict is M


def test_anything_after_the_seal() -> None:
    for extra in STORY.segment_file(2)[-1:] + STORY.records[:2]:
        assert judge([*STORY.segment_file(1), extra]).verdict is M


# --- what may stand where in a ledger's stream


@pytest.mark.parametrize("kind", [Kind.GENESIS, Kind.OPEN, Kind.SEAL_BEFORE])
def test_context_in_a_ledger(kind: Kind) -> None:
    records = list(STORY.records)
    records.insert(at(records, 3), Record(kind, STORY.genesis, 0))
    found(records, M, 0, 3)


def test_a_stream_that_starts_with_an_entry() -> None:
    found(STORY.records[2:], M, 0, 0)


def test_a_stream_that_starts_later() -> None:
    """The first segments are cut off and nothing is said of them."""
    for start in (4, 5):
        assert judge([r for r in STORY.records if r.segment >= start]).verdict >= T


def test_two_heads() -> None:
    found([*STORY.records, STORY.records[-1]], M, 6, None)


def test_an_entry_after_the_head() -> None:
    s = Scribe()
    s.open()
    s.head()
    s.decision()
    found(s.records, M, 0, 2)


def test_a_head_before_a_seal_in_order() -> None:
    s = Scribe()
    s.open()
    s.head()
    s.seal("count")
    found(s.records, T, 0, None)


def test_two_seals() -> None:
    records = list(STORY.records)
    i = seal_of(records, 3)
    records.insert(i, records[i])
    assert judge(records).verdict is M


def test_empty_and_truncated_ledgers() -> None:
    found([], Verdict.INCOMPLETE, 0, 0)
    found(STORY.records[:1], Verdict.INCOMPLETE, 0, 0)
    found(STORY.records[:2], Verdict.INCOMPLETE, 0, 0)
    found(STORY.records[:3], T, 0, 0)


def test_epoch_note_missing() -> None:
    records = list(STORY.records)
    i = next(i for i, r in enumerate(records) if r.kind is Kind.EPOCH and r.segment == 4)
    del records[i]
    found(records, T, 4, 11)


def test_close_and_open_out_of_place() -> None:
    s = Scribe()
    s.open()
    opening = s.openings[0]
    seq = s.write(s.headers[1].type, opening)
    s.head()
    found(s.records, T, 0, seq)
    s = Scribe()
    s.open()
    s.write(type(s.headers[0].type).CLOSE, b'{"type":"CLOSE","reason":"shutdown"}')
    seq = s.decision()
    s.head()
    found(s.records, T, 0, seq)


def test_close_before_a_crash_is_in_order() -> None:
    s = Scribe()
    s.open()
    s.write(type(s.headers[0].type).CLOSE, b'{"type":"CLOSE","reason":"shutdown"}')
    s.crash()
    s.open()
    s.head()
    nothing_worse(s.records, s.keyed)


def test_close_does_not_go_with_the_seal() -> None:
    s = Scribe()
    s.open()
    s.decision()
    s.seal("close")
    found(s.records, T, 0, 2)


@pytest.mark.parametrize("line", ["first", "count", "root", "last", "prev", "policy", "epoch", "chain_id"])
def test_a_seal_signed_over_other_lines(line: str) -> None:
    s = Scribe()
    s.open()
    s.policy()
    changed = {"first": 1, "count": 2, "epoch": 3}.get(line, bytes(31) + b"\x01")
    s.seal("count", **{line: changed})
    found(s.records, T, 0, 2 if line == "last" else None)


@pytest.mark.parametrize("line", ["epoch", "segment", "leaf", "time", "chain_id"])
def test_a_head_signed_over_other_lines(line: str) -> None:
    s = Scribe()
    s.open()
    changed = {"epoch": 3, "segment": 1, "time": 5}.get(line, bytes(32))
    if line == "segment":
        s.signing[1] = s.signing[0]
    s.records.append(Record(Kind.HEAD, s.sign_head(1, decided=False, **{line: changed}), 0, 1))
    assert judge(s.records).verdict >= T


def test_an_epoch_that_did_not_reach_its_open() -> None:
    """A crash between the epoch note and its first entries: the note, and a recovery seal over nothing."""
    s = Scribe()
    s.open()
    s.close()
    s.open()
    del s.records[-1]
    s.seq, s.leaf, s.tree, s.clocks = 3, s.leaf_of(2), type(s.tree)(), []
    s.crash()
    s.open()
    s.head()
    nothing_worse(s.records, s.keyed)


def _forged(keys: SegmentKeys) -> list[Record]:
    """Segment 1 made anew by somebody without any of the sidecar's signing keys; tags under ``keys``."""
    real = STORY.segment_file(1)
    mallory = Scribe(STORY.name)
    before = Seal.parse(note.parse(STORY.seals[0]).text)
    assert before.span is not None
    named = dataclasses.replace(before, next=public(signing_key("mallory")))
    mallory.epoch, mallory.segment, mallory.seq = before.epoch, 1, before.count
    mallory.leaf, mallory.seal_before, mallory.policy_commit = before.last, seal_hash(named.text()), before.policy
    mallory.mono = before.span.mono_last
    mallory.signing[1] = signing_key("mallory")
    mallory.ratchet = Ratchet(STORY.chain_id, 0, STORY.seeds[0], 0)
    mallory.ratchet.advance()
    mallory._begin_segment()
    mallory.keys[1], mallory.key = keys, keys.mac_key
    mallory.decision("ALLOW")
    mallory.seal("count")
    signed = note.sign(named.text(), lines.segment_name(STORY.chain_id, 0), signing_key("mallory"))
    return [*real[:3], Record(Kind.SEAL_BEFORE, signed, 1), *mallory.records]


def test_a_forged_file_is_never_said_to_be_the_chains() -> None:
    """Who has GENESIS, the epoch note and OPEN can make such a file; its context alone speaks for it."""
    pin = Trust({STORY.chain_id: public(STORY.identity)})
    report = nothing_worse(_forged(SegmentKeys(b"m" * 32, b"t" * 32)), Evidence(trust=pin))
    assert "anybody may have made it" in report.claim and "GENESIS names" not in report.claim
    assert any("a key that only its context names" in line for line in report.checked)
    assert judge(_forged(SegmentKeys(b"m" * 32, b"t" * 32)), STORY.keyed).verdict is T
    assert judge(_forged(STORY.keys[1]), Evidence(receipts=[STORY.receipt(5)])).verdict is T


@pytest.mark.parametrize("evidence", [STORY.keyed, DISCLOSED], ids=["key", "disclosure"])
def test_who_has_the_keys_can_forge_a_file_and_that_is_said(evidence: Evidence) -> None:
    claim = nothing_worse(_forged(STORY.keys[1]), evidence).claim
    assert "somebody who has the keys" in claim and "sidecar's own keys" not in claim
    assert "GENESIS names" in judge(STORY.segment_file(5), evidence).claim


def test_an_epoch_cut_down_to_its_note() -> None:
    """The note and OPEN are written together: a ledger that ends with the note alone lost entries."""
    last = max(i for i, r in enumerate(STORY.records) if r.kind is Kind.EPOCH)
    found(STORY.records[: last + 1], Verdict.INCOMPLETE, 5, STORY.records[last + 1].seq)


def test_an_epoch_sealed_without_its_open() -> None:
    s = Scribe()
    s.open()
    s.close()
    s.open()
    del s.records[-1]
    s.seq, s.leaf, s.tree, s.clocks = 3, s.leaf_of(2), type(s.tree)(), []
    s.seal("time")
    found(s.records, T, 1, 3, s.keyed)
