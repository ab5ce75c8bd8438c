"""Attack 30, where it concerns payloads: a commitment opened with a wrong salt, an opening moved to another entry.

Erased fields, the attack's third part, come with erasure itself.
"""

from __future__ import annotations

import dataclasses

import pytest

from sidecar.chain.entry import StoredEntry
from sidecar.verify import Evidence
from tests.attacks.expect import T, at, found
from tests.scribe import NO_EVIDENCE, Record, Scribe, story

KNOWN = pytest.mark.parametrize("evidence", [NO_EVIDENCE, story().keyed], ids=["no key", "key"])


def ledger() -> list[Record]:
    s = Scribe()
    s.open()
    for bulk in (0, 0, 900, 4_000):  # the last two are stored compressed
        s.decision(bulk=bulk)
    s.seal("count")
    return list(s.records)


def opening(record: Record) -> tuple[bytes, bytes]:
    entry = StoredEntry.parse(record.body)
    return entry.salt, bytes((entry.codec,)) + entry.stored


def opened_with(record: Record, salt: bytes, stored: bytes) -> Record:
    return dataclasses.replace(record, body=record.body[:216] + salt + stored)


@KNOWN
@pytest.mark.parametrize("seq", [2, 5])
def test_a_wrong_salt(seq: int, evidence: Evidence) -> None:
    records = ledger()
    place = at(records, seq)
    _, stored = opening(records[place])
    records[place] = opened_with(records[place], bytes(32), stored)
    found(records, T, 0, seq, evidence)


@KNOWN
@pytest.mark.parametrize(("source", "target"), [(2, 3), (5, 2), (2, 5), (4, 5)])
def test_an_opening_moved_to_another_entry(source: int, target: int, evidence: Evidence) -> None:
    records = ledger()
    place = at(records, target)
    salt, stored = opening(records[at(records, source)])
    records[place] = opened_with(records[place], salt, stored)
    report = found(records, T, 0, target, evidence)
    assert report.findings_total == 2, report.findings  # that entry, and that nothing is anchored


@KNOWN
def test_two_openings_exchanged(evidence: Evidence) -> None:
    records = ledger()
    one, two = at(records, 3), at(records, 4)
    first, second = opening(records[one]), opening(records[two])
    records[one], records[two] = opened_with(records[one], *second), opened_with(records[two], *first)
    found(records, T, 0, 3, evidence)
