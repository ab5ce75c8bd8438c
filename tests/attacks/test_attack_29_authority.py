"""Attack 29: payloads that are gone, losses that are accepted, with and without the authority (LEDGER.md rule 13)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest

from sidecar.chain import note
from sidecar.chain.acts import AcceptLoss, Position, Prune, Run
from sidecar.chain.entry import EntryType
from sidecar.chain.stream import Kind
from sidecar.verify import Evidence, Verdict
from tests.attacks.expect import at, found
from tests.notary import Notary, standing
from tests.scribe import Record, Scribe, judge, secret, signing_key

LACKS, T, M, PRUNED, OK = Verdict.INCOMPLETE, Verdict.TAMPERED, Verdict.MALFORMED, Verdict.PRUNED, Verdict.OK


def whole(name: str = "alpha", retention: str = "default") -> Scribe:
    """Segments 0 to 3, each type of entry, in two epochs that ended in order; entries 3 and 4 may be pruned of 0."""
    s = Scribe(name, authority=True, retention=retention)
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.decision("DENY", proof="mtls")
    s.rejected()
    s.close()
    s.open()
    s.seal("time")
    s.decision()
    s.close()
    return s


def logged(s: Scribe, *, upto: int | None = None, pinned: bool = True) -> Evidence:
    """A pinned log that holds the chain, or only the seals up to one."""
    notary = Notary()
    notary.take(s, segments=None if upto is None else range(upto + 1))
    receipts = [notary.of_seal(s, max(s.seals) if upto is None else upto)]
    if upto is None:
        receipts = [notary.answer(notary.call_roll(standing(s)), s.chain_id)]
    return Evidence(trust=notary.trust(s) if pinned else None, logged=receipts, open_seed=s.keyed.open_seed)


def prune(s: Scribe, *runs: tuple[int, int]) -> Prune:
    return Prune(s.chain_id, tuple(s.run(*run) for run in runs), "retention is over")


def test_pruned_with_the_authority() -> None:
    """PRUNED, at the first entry without payload; nothing else is found, with a key and without."""
    s = whole()
    s.grant(prune(s, (0, 1)))
    assert s.strip(0, 1) == [3, 4, 5, 6]
    evidence = logged(s)
    for each in (evidence, dataclasses.replace(evidence, open_seed=None)):
        report = judge(s.records, each)
        assert report.verdict is PRUNED, report.findings
        assert [(f.verdict, f.segment, f.seq) for f in report.findings] == [(PRUNED, 0, 3)]
        assert "retention is over" in report.findings[0].reason and "4 payloads" in report.findings[0].reason
        assert "payloads that are not here: 4" in report.not_checked and "not here (4 payloads)" in report.claim
    unpinned = judge(s.records, dataclasses.replace(evidence, trust=None))
    assert unpinned.verdict is Verdict.UNANCHORED and unpinned.first_bad() is None
    assert "that what was pruned was receipted before: no log is pinned" in unpinned.not_checked


def test_pruned_in_part_and_by_two_notes() -> None:
    s = whole()
    s.grant(prune(s, (0, 0)))
    s.grant(prune(s, (1, 3)))
    s.strip(0)
    i = at(s.records, 5)
    s.records[i] = Record(Kind.BARE, s.records[i].body[:216], 1, 5)
    report = judge(s.records, logged(s))
    assert [(f.verdict, f.segment, f.seq) for f in report.findings] == [(PRUNED, 0, 3), (PRUNED, 1, 5)]


def test_a_note_alone_changes_nothing() -> None:
    s = whole()
    s.grant(prune(s, (0, 3)))
    report = judge(s.records, logged(s))
    assert report.verdict is OK and "authority notes by the key that GENESIS names: 1" in report.checked


def test_a_pruned_segment_file() -> None:
    s = whole()
    s.grant(prune(s, (0, 1)))
    s.strip(0, 1)
    granted = [r for r in s.records if r.kind is Kind.AUTHORITY]
    file = s.segment_file(1)
    split = [r.kind for r in file].index(Kind.SEAL_BEFORE) + 1
    notary = Notary()
    notary.take(s)
    evidence = Evidence(trust=notary.trust(s), logged=[notary.of_seal(s, 1)])
    report = judge([*file[:split], *granted, *file[split:]], evidence)
    assert report.verdict is PRUNED and [(f.segment, f.seq) for f in report.findings] == [(1, 5)]
    found(file, LACKS, 1, 5, evidence)


Damage = Callable[[Scribe], None]


def _nobody(s: Scribe) -> None:
    pass


def _another_key(s: Scribe) -> None:
    s.grant(prune(s, (0, 1)), key=signing_key("mallory"))


def _another_chain(s: Scribe) -> None:
    other = whole("beta")
    s.grant(Prune(other.chain_id, prune(s, (0, 1)).runs, "of another chain"), key=s.authority)


def _another_history(s: Scribe) -> None:
    s.grant(Prune(s.chain_id, (Run(0, 1, secret("a seal that is not")),), "of another history"))


def _other_segments(s: Scribe) -> None:
    s.grant(prune(s, (1, 3)))


def _loss(s: Scribe) -> None:
    place = Position(1, 5, s.leaf_of(4))
    s.grant(AcceptLoss(s.chain_id, place, place._replace(seq=9), "another act"))


@pytest.mark.parametrize("damage", [_nobody, _another_key, _another_chain, _another_history, _other_segments, _loss])
def test_pruned_without_the_authority(damage: Damage) -> None:
    """INCOMPLETE at the first payload that is gone: a note of another key, chain, history, place or act is none."""
    s = whole()
    damage(s)
    s.strip(0)
    found(s.records, LACKS, 0, 3, logged(s))


def test_the_identity_key_is_not_the_authority() -> None:
    """Whoever runs the sidecar cannot prune, and a chain without authority is never pruned."""
    s = whole()
    s.grant(prune(s, (0, 1)), key=s.identity)
    s.strip(0)
    found(s.records, LACKS, 0, 3, logged(s))
    s = Scribe("none")
    s.open()
    s.decision()
    s.seal("count")
    s.grant(prune(s, (0, 0)), key=signing_key("none", "authority"))
    s.strip(0)
    report = judge(s.records)
    assert report.verdict is LACKS and (0, 2) in [(f.segment, f.seq) for f in report.findings]


@pytest.mark.parametrize("upto", [0, 1, 2])
def test_pruned_before_it_was_receipted(upto: int) -> None:
    """A note over segments that no receipt covers: INCOMPLETE, never PRUNED."""
    s = whole()
    s.grant(prune(s, (0, 3)))
    s.strip(0, 1, 3)
    found(s.records, LACKS, 0, 3, logged(s, upto=upto))


@pytest.mark.parametrize(("profile", "days", "verdict"), [
    ("sec-17a-4", 2_191, LACKS), ("sec-17a-4", 2_193, PRUNED), ("eu-ai-act", 183, LACKS), ("eu-ai-act", 185, PRUNED),
    ("of another house", 1, PRUNED),
])  # fmt: skip
def test_a_retention_profile(profile: str, days: int, verdict: Verdict) -> None:
    """INCOMPLETE where the authority allowed it before the profile of GENESIS does; a profile nobody knows is said."""
    s = whole(retention=profile)
    s.grant(prune(s, (0, 1)), time=s.headers[5].wall_ns + days * 86_400 * 10**9)
    s.strip(0, 1)
    report = judge(s.records, logged(s))
    assert (report.verdict, report.findings[0].segment, report.findings[0].seq) == (verdict, 0, 3)
    assert any("profile is not known" in line for line in report.not_checked) == (profile == "of another house")


@pytest.mark.parametrize("kind", [EntryType.GENESIS, EntryType.OPEN, EntryType.POLICY, EntryType.CLOSE])
def test_what_must_stay(kind: EntryType) -> None:
    """GENESIS, OPEN, POLICY, CLOSE: no note takes their payloads away."""
    s = whole()
    s.grant(prune(s, (0, 3)))
    i = next(i for i, r in enumerate(s.records) if r.kind is Kind.ENTRY and r.body[8] == kind)
    s.records[i] = Record(Kind.BARE, s.records[i].body[:216], s.records[i].segment, s.records[i].seq)
    report = judge(s.records, logged(s))
    assert report.verdict is LACKS
    assert (s.records[i].segment, s.records[i].seq) in [
        (f.segment, f.seq) for f in report.findings if f.verdict is LACKS
    ]


@pytest.mark.parametrize("offset", [8, 16, 40, 70, 100, 140, 190])
def test_a_pruned_entry_is_checked_as_ever(offset: int) -> None:
    """Its header and tag are linked, sealed and tagged: a bit flipped is found at its place."""
    s = whole()
    s.grant(prune(s, (0, 1)))
    s.strip(0, 1)
    i = next(i for i, r in enumerate(s.records) if r.kind is Kind.BARE and r.seq == 4)
    body = bytearray(s.records[i].body)
    body[offset] ^= 1
    s.records[i] = Record(Kind.BARE, bytes(body), 0, 4)
    report = judge(s.records, logged(s))
    bad = report.first_bad()
    assert report.verdict >= T and bad is not None and (bad.segment, bad.seq) == (0, 4)


def test_of_no_length_of_its_own() -> None:
    s = whole()
    s.grant(prune(s, (0, 1)))
    s.strip(0, 1)
    for body in (s.records[-1].body[:0], bytes(215), bytes(217), bytes(300)):
        records = copy.deepcopy(s.records)
        i = next(i for i, r in enumerate(records) if r.kind is Kind.BARE and r.seq == 4)
        records[i].body = body
        found(records, M, 0, 4, logged(s))


def test_a_receipt_for_what_was_pruned() -> None:
    """Its leaf is compared, what it says of the decision is not: that went with the payload."""
    s = whole()
    good, bad = s.receipt(3), s.sign_head(3, decided=True, leaf=secret("another"))
    s.grant(prune(s, (0, 1)))
    s.strip(0, 1)
    evidence = logged(s)
    assert judge(s.records, dataclasses.replace(evidence, receipts=[good])).verdict is PRUNED
    found(s.records, Verdict.FORK, 0, 3, dataclasses.replace(evidence, receipts=[bad]))


def test_notes_out_of_place_or_order() -> None:
    s = whole()
    s.grant(prune(s, (0, 0)))
    s.grant(prune(s, (0, 1)))
    i = next(i for i, r in enumerate(s.records) if r.kind is Kind.AUTHORITY)
    swapped = [*s.records[:i], s.records[i + 1], s.records[i], *s.records[i + 2 :]]
    late = [*s.records[:i], *s.records[i + 2 :], s.records[i]]
    twice = [*s.records[:i], s.records[i], *s.records[i:]]
    for records in (swapped, late, twice):
        assert judge(records, logged(s)).verdict is M
    cut = list(s.records)
    cut[i] = Record(Kind.AUTHORITY, cut[i].body[:-1], 0)
    assert judge(cut, logged(s)).verdict is M


# --- losses


def lossy(*, kept: int = 4, named: bool = True, granted: bool = True, key: str = "authority") -> tuple[Scribe, Scribe]:
    """A chain that was restored from a copy that ends in segment 1, at entry 5, and the history that was lost."""
    s = Scribe("alpha", authority=True)
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    lost = copy.deepcopy(s)
    lost.decision("DENY")
    lost.seal("count")
    lost.decision()
    lost.seal("count")
    act = AcceptLoss(
        s.chain_id, Position(1, 5, s.leaf_of(kept)), Position(3, lost.seq, lost.leaf_of(lost.seq - 1)), "disk lost"
    )
    s.crash()
    record = s.grant(act, key=signing_key("alpha", key))
    s.signing[2] = signing_key("alpha", "drawn again")
    s.open(**({"accepted_loss": record} if named else {}))
    if not granted:
        s.records = [r for r in s.records if r.kind is not Kind.AUTHORITY]
    s.decision()
    s.close()
    return s, lost


def test_an_accepted_loss() -> None:
    """INCOMPLETE where the chain goes on: the authority accepted it, and it is missing all the same."""
    s, lost = lossy()
    notary = Notary()
    notary.take(lost)
    before = notary.call_roll(standing(lost), time=s.wall_offset // 10**9)
    notary.take(s, segments=[1, 2])
    notary.entries.append(note.parse(s.notes[1]).text)
    after = notary.call_roll(standing(s))
    receipts = [notary.of_seal(lost, 1), notary.of_seal(lost, 2), notary.answer(before, s.chain_id)]
    evidence = Evidence(trust=notary.trust(s), logged=[*receipts, notary.answer(after, s.chain_id)])
    report = found(s.records, LACKS, 2, 5, evidence)
    assert [f.verdict for f in report.findings if f.verdict > Verdict.UNANCHORED] == [LACKS]
    assert "disk lost" in next(f.reason for f in report.findings if f.verdict is LACKS)
    assert sum("was lost with the authority's consent" in line for line in report.not_checked) == 3
    held = dataclasses.replace(evidence, receipts=[lost.receipt(6)])
    assert found(s.records, LACKS, 2, 5, held).findings_total == report.findings_total
    unaccepted, _ = lossy(named=False, granted=False)
    assert judge(unaccepted.records, evidence).verdict is T


@pytest.mark.parametrize("how", ["no note", "another key"])
def test_a_loss_that_the_authority_did_not_accept(how: str) -> None:
    s, _ = lossy(granted=False) if how == "no note" else lossy(key="mallory")
    found(s.records, LACKS, 2, 5)
    assert "the note that accepts a loss" in " ".join(f.reason for f in judge(s.records).findings)


def test_a_loss_accepted_for_another_place() -> None:
    s, _ = lossy(kept=3)
    found(s.records, T, 2, 5)
