"""The report: its JSON, its bounds, its words; progress and flat memory while reading."""

from __future__ import annotations

import json
import tracemalloc
from io import BytesIO

import pytest

from sidecar.chain.stream import Kind
from sidecar.verify import MAX_FINDINGS, Disclosure, Evidence, Trust, Verdict, verify_stream
from sidecar.verify.report import Findings
from tests.scribe import NO_EVIDENCE, Record, Scribe, judge, public, story

STORY = story()
MEMBERS = {
    "verdict", "findings", "findings_total", "checked", "not_checked", "entries", "segments", "chain", "claim", "notes",
    "decisions",
}  # fmt: skip


def test_json() -> None:
    report = judge(STORY.records, STORY.keyed)
    value = json.loads(json.dumps(report.to_json()))
    assert value.keys() == MEMBERS
    assert value["verdict"] == "UNANCHORED"
    assert value["entries"] == 19 and value["segments"] == 7
    assert value["chain"] == STORY.chain_id.hex()
    assert all(f.keys() == {"verdict", "segment", "seq", "reason"} for f in value["findings"])


def test_verdicts_are_ordered_worst_last() -> None:
    names = "OK REDACTED PRUNED UNANCHORED INCOMPLETE CLOCK FORK TAMPERED MALFORMED"
    assert [v.name for v in sorted(Verdict)] == names.split()


def test_words_without_a_key() -> None:
    report = judge(STORY.records)
    assert "HMAC tags and agent tags: no key was given" in report.not_checked
    assert "that this is the chain you expect: no trust file was given" in report.not_checked
    assert "without a key nothing is said of the tags" in report.claim
    assert not any("HMAC" in line for line in report.checked)


def test_words_with_everything() -> None:
    pin = Trust({STORY.chain_id: public(STORY.identity)})
    report = judge(STORY.records, Evidence(STORY.keyed.open_seed, None, [STORY.receipt(5), STORY.receipt(18)], pin))
    assert report.verdict is Verdict.UNANCHORED, report.findings
    assert "HMAC tags of 19 entries and agent tags (custodian's key, 3 epochs)" in report.checked
    assert "receipts against their entries: 2" in report.checked
    assert "chain and identity key against the trust file" in report.checked
    assert "keys of segments 4, 6 against a commitment: open, or ended by a crash" in report.not_checked
    assert "the HMAC tags checked were made with the sidecar's own keys" in report.claim
    assert "the receipts compared agree" in report.claim


def test_words_with_a_disclosure_of_some_segments() -> None:
    some = Disclosure(STORY.chain_id, {n: STORY.keys[n] for n in (1, 3, 4)})
    report = judge(STORY.records, Evidence(disclosure=some))
    assert "HMAC tags of the entries of 2 segments (disclosed keys)" in report.checked
    assert "tags under the disclosed keys of segment 4: no seal commits to these keys" in report.not_checked
    assert "HMAC tags of the entries whose keys were not given or could not be opened" in report.not_checked


def test_a_disclosure_of_another_chain_says_nothing() -> None:
    other = Disclosure(bytes(32), dict(STORY.keys))
    report = judge(STORY.records, Evidence(disclosure=other))
    assert report.verdict is Verdict.UNANCHORED
    assert not any("HMAC" in line for line in report.checked)


def test_a_chain_without_custodians() -> None:
    s = Scribe(custodians=0)
    s.open()
    s.decision()
    s.head()
    report = judge(s.records, s.keyed)
    assert report.verdict is Verdict.UNANCHORED, report.findings
    assert any("HMAC tags of the entries whose keys" in line for line in report.not_checked)


def test_a_bad_ledger_permits_no_claim() -> None:
    records = [r for r in STORY.records if r.kind is not Kind.HEAD]
    assert judge(records).claim == "Nothing beyond the findings: the ledger is TAMPERED."


def test_findings_are_bounded_and_the_worst_is_kept() -> None:
    findings = Findings()
    for seq in range(MAX_FINDINGS + 500):
        findings.add(Verdict.UNANCHORED, 0, seq, "x")
    findings.add(Verdict.TAMPERED, 0, 10_000, "y")
    kept = findings.in_order()
    assert len(kept) == MAX_FINDINGS and findings.total == MAX_FINDINGS + 501
    assert kept[-1].verdict is findings.worst() is Verdict.TAMPERED


def test_a_flood_of_bad_entries_is_counted() -> None:
    s = Scribe()
    s.open()
    rubbish = [Record(Kind.ENTRY, b"x", 0)] * (2 * MAX_FINDINGS)
    report = judge([*s.records, *rubbish])
    assert len(report.findings) == MAX_FINDINGS and report.findings_total > 2 * MAX_FINDINGS
    assert report.verdict is Verdict.MALFORMED


def long_ledger(segments: int) -> bytes:
    s = Scribe()
    s.open()
    for _ in range(segments):
        for _ in range(250):
            s.rejected()
        s.seal("count")
    return s.stream()


def test_progress() -> None:
    seen: list[int] = []
    report = verify_stream(BytesIO(long_ledger(13)).read, progress=seen.append)
    assert report.entries == 3252
    assert seen == [1000, 2000, 3000]


def test_memory_is_flat() -> None:
    peaks = []
    for segments in (4, 16):
        read = BytesIO(long_ledger(segments)).read
        tracemalloc.start()
        try:
            assert verify_stream(read, NO_EVIDENCE).verdict is Verdict.UNANCHORED
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2 + 20_000, peaks


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_whatever_is_cut_off_never_raises(size: int) -> None:
    """Every prefix of a ledger gets a report. Where it ends between two records the verdict depends on the place."""
    data = STORY.stream()
    for end in range(0, len(data), 97 * size):
        assert judge(data[:end]).verdict >= Verdict.UNANCHORED
