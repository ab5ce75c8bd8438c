"""Receipts of a pinned log: when a ledger is OK, and everything that keeps it from being so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from hashlib import sha256

import pytest

from sidecar.chain import checkpoint, cosignature, note
from sidecar.chain.logged import Logged
from sidecar.chain.note import SignedNote
from sidecar.chain.tlog_proof import TlogProof
from sidecar.verify import Evidence, Verdict
from tests.attacks.expect import T
from tests.notary import ORIGIN, Notary, ended, standing
from tests.scribe import Scribe, judge, signing_key, story

U, INCOMPLETE, FORK, OK = Verdict.UNANCHORED, Verdict.INCOMPLETE, Verdict.FORK, Verdict.OK
LEDGER = ended()


def logged(witnesses: int = 0) -> Notary:
    """A log that holds the whole chain."""
    notary = Notary(witnesses=witnesses)
    notary.take(LEDGER)
    return notary


def evidence(notary: Notary, *receipts: bytes, **more: object) -> Evidence:
    return Evidence(trust=notary.trust(LEDGER), logged=receipts, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("witnesses", [0, 1, 3])
def test_everything_under_receipt_and_named_as_the_end_is_ok(witnesses: int) -> None:
    notary = logged(witnesses)
    roll = notary.call_roll(standing(LEDGER))
    answer = notary.answer(roll, LEDGER.chain_id)
    every = [notary.receipt(text) for text in notary.entries[:-1]]
    for receipts in ([answer], [notary.of_seal(LEDGER, 3), answer], [*every, answer]):
        report = judge(LEDGER.records, evidence(notary, *receipts))
        assert report.verdict is OK, report.findings
        assert "Nobody rewrote anything up to segment 3" in report.claim and "nothing was missing" in report.claim
        assert not any("pinned" in line for line in report.not_checked)
        assert any("receipts of the pinned log, up to segment 3" in line for line in report.checked)


def test_receipts_without_a_roll_call_do_not_tell_the_end() -> None:
    notary = logged()
    report = judge(LEDGER.records, evidence(notary, *[notary.of_seal(LEDGER, i) for i in range(4)]))
    assert report.verdict is U
    (only,) = report.findings
    assert (only.segment, only.seq) == (None, None) and "roll-call" in only.reason
    assert "It does not show that the ledger was never cut at its end" in report.claim


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_what_lies_above_the_highest_receipt_is_unanchored_at_its_place(segment: int) -> None:
    notary = logged()
    report = judge(LEDGER.records, evidence(notary, notary.of_seal(LEDGER, segment)))
    assert report.verdict is U
    assert [(f.segment, f.seq) for f in report.findings] == [(segment + 1, None)]


@pytest.mark.parametrize("segment", range(4))
def test_a_segment_file_is_ok_under_its_own_receipt(segment: int) -> None:
    notary = logged()
    file = LEDGER.segment_file(segment)
    if segment == 0:
        # It reads as a whole ledger, whose end a roll-call must name.
        assert judge(file, evidence(notary, notary.of_seal(LEDGER, 0))).verdict is U
        return
    report = judge(file, evidence(notary, notary.of_seal(LEDGER, segment)))
    assert report.verdict is OK, report.findings
    other = judge(file, evidence(notary, notary.of_seal(LEDGER, segment - 1)))
    assert other.verdict is U and any("places were not read: 1" in line for line in other.not_checked)


def test_without_a_pinned_log_nothing_is_ever_ok() -> None:
    notary = logged()
    answer = notary.answer(notary.call_roll(standing(LEDGER)), LEDGER.chain_id)
    for trust in (None, dataclasses.replace(notary.trust(LEDGER), policy=None)):
        report = judge(LEDGER.records, Evidence(trust=trust, logged=[answer]))
        assert report.verdict is U and any("no log is pinned" in line for line in report.not_checked)


def test_an_open_tail_and_a_crash_stay_unanchored() -> None:
    s = story()
    notary = Notary()
    notary.take(s)
    roll = notary.call_roll(standing(s, seq=17))
    trust = notary.trust(s)
    report = judge(s.records, Evidence(trust=trust, logged=[notary.answer(roll, s.chain_id)]))
    assert report.verdict is U
    assert any("crash" in f.reason for f in report.findings)


def test_an_open_segment_without_entries_is_no_tail() -> None:
    s = Scribe()
    s.open()
    s.decision()
    s.seal("time")
    notary = Notary()
    notary.take(s)
    answer = notary.answer(notary.call_roll(standing(s)), s.chain_id)
    assert judge(s.records, Evidence(trust=notary.trust(s), logged=[answer])).verdict is OK


# --- quorum


@pytest.mark.parametrize(
    ("quorum", "by", "verdict"),
    [("all", [0, 1, 2], OK), ("all", [0, 1], U), ("2", [0, 2], OK), ("2", [1], U), ("any", [2], OK), ("any", [], U)],
)
def test_the_quorum(quorum: str, by: list[int], verdict: Verdict) -> None:
    notary = logged(3)
    roll = notary.call_roll(standing(LEDGER))
    at = [s.chain_id for s in roll.standings].index(LEDGER.chain_id)
    extra = Logged(roll.call, roll.call.text(), roll.answer(at)).extra()
    receipt = notary.proof(roll.call.text(), extra, by=by)
    report = judge(LEDGER.records, Evidence(trust=notary.trust(LEDGER, quorum), logged=[receipt]))
    assert report.verdict is verdict, report.findings
    assert verdict is OK or any("quorum" in f.reason for f in report.findings)


def test_a_witness_that_signed_something_else_condemns_the_receipt() -> None:
    notary = logged(1)
    proof = TlogProof.parse(notary.of_seal(LEDGER, 3))
    parsed = note.parse(proof.checkpoint)
    for line in (
        cosignature.cosign(notary.tip(2).text(), "w0.example", notary.witnesses[0], 5),
        dataclasses.replace(parsed.signatures[1], signature=bytes(72)),
        dataclasses.replace(parsed.signatures[1], signature=b"short"),
    ):
        signed = note.encode(SignedNote(parsed.text, (parsed.signatures[0], line)))
        report = judge(LEDGER.records, evidence(notary, dataclasses.replace(proof, checkpoint=signed).encode()))
        assert report.verdict is T and report.first_bad().segment == 3  # type: ignore[union-attr]


# --- what does not count


def receipts_that_lie(notary: Notary) -> dict[str, bytes]:
    good = TlogProof.parse(notary.of_seal(LEDGER, 1))
    other = TlogProof.parse(notary.of_seal(LEDGER, 2))
    unsigned = checkpoint.sign(notary.tip(), signing_key("mallory"))
    return {
        "another entry's path": dataclasses.replace(good, path=other.path).encode(),
        "another index": dataclasses.replace(good, index=other.index).encode(),
        "another entry": dataclasses.replace(good, extra=other.extra).encode(),
        "a checkpoint that mallory signed": dataclasses.replace(good, checkpoint=unsigned).encode(),
        "a path too short": dataclasses.replace(good, path=good.path[:-1]).encode(),
        "a smaller tree": dataclasses.replace(good, checkpoint=notary.signed(3)).encode(),
    }


@pytest.mark.parametrize("what", list(receipts_that_lie(logged())))
def test_a_receipt_that_lies_is_tampered(what: str) -> None:
    notary = logged()
    report = judge(LEDGER.records, evidence(notary, receipts_that_lie(notary)[what]))
    assert report.verdict is T, report.findings


@pytest.mark.parametrize("data", [b"", b"rubbish", b"c2sp.org/tlog-proof@v1\nindex 0\n\nx\n1\n\n"])
def test_no_receipt_at_all(data: bytes) -> None:
    report = judge(LEDGER.records, evidence(logged(), data))
    assert report.verdict is Verdict.MALFORMED


def test_each_byte_of_a_receipt_counts() -> None:
    notary = logged(1)
    receipt = notary.of_seal(LEDGER, 3)
    good = judge(LEDGER.records, evidence(notary, receipt))
    assert good.verdict is U and "roll-call" in good.findings[0].reason
    for at in range(0, len(receipt), 11):
        changed = receipt[:at] + bytes((receipt[at] ^ 1,)) + receipt[at + 1 :]
        report = judge(LEDGER.segment_file(3), evidence(notary, changed))
        assert report.verdict is not OK, at


def test_another_chains_receipt_is_tampered() -> None:
    other = Scribe("beta")
    other.open()
    other.close()
    notary = logged()
    notary.take(other)
    roll = notary.call_roll(standing(other))
    makers: list[Callable[[], bytes]] = [
        lambda: notary.of_seal(other, 0),
        lambda: notary.receipt(note.parse(other.notes[0]).text),
        lambda: notary.answer(roll, other.chain_id),
    ]
    for make in makers:
        report = judge(LEDGER.records, evidence(notary, make()))
        assert report.verdict is T and any("another chain" in f.reason for f in report.findings)


def test_a_roll_call_of_another_log_in_a_pinned_one() -> None:
    notary = logged()
    notary.origin = "log.example.org/other"
    roll = notary.call_roll(standing(LEDGER))
    notary.origin = ORIGIN
    report = judge(LEDGER.records, evidence(notary, notary.answer(roll, LEDGER.chain_id)))
    assert report.verdict is T and any("names another log" in f.reason for f in report.findings)


# --- what the log knows and the ledger does not


def cut(segments: int) -> list:  # type: ignore[type-arg]
    """The ledger without what follows its first segments."""
    return [r for r in LEDGER.records if r.segment < segments]


@pytest.mark.parametrize("left", [1, 2, 3])
def test_attack_3_a_sealed_tail_cut_off(left: int) -> None:
    """INCOMPLETE with a later receipt or roll-call; without one the end is UNANCHORED, and that is said."""
    notary = logged()
    roll = notary.call_roll(standing(LEDGER))
    report = judge(cut(left), evidence(notary, notary.of_seal(LEDGER, 3)))
    assert report.verdict is INCOMPLETE and report.first_bad().segment == 3  # type: ignore[union-attr]
    report = judge(cut(left), evidence(notary, notary.answer(roll, LEDGER.chain_id)))
    assert report.verdict is INCOMPLETE
    assert any(f.verdict is INCOMPLETE and f.segment == 3 for f in report.findings)
    assert any(f.verdict is INCOMPLETE and f.seq == LEDGER.seq - 1 for f in report.findings)
    assert judge(cut(left), evidence(notary, notary.of_seal(LEDGER, left - 1))).verdict is U


def test_attack_8_an_old_copy_that_ends_in_close() -> None:
    """With its own receipts UNANCHORED, with a later roll-call INCOMPLETE at what it names."""
    notary = logged()
    old = cut(2)
    mine = [notary.of_seal(LEDGER, 0), notary.of_seal(LEDGER, 1)]
    assert judge(old, evidence(notary, *mine)).verdict is U
    answer = notary.answer(notary.call_roll(standing(LEDGER)), LEDGER.chain_id)
    report = judge(old, evidence(notary, answer))
    assert report.verdict is INCOMPLETE and report.first_bad().segment == 3  # type: ignore[union-attr]


def test_an_epoch_that_the_log_knows_and_the_ledger_does_not() -> None:
    notary = logged()
    report = judge(cut(2), evidence(notary, notary.receipt(note.parse(LEDGER.notes[1]).text)))
    assert report.verdict is INCOMPLETE and report.first_bad().segment == 2  # type: ignore[union-attr]


def forged() -> Scribe:
    """Attack 11: the identity key and an own seed; everything anew, other decisions, the same shape."""
    s = Scribe()
    s.signing = {i: signing_key("mallory", i) for i in range(4)}
    s.open(seed=bytes(32))
    s.policy()
    s.outcome(s.decision("DENY", enforced=False))
    s.seal("count")
    s.decision("ALLOW")
    s.close()
    s.open(seed=bytes(32))
    s.seal("time")
    s.decision()
    s.close()
    return s


@pytest.mark.parametrize("segment", range(4))
def test_attack_11_everything_anew_shows_against_each_receipt(segment: int) -> None:
    notary = logged()
    new = forged()
    assert new.chain_id == LEDGER.chain_id and judge(new.records).verdict is U
    report = judge(new.records, evidence(notary, notary.of_seal(LEDGER, segment)))
    assert report.verdict is T and report.first_bad().segment == segment  # type: ignore[union-attr]
    roll = notary.call_roll(standing(LEDGER))
    report = judge(new.records, evidence(notary, notary.answer(roll, LEDGER.chain_id)))
    assert report.verdict is T
    assert any(f.seq == LEDGER.seq - 1 and "another entry" in f.reason for f in report.findings)
    report = judge(new.records, evidence(notary, notary.receipt(note.parse(LEDGER.notes[0]).text)))
    assert report.verdict is T and report.first_bad().segment == 0  # type: ignore[union-attr]


# --- trust


def test_a_custodian_that_the_trust_file_does_not_know() -> None:
    notary = logged()
    known = frozenset([sha256(LEDGER.custody.custodians[0].spki).digest()])
    trust = dataclasses.replace(notary.trust(LEDGER), custodians=known)
    assert judge(LEDGER.records, Evidence(trust=trust)).verdict is U
    other = dataclasses.replace(trust, custodians=frozenset([bytes(32)]))
    report = judge(LEDGER.records, Evidence(trust=other))
    assert report.verdict is T and (report.first_bad().segment, report.first_bad().seq) == (0, 0)  # type: ignore[union-attr]
