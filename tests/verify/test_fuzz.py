"""Hostile streams: whatever is done to one, there is a report, and damage to what is signed is never passed over."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.chain.stream import MAGIC, Kind
from sidecar.verify import Disclosure, Evidence, Verdict
from tests.scribe import Record, judge, story, stream

STORY = story()
DATA = STORY.stream()
EVERYTHING = Evidence(
    STORY.keyed.open_seed, Disclosure(STORY.chain_id, STORY.keys), [STORY.receipt(5), STORY.receipt(18)]
)
SLICES = st.tuples(st.integers(0, len(DATA)), st.integers(0, 300), st.binary(max_size=300))


@given(st.lists(SLICES, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_bytes_replaced(edits: list[tuple[int, int, bytes]]) -> None:
    data = DATA
    for at, length, new in edits:
        data = data[:at] + new + data[at + length :]
    report = judge(data, EVERYTHING)
    if data != DATA:
        assert report.verdict > Verdict.UNANCHORED


@given(st.permutations(range(len(STORY.records))), st.integers(0, len(STORY.records)))
@settings(max_examples=150, deadline=None)
def test_records_shuffled_and_cut(order: list[int], keep: int) -> None:
    """With a receipt for the last entry there is no order and no cut that passes, but the true one."""
    records = [STORY.records[i] for i in order[:keep]]
    report = judge(records, EVERYTHING)
    if order[:keep] != list(range(len(STORY.records))):
        assert report.verdict > Verdict.UNANCHORED


@given(st.integers(0, len(STORY.records) - 1), st.integers(0, len(STORY.records)))
@settings(max_examples=150, deadline=None)
def test_a_record_moved_or_doubled(source: int, target: int) -> None:
    for moved in (True, False):
        records = list(STORY.records)
        record = records[source]
        if moved:
            del records[source]
        records.insert(target, record)
        if records != STORY.records:
            assert judge(records, EVERYTHING).verdict > Verdict.UNANCHORED


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=400)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_rubbish_in_records(rubbish: list[tuple[Kind, bytes]]) -> None:
    judge(stream(Record(kind, body, 0) for kind, body in rubbish), EVERYTHING)


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_rubbish(data: bytes) -> None:
    assert judge(data, EVERYTHING).verdict is Verdict.MALFORMED or data == MAGIC  # which is a stream of nothing
