"""Attack 1: each byte of header, tag, salt, payload, seal, head and epoch note is changed, one at a time.

Nobody needs a key to find any of them. A custodian is shown every third; every one in `make soak`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidecar.chain.stream import Kind
from sidecar.verify import Disclosure, Evidence, Verdict
from tests.scribe import SOAK, Record, Scribe, flip, judge, stream


def small() -> Scribe:
    """Two epochs in three segments: sealed by count, crashed, open with a head."""
    s = Scribe()
    s.open()
    s.decision()
    s.seal("count")
    s.rejected()
    s.crash()
    s.open()
    s.clock(3_000_000_000)
    s.head()
    return s


LEDGER = small()
EVIDENCE = {"no key": Evidence(), "custodian": LEDGER.keyed}
DISCLOSED = Evidence(disclosure=Disclosure(LEDGER.chain_id, LEDGER.keys))


def place(record: Record, index: int) -> tuple[int, int | None]:
    """Where a change of this record must be found. An epoch note stands at the first seq of its epoch."""
    if record.kind is Kind.EPOCH:
        return record.segment, LEDGER.records[index + 1].seq
    return record.segment, record.seq


def flips(index: int, step: int) -> Iterator[tuple[int, bytes]]:
    body = LEDGER.records[index].body
    for at in range(index % step, len(body), step):
        yield at, flip(body, at, 1 << at % 8)


def test_the_ledger_itself_is_in_order() -> None:
    for evidence in (*EVIDENCE.values(), DISCLOSED):
        report = judge(LEDGER.records, evidence)
        assert report.verdict is Verdict.UNANCHORED and report.first_bad() is None


@pytest.mark.parametrize("known", EVIDENCE)
@pytest.mark.parametrize("index", range(len(LEDGER.records)))
def test_attack_1(index: int, known: str) -> None:
    record = LEDGER.records[index]
    before, after = stream(LEDGER.records[:index]), stream(LEDGER.records[index + 1 :])[8:]
    for at, body in flips(index, 1 if SOAK or known == "no key" else 3):
        edited = before + stream([Record(record.kind, body, 0)])[8:] + after
        report = judge(edited, EVIDENCE[known])
        assert report.verdict >= Verdict.TAMPERED, f"byte {at}"
        found = report.first_bad()
        assert found is not None and found.verdict >= Verdict.TAMPERED, f"byte {at}: {found}"
        assert (found.segment, found.seq) == place(record, index), f"byte {at}: {report.findings}"
