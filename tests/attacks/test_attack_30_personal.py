"""Attacks 29 and 30 where they concern personal fields: erasure without the authority, openings that are missing,
wrong or of another entry, and what a sealed field must not hide (LEDGER.md rule 14)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.chain import personal, strictjson
from sidecar.chain.acts import Erase, Prune, Run
from sidecar.chain.entry import EntryType
from sidecar.chain.stream import Kind
from sidecar.verify import Evidence, Openings, Report, Verdict
from tests.attacks.expect import found, nothing_worse
from tests.notary import Notary, standing
from tests.scribe import NO_EVIDENCE, judge, secret, signing_key
from tests.sealing import OTHER, SUBJECT, TAKEN, Discreet

LACKS, T, M, REDACTED = Verdict.INCOMPLETE, Verdict.TAMPERED, Verdict.MALFORMED, Verdict.REDACTED


def ledger(**of_genesis: Any) -> Discreet:
    """Sealed segments 0 and 1. 4 and 8: decisions that were signed, 5: what an executor did of the first; 6, 7: of
    asserted agents, 6 without personal fields; 9: of another subject."""
    s = Discreet(**of_genesis)
    s.open()
    s.registry()
    s.policy()
    s.personal_outcome(s.signed_personal_decision())
    s.decision()
    s.personal_decision()
    s.signed_personal_decision()
    s.seal("count")
    s.personal_decision(subject=OTHER)
    s.seal("time")
    return s


def opened(s: Discreet, openings: Openings, *, key: bool = True) -> Evidence:
    return dataclasses.replace(s.keyed if key else NO_EVIDENCE, openings=openings)


def anchored(s: Discreet, openings: Openings | None) -> Evidence:
    notary = Notary()
    notary.take(s)
    roll = notary.answer(notary.call_roll(standing(s)), s.chain_id)
    return Evidence(trust=notary.trust(s), logged=[roll], openings=openings)


def not_checked(report: Report, words: str) -> bool:
    return any(words in line for line in report.not_checked)


# --- as it should be


def test_sealed_fields_are_not_checked_and_no_finding() -> None:
    s = ledger()
    report = nothing_worse(s.records, dataclasses.replace(s.keyed, receipts=[s.receipt(4), s.receipt(7)]))
    assert not_checked(report, f"{sum(map(len, s.parts.values()))} sealed personal fields of 5 entries")
    assert report.decisions["unopened"] == 2 and report.decisions["signed"] == 0


def test_opened_all_is_judged_as_if_it_had_never_been_sealed() -> None:
    s = ledger()
    report = nothing_worse(s.records, dataclasses.replace(opened(s, s.opened()), receipts=[s.receipt(4)]))
    assert not not_checked(report, "sealed personal") and report.decisions["signed"] == 2
    assert "receipts against their entries: 1" in report.checked
    assert any("permits of 1 outcome" in line for line in report.checked)


def test_erased_with_the_authority() -> None:
    """REDACTED with a pinned log, whether openings are claimed or not; the other subject must still be opened."""
    s = ledger()
    s.tombstone()
    s.personal_decision()  # after it, for a report that came late: covered too
    s.seal("time")
    of_subject = [seq for seq in s.parts if seq != 9]
    for openings in (None, s.opened(without=of_subject), s.opened()):
        report = judge(s.records, anchored(s, openings))
        assert report.verdict is REDACTED, report.findings
        assert [(f.verdict, f.segment, f.seq) for f in report.findings] == [(REDACTED, 2, 10)]
        assert "ticket 12" in report.findings[0].reason
    found(s.records, LACKS, 1, 9, anchored(s, s.opened(without=s.parts)))


def test_an_erasure_in_a_stream_that_ends_before_its_tombstone() -> None:
    s = ledger()
    s.grant(Erase(s.chain_id, SUBJECT, "ticket 12"))
    report = judge(s.records, opened(s, s.opened(without=[4, 5, 7, 8])))
    assert report.first_bad() is None and (REDACTED, None, None) in places(report), report.findings


def test_openings_that_do_not_claim_to_be_all() -> None:
    s = ledger()
    report = nothing_worse(s.records, opened(s, s.opened(complete=False, without=[4, 5])))
    assert not_checked(report, "10 sealed personal fields of 2 entries")


def test_openings_of_another_chain_claim_nothing() -> None:
    report = nothing_worse(ledger().records, opened(ledger(), ledger(name="another").opened()))
    assert not_checked(report, "sealed personal fields")


def test_openings_of_entries_that_are_not_there() -> None:
    s = ledger()
    report = nothing_worse(s.records, opened(s, s.opened(at99=b"\0" * 36)))
    assert not_checked(report, "were not read: 1")
    assert not_checked(judge(s.segment_file(0), opened(s, s.opened())), "were not read: 1")


def places(report: Report) -> list[tuple[Verdict, int | None, int | None]]:
    return [(f.verdict, f.segment, f.seq) for f in report.findings]


# --- attack 29


@pytest.mark.parametrize("key", [True, False], ids=["key", "no key"])
def test_29_an_opening_missing_without_a_tombstone(key: bool) -> None:
    s = ledger()
    report = found(s.records, LACKS, 0, 5, opened(s, s.opened(without=[5]), key=key))
    assert report.findings_total == 2  # that, and that nothing is anchored
    s.tombstone(OTHER)
    s.head()
    found(s.records, LACKS, 0, 4, opened(s, s.opened(without=[4, 5, 7, 8, 9]), key=key))


def test_29_a_tombstone_by_nobodys_leave() -> None:
    """Signed by another key, of another chain, about another subject, another act, in a chain that has no authority, or
    under a retention profile that lets nothing be erased."""
    lies: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"key": signing_key("mallory")}),
        ({}, {"act": Erase(secret("another chain"), SUBJECT, "x")}),
        ({}, {"act": Erase(ledger().chain_id, OTHER, "x")}),
        ({}, {"act": Prune(ledger().chain_id, (Run(0, 0, secret("seal")),), "x")}),
        ({"authority": False}, {}),
        ({"retention": "sec-17a-4"}, {}),
    ]
    for of_genesis, lie in lies:
        s = ledger(**of_genesis)
        seq = s.tombstone(**lie)
        s.head()
        found(s.records, LACKS, 2, seq, s.keyed)
        found(s.records, LACKS, 0, 4, opened(s, s.opened(without=[4])))  # and it covers nothing


@pytest.mark.parametrize(
    "value",
    [
        {"note": "x"},
        {"body": "{}"},
        {"note": ""},
        {"subject": "5AB1"},
        {"subject": None},
        {"who": "ann"},
        {"note": None},
    ],
)
def test_29_a_tombstone_that_says_nothing(value: dict[str, Any]) -> None:
    s = ledger()
    seq = s.tombstone(value=value)
    s.head()
    found(s.records, M, 2, seq, s.keyed)


def test_29_a_tombstone_about_another_entry() -> None:
    s = ledger()
    seq = s.tombstone(ref_seq=4)
    s.head()
    found(s.records, M, 2, seq, s.keyed)


def test_29_an_authority_note_of_erasure_under_retention() -> None:
    s = ledger(retention="sec-17a-4")
    s.grant(Erase(s.chain_id, SUBJECT, "ticket 12"))
    assert (LACKS, None, None) in places(judge(s.records, s.keyed))
    found(s.records, LACKS, 0, 4, opened(s, s.opened(without=[4])))


# --- attack 30

Change = Callable[[Discreet], bytes]


def salted(s: Discreet) -> bytes:
    (_, value), *rest = s.parts[7]
    return personal.join([(bytes(32), value), *rest])


def another_value(s: Discreet) -> bytes:
    (salt, _), *rest = s.parts[7]
    return personal.join([(salt, b'"bob@example.org"'), *rest])


def exchanged(s: Discreet) -> bytes:
    one, two, *rest = s.parts[7]
    return personal.join([two, one, *rest])


def one_less(s: Discreet) -> bytes:
    return personal.join(s.parts[7][:-1])


def one_more(s: Discreet) -> bytes:
    return personal.join([*s.parts[7], s.parts[7][0]])


def padded(s: Discreet) -> bytes:
    return personal.join(s.parts[7]) + bytes(8)


def cut(s: Discreet) -> bytes:
    return personal.join(s.parts[7])[:-1]


def endless(s: Discreet) -> bytes:
    return s.parts[7][0][0] + b"\xff\xff\xff\xff" + b"1"


def of_another_entry(s: Discreet) -> bytes:
    return personal.join(s.parts[8])


def of_another_subject(s: Discreet) -> bytes:
    return personal.join(s.parts[9])


WRONG = [
    salted,
    another_value,
    exchanged,
    one_less,
    one_more,
    padded,
    cut,
    endless,
    of_another_entry,
    of_another_subject,
]


@pytest.mark.parametrize("change", WRONG)
@pytest.mark.parametrize("key", [True, False], ids=["key", "no key"])
def test_30_an_opening_that_is_not_that_entrys(change: Change, key: bool) -> None:
    s = ledger()
    report = found(s.records, T, 0, 7, opened(s, s.opened(at7=change(s)), key=key))
    assert report.findings_total == 2


def test_30_an_opening_moved_to_an_entry_without_sealed_fields() -> None:
    s = ledger()
    found(s.records, T, 0, 6, opened(s, s.opened(at6=personal.join(s.parts[7]))))
    found(s.records, T, 0, 3, opened(s, s.opened(at3=personal.join(s.parts[7]))))


def test_30_an_erased_field_opened() -> None:
    """With the true opening it stays REDACTED; with a false one it is TAMPERED."""
    s = ledger()
    s.tombstone()
    s.head()
    report = judge(s.records, opened(s, s.opened()))
    assert report.first_bad() is None and (REDACTED, 2, 10) in places(report)
    found(s.records, T, 0, 7, opened(s, s.opened(at7=salted(s))))


# --- what sealing must not hide


def test_another_request_than_the_digest_is_of_shows_once_it_is_opened() -> None:
    """An insider seals another value than was asked; whoever opens it sees."""
    s = ledger()
    value = s.asked()
    value["request"]["arguments"] = value["request"]["arguments"].replace("ann@", "bob@")
    taken = [(p, w, b'"bob@example.org"' if w == "/to/email" else raw) for p, w, raw in TAKEN]
    seq = s.sealed(EntryType.DECISION, value, taken)
    s.head()
    nothing_worse(s.records, s.keyed)
    found(s.records, T, 2, seq, opened(s, s.opened()))


@pytest.mark.parametrize("value", [b"", b"nul", b'"a":1', b'"\xff"', b"1 2", b'{"a":1,"a":2}', b"NaN"])
def test_what_was_sealed_is_no_value(value: bytes) -> None:
    s = ledger()
    parts = [(secret("salt", i), value) for i in range(len(TAKEN))]
    seq = s.sealed(EntryType.DECISION, s.asked(), TAKEN, parts=parts)
    s.head()
    found(s.records, M, 2, seq, opened(s, s.opened()))


def test_what_is_put_back_is_no_payload() -> None:
    s = ledger()
    parts = [(secret("salt", i), b'{"reasons":1}') for i in range(len(TAKEN))]
    seq = s.sealed(EntryType.DECISION, s.asked(), TAKEN, parts=parts)
    s.head()
    found(s.records, M, 2, seq, opened(s, s.opened()))


def test_a_sealed_permit_or_statement_that_is_false_shows_once_it_is_opened() -> None:
    s = ledger()
    seq = s.personal_outcome(8, digest=secret("another"))
    s.head()
    nothing_worse(s.records, s.keyed)
    found(s.records, T, 2, seq, opened(s, s.opened()))


@pytest.mark.parametrize("count", [0, 5, 7])
def test_a_field_count_that_is_not_theirs(count: int) -> None:
    s = ledger()
    seq = s.sealed(EntryType.DECISION, s.asked(), TAKEN, count=count)
    s.head()
    found(s.records, T, 2, seq, s.keyed)


def test_a_field_count_without_fields() -> None:
    s = ledger()
    header = dataclasses.replace(s.headers[6], field_count=1)
    i = next(i for i, r in enumerate(s.records) if r.kind is Kind.ENTRY and r.seq == 6)
    s.records[i].body = header.encode() + s.records[i].body[184:]
    found(s.records, T, 0, 6)


FIELD = {"in": "/request/purpose", "pointer": "", "at": None, "commit": "00" * 32}
KEY = {"in": "/request/idempotency_key", "pointer": "", "at": None, "commit": "00" * 32}
TEXT = {"in": "/request/arguments", "pointer": "/to/email", "at": 30, "commit": "00" * 32}
MISSHAPED: list[Any] = [
    None, [], {}, "x",
    {"fields": []}, {"fields": None}, {"fields": [KEY] * 4_097}, {"fields": [KEY, KEY]}, {"fields": [FIELD]},
    {"subject": "00"}, {"subject": None}, {"sealed": "?"}, {"sealed": ""}, {"sealed": 1}, {"more": 1},
    {"fields": [KEY | {"in": "/agent/id"}]}, {"fields": [KEY, FIELD | {"at": 0}]}, {"fields": [KEY | {"at": False}]},
    {"fields": [KEY | {"pointer": "/a"}]}, {"fields": [KEY | {"commit": "00"}]}, {"fields": [KEY | {"more": 1}]},
    {"fields": [TEXT | {"at": 31}, KEY]}, {"fields": [TEXT | {"at": None, "pointer": ""}, KEY]},
    {"fields": [TEXT | {"at": 2**53 - 1}, KEY]}, {"fields": [TEXT | {"at": -1}, KEY]}, {"fields": [TEXT, TEXT, KEY]},
    {"fields": [TEXT | {"at": 40}, TEXT, KEY]}, {"fields": [TEXT | {"in": "/request/alternatives/0/arguments"}, KEY]},
    {"fields": [KEY, FIELD | {"in": "/result/nothing"}]}, {"fields": [KEY, FIELD | {"in": "/result/to/~2"}]},
    {"fields": [FIELD | {"in": "/obligations/0/parameters"}, KEY]},
    {"fields": [FIELD | {"in": "/reasons/00/message"}, KEY]},
]  # fmt: skip


@pytest.mark.parametrize("lie", MISSHAPED, ids=str)
def test_misshaped_under_a_right_tag(lie: Any) -> None:
    value = ledger().asked()
    ledger().sealed(EntryType.DECISION, value, TAKEN)
    value["personal"] = value["personal"] | lie if isinstance(lie, dict) and lie else lie
    s = ledger()
    seq = s.put(EntryType.DECISION, strictjson.dumps(value), count=6)
    s.head()
    found(s.records, M, 2, seq, s.keyed)
