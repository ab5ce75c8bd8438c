"""Attacks 26 to 28: timestamps that do not fit, checkpoints that do not agree, logs that nobody pinned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from sidecar.anchor import Door
from sidecar.anchor.authority import Authority, check, roots_of
from sidecar.chain import note
from sidecar.chain.consistency import Consistency
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.verify import Evidence, Report, Verdict
from tests.anchor.parties import OpensslAuthority, answering
from tests.attacks.expect import T
from tests.notary import Notary, ended, standing
from tests.scribe import judge, signing_key

OK, U, INCOMPLETE, FORK = Verdict.OK, Verdict.UNANCHORED, Verdict.INCOMPLETE, Verdict.FORK
LEDGER = ended()


def logged(witnesses: int = 0, *, key: str = "log") -> tuple[Notary, bytes]:
    """A log that holds the whole chain, and the receipt of its line in the roll-call."""
    notary = Notary(signing_key(key), witnesses=witnesses)
    notary.take(LEDGER)
    return notary, notary.answer(notary.call_roll(standing(LEDGER)), LEDGER.chain_id)


# --- 26


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> OpensslAuthority:
    return OpensslAuthority.make(tmp_path_factory.mktemp("tsa") / "ours")


@pytest.fixture(scope="module")
def mallory(tmp_path_factory: pytest.TempPathFactory) -> OpensslAuthority:
    return OpensslAuthority.make(tmp_path_factory.mktemp("tsa") / "mallory")


def stamped(by: OpensslAuthority, signed: bytes) -> Timestamp:
    with answering(lambda path, body: (200, by.reply(body))) as url:
        return Authority(Door(url), (by.root,)).vouch(signed)


def judged(notary: Notary, answer: bytes, stamps: Sequence[Timestamp], root: bytes) -> Report:
    roots = roots_of([root])
    given = [each.encode() for each in stamps]
    pinned = notary.trust(LEDGER, "any" if notary.witnesses else None)
    found = Evidence(trust=pinned, logged=[answer], timestamps=given, check_timestamp=lambda stamp: check(stamp, roots))
    return judge(LEDGER.records, found)


@pytest.mark.parametrize("witnesses", [0, 1])
@pytest.mark.parametrize("what", ["other bytes", "another nonce", "an untrusted root", "rubbish"])
def test_attack_26(authority: OpensslAuthority, mallory: OpensslAuthority, what: str, witnesses: int) -> None:
    """TAMPERED where nothing else vouches for the checkpoint's time, else a finding without weight."""
    notary, answer = logged(witnesses)
    signed = TlogProof.parse(answer).checkpoint
    good = stamped(authority, signed)
    wrong = {
        "other bytes": dataclasses.replace(stamped(authority, notary.signed(2)), checkpoint=good.checkpoint),
        "another nonce": dataclasses.replace(good, nonce=good.nonce ^ 1),
        "an untrusted root": stamped(mallory, signed),
        "rubbish": dataclasses.replace(good, response=b"rubbish"),
    }[what]
    report = judged(notary, answer, [good], authority.root)
    assert report.verdict is OK and any("timestamp authority saw" in line for line in report.notes)
    alone = judged(notary, answer, [wrong], authority.root)
    assert alone.verdict is (OK if witnesses else T)
    assert any(f.reason.startswith("timestamp 1:") for f in alone.findings)
    covered = judged(notary, answer, [good, wrong], authority.root)
    assert covered.verdict is OK and any(f.reason.startswith("timestamp 2:") for f in covered.findings)


def test_attack_26_a_timestamp_of_a_checkpoint_that_nothing_rests_on(authority: OpensslAuthority) -> None:
    notary, answer = logged()
    report = judged(notary, answer, [stamped(authority, notary.signed(2))], authority.root)
    assert report.verdict is OK and any("timestamp 1" in line for line in report.not_checked)


def test_attack_26_nobody_here_can_check_it(authority: OpensslAuthority) -> None:
    notary, answer = logged()
    stamp = stamped(authority, TlogProof.parse(answer).checkpoint)
    report = judge(
        LEDGER.records, Evidence(trust=notary.trust(LEDGER), logged=[answer], timestamps=[stamp.encode(), b"{}"])
    )
    assert report.verdict is Verdict.MALFORMED and any("timestamp 1" in line for line in report.not_checked)


# --- 27


def two(witnesses: int = 0) -> tuple[Notary, list[bytes]]:
    """Two receipts under checkpoints of different size: 5 entries, and all."""
    notary, answer = logged(witnesses)
    assert len(notary.entries) > 5
    return notary, [notary.of_seal(LEDGER, 0, 5), answer]


def with_files(notary: Notary, receipts: list[bytes], *files: bytes, quorum: str | None = None) -> Report:
    return judge(LEDGER.records, Evidence(trust=notary.trust(LEDGER, quorum), logged=receipts, consistency=files))


def test_attack_27_a_consistency_proof_missing() -> None:
    notary, receipts = two()
    report = with_files(notary, receipts)
    assert report.verdict is INCOMPLETE and any("no consistency proof" in f.reason for f in report.findings)
    assert with_files(notary, receipts, notary.consistency(5)).verdict is OK


def test_attack_27_a_chain_of_proofs_joins_too() -> None:
    notary, receipts = two()
    assert with_files(notary, receipts, notary.consistency(5, 6), notary.consistency(6)).verdict is OK
    # A tree that both are part of joins them as well; one that is part of both does not.
    longer = Notary()
    longer.entries = [*notary.entries, notary.entries[0]]
    above = [longer.consistency(5), longer.consistency(len(notary.entries))]
    assert with_files(notary, receipts, *above).verdict is OK
    below = [notary.of_seal(LEDGER, 0, 3), *receipts]
    report = with_files(notary, below, notary.consistency(3, 5), notary.consistency(3))
    assert report.verdict is INCOMPLETE


def test_attack_27_one_witness_of_both_joins_them() -> None:
    notary, receipts = two(1)
    assert with_files(notary, receipts).verdict is OK
    # Two witnesses that saw one each do not.
    notary, _ = logged(2)
    text = note.parse(LEDGER.seals[0]).text
    apart = [notary.receipt(text, 5, [0]), notary.receipt(text, None, [1])]
    assert with_files(notary, apart, quorum="any").verdict is INCOMPLETE


def test_attack_27_two_trees_of_one_size() -> None:
    notary, answer = logged()
    split = Notary()
    split.take(LEDGER)
    split.entries[0], split.entries[1] = split.entries[1], split.entries[0]
    split.call_roll(standing(LEDGER))
    assert split.tip().size == notary.tip().size and split.tip() != notary.tip()
    report = with_files(notary, [answer, split.of_seal(LEDGER, 1)])
    assert report.verdict is FORK and any("two trees" in f.reason for f in report.findings)


def test_attack_27_a_tree_that_does_not_extend_the_other() -> None:
    """The log showed five entries to one, and another start of the longer tree to the other."""
    notary, answer = logged()
    split = Notary()
    split.take(LEDGER, segments=[3, 2, 1, 0])
    split.take(LEDGER, segments=[0])
    small = split.receipt(note.parse(LEDGER.seals[0]).text, 5)
    report = with_files(notary, [small, answer], notary.consistency(5))
    assert report.verdict is FORK and any("does not extend" in f.reason for f in report.findings)
    # Without the proof nothing shows it, and that is INCOMPLETE.
    assert with_files(notary, [small, answer]).verdict is INCOMPLETE


def test_attack_27_consistency_files_that_are_none_or_mallorys() -> None:
    notary, receipts = two()
    assert with_files(notary, receipts, b"rubbish").verdict is Verdict.MALFORMED
    file = Consistency.parse(notary.consistency(5))
    thief = Notary(signing_key("mallory"))
    thief.entries = notary.entries
    report = with_files(notary, receipts, dataclasses.replace(file, checkpoint=thief.signed()).encode())
    assert report.verdict is T
    report = with_files(notary, receipts, notary.consistency(4))
    assert report.verdict is INCOMPLETE and any("consistency file 1" in line for line in report.not_checked)
    assert with_files(notary, receipts, dataclasses.replace(file, proof=file.proof[:-1]).encode()).verdict is FORK


# --- 28


@pytest.mark.parametrize("origin", ["log.example.org/mallory", "log.example.org/fleet"])
def test_attack_28_a_valid_receipt_of_a_log_that_is_not_pinned(origin: str) -> None:
    """TAMPERED against the pin; without a pin never OK."""
    pinned, _ = logged()
    other = Notary(signing_key("mallory"), origin)
    other.take(LEDGER)
    answer = other.answer(other.call_roll(standing(LEDGER)), LEDGER.chain_id)
    assert judge(LEDGER.records, Evidence(trust=other.trust(LEDGER), logged=[answer])).verdict is OK
    assert judge(LEDGER.records, Evidence(trust=pinned.trust(LEDGER), logged=[answer])).verdict is T
    assert judge(LEDGER.records, Evidence(logged=[answer])).verdict is U
    unpinned = dataclasses.replace(pinned.trust(LEDGER), policy=None)
    assert judge(LEDGER.records, Evidence(trust=unpinned, logged=[answer])).verdict is U
