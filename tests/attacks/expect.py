"""How an attack's outcome is asserted: verdict and first bad place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sidecar.verify import Evidence, Report, Verdict
from tests.scribe import NO_EVIDENCE, Record, judge

T, M = Verdict.TAMPERED, Verdict.MALFORMED


def found(
    records: Iterable[Record] | bytes,
    verdict: Verdict,
    segment: int | None,
    seq: int | None,
    evidence: Evidence = NO_EVIDENCE,
) -> Report:
    """The report, which must have this verdict and this first finding worse than UNANCHORED."""
    report = judge(records, evidence)
    bad = report.first_bad()
    assert report.verdict is verdict, report.findings
    assert bad is not None and (bad.segment, bad.seq) == (segment, seq), report.findings
    return report


def nothing_worse(records: Iterable[Record] | bytes, evidence: Evidence = NO_EVIDENCE) -> Report:
    """The report, which must be UNANCHORED: no better, no worse."""
    report = judge(records, evidence)
    assert report.verdict is Verdict.UNANCHORED, report.findings
    return report


def at(records: Sequence[Record], seq: int) -> int:
    """The index of the record of entry ``seq``."""
    return next(i for i, r in enumerate(records) if r.kind == 5 and r.seq == seq)


def seal_of(records: Sequence[Record], segment: int) -> int:
    """The index of the seal of ``segment``."""
    return next(i for i, r in enumerate(records) if r.kind == 7 and r.segment == segment)
