"""Attacks 9 to 13, 16, 18 to 20: by those who hold a custodian's, the identity's, a segment's or a process's keys."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence

import pytest

from sidecar.chain import entry, lines, note, strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.epoch import EpochNote
from sidecar.chain.head import Decided, Head
from sidecar.chain.ratchet import evolve
from sidecar.chain.seeds import Custody, SealedShare, seeds_digest
from sidecar.chain.stream import Kind
from sidecar.verify import Disclosure, Evidence, Trust, Verdict
from tests.attacks.expect import T, at, found, nothing_worse, seal_of
from tests.scribe import NO_EVIDENCE, Record, Scribe, public, secret, signing_key, story, toy_open

STORY = story()
KNOWN = pytest.mark.parametrize("evidence", [NO_EVIDENCE, STORY.keyed], ids=["no key", "key"])
MALLORY = signing_key("mallory")


def retold(s: Scribe) -> list[Record]:
    """The story's first segment with another decision in it, and a second segment."""
    s.policy()
    s.outcome(s.decision("DENY", enforced=False))
    s.seal("count")
    s.decision()
    s.head()
    return s.records


@KNOWN
def test_attack_10_a_custodian_rewrites_everything(evidence: Evidence) -> None:
    """It can open every seed and so make every tag; it has neither the identity key nor any segment's."""
    forger = Scribe(identity=MALLORY)
    forger.open()
    found(retold(forger), T, 0, 0, evidence)


@KNOWN
def test_attack_10_a_custodian_keeps_the_epoch_note(evidence: Evidence) -> None:
    forger = Scribe()
    forger.open()
    forger.signing[0] = MALLORY
    found(retold(forger), T, 0, None, evidence)


def forged_chain() -> list[Record]:
    forger = Scribe()
    forger.signing = {i: signing_key("mallory", i) for i in range(2)}
    forger.open(seed=secret("mallory"))
    return retold(forger)


@KNOWN
def test_attack_11_identity_key_and_own_seed(evidence: Evidence) -> None:
    """Nothing inside the ledger can tell; a receipt of the true one can."""
    report = nothing_worse(forged_chain(), evidence)
    assert "that nobody rewrote the whole ledger: no receipt of a pinned log" in report.not_checked
    whole = report.findings[-1]
    assert (whole.verdict, whole.segment, whole.seq) == (Verdict.UNANCHORED, None, None)
    held = dataclasses.replace(evidence, receipts=[STORY.receipt(3)])
    found(forged_chain(), T, 0, 3, held)


def thief(s: Scribe) -> Scribe:
    """Who broke in during segment 1: the true note and OPEN, then only the ratchet's state and key of segment 1."""
    s.open()
    s.policy()
    s.signing[1] = signing_key("alpha", "segment", 1)
    s.signing[0] = s.signing[1]
    s.key = secret("guess")
    return s


def test_attack_12_rewrite_the_segment_before() -> None:
    s = thief(Scribe())
    s.outcome(s.decision("DENY", enforced=False))
    s.seal("count")
    s.decision()
    s.head()
    found(s.records, T, 0, None)
    found(s.records, T, 0, 3, s.keyed)


def test_attack_12_keep_the_true_seal() -> None:
    s = thief(Scribe())
    s.outcome(s.decision("DENY", enforced=False))
    records = [*s.records, *STORY.records[len(s.records) :]]
    found(records, T, 0, 4)
    found(records, T, 0, 3, s.keyed)


def test_attack_13_reseal_with_a_newer_key() -> None:
    """CVE-2023-31439: old entries under a newer key, tags as well as seal."""
    s = Scribe()
    s.open()
    s.policy()
    s.signing[1] = signing_key("alpha", "segment", 1)
    s.signing[0] = s.signing[1]
    s.key = STORY.keys[1].mac_key
    s.outcome(s.decision("DENY", enforced=False))
    s.seal("count")
    found(s.records, T, 0, None)
    found(s.records, T, 0, 3, s.keyed)


def test_attack_13_under_the_newer_keys_own_name() -> None:
    records = list(STORY.records)
    text = note.parse(STORY.seals[0]).text
    data = note.sign(text, lines.segment_name(STORY.chain_id, 1), STORY.signing[1])
    records[seal_of(records, 0)] = Record(Kind.SEAL, data, 0)
    found(records, Verdict.MALFORMED, 0, None)


def auditor(segment: int) -> Evidence:
    return Evidence(disclosure=Disclosure(STORY.chain_id, {segment: STORY.keys[segment]}))


@pytest.mark.parametrize("evidence", [NO_EVIDENCE, STORY.keyed, auditor(1)], ids=["no key", "key", "disclosure"])
def test_attack_16_forge_with_a_disclosed_key(evidence: Evidence) -> None:
    """All tags of segment 1 are right, and what the seal signed is not there."""
    s = story_until_segment_1()
    s.decision("ALLOW")
    s.decision(proof="mtls")
    s.rejected()
    records = [*s.records, *STORY.records[seal_of(STORY.records, 1) :]]
    found(records, T, 1, 7, evidence)


def story_until_segment_1() -> Scribe:
    s = Scribe()
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    return s


def test_attack_16_another_segments_key() -> None:
    wrong = Disclosure(STORY.chain_id, {1: STORY.keys[0]})
    report = found(STORY.records, T, 1, None, Evidence(disclosure=wrong))
    assert report.findings_total == 3, report.findings
    found(STORY.records, T, 1, None, Evidence(open_seed=toy_open, disclosure=wrong))


def test_attack_16_a_key_for_a_segment_without_commitments_is_not_used() -> None:
    """Segment 4 ended by a crash: a made-up key must neither condemn nor confirm it."""
    wrong = Disclosure(STORY.chain_id, {4: STORY.keys[0]})
    report = nothing_worse(STORY.records, Evidence(disclosure=wrong))
    assert "tags under the disclosed keys of segment 4: no seal commits to these keys" in report.not_checked


@pytest.mark.parametrize("seq", [5, 6, 7])
def test_attack_16_a_wrong_tag_shows_under_a_disclosure(seq: int) -> None:
    """The sidecar itself tagged wrongly: links and signatures fit, the tag does not."""
    s = story_until_segment_1()
    for place in (5, 6, 7):
        right, s.key = s.key, secret("wrong") if place == seq else s.key
        s.decision()
        s.key = evolve(right)
    s.seal("count")
    nothing_worse(s.records)
    found(s.records, T, 1, seq, auditor(1))
    found(s.records, T, 1, seq, s.keyed)


class BadShare(Scribe):
    """Wraps rubbish for one custodian."""

    def _wrap(self, seed: bytes) -> list[SealedShare]:
        shares = super()._wrap(seed)
        shares[1] = SealedShare(shares[1].commit, bytes(64))
        return shares


@pytest.mark.parametrize("mode", ["any", "all"])
def test_attack_18_a_bad_share(mode: str) -> None:
    s = BadShare(mode=mode, custodians=3)
    s.open()
    s.head()
    nothing_worse(s.records)
    bad = found(s.records, T, 0, 1, s.keyed).first_bad()
    assert bad is not None and "custodian-1" in bad.reason


class OtherSeed(Scribe):
    """Wraps another seed than the one committed to."""

    def _wrap(self, seed: bytes) -> list[SealedShare]:
        return super()._wrap(secret("another"))


def test_attack_18_another_seed() -> None:
    s = OtherSeed(mode="all", custodians=2)
    s.open()
    s.head()
    bad = found(s.records, T, 0, 1, s.keyed).first_bad()
    assert bad is not None and "commits" in bad.reason


@KNOWN
def test_attack_18_swap_a_wrapped_seed_on_disk(evidence: Evidence) -> None:
    opening = strictjson.parse_object(STORY.openings[0])
    opening["seeds"][0]["sealed"] = base64.b64encode(bytes(64)).decode()
    records = list(STORY.records)
    i = at(records, 1)
    payload = strictjson.dumps(opening)
    salt = records[i].body[216:248]
    header = dataclasses.replace(
        STORY.headers[1], payload_commit=entry.payload_commit(salt, payload), payload_len=len(payload)
    )
    records[i] = Record(Kind.ENTRY, entry.store(header.encode(), records[i].body[184:216], salt, payload), 0, 1)
    found(records, T, 0, 1, evidence)


class Swapped(Scribe):
    """An epoch note with changed lines, signed by the identity key."""

    changed: dict[str, bytes]

    def _epoch_note(self, seed: bytes, shares: Sequence[SealedShare]) -> EpochNote:
        return dataclasses.replace(super()._epoch_note(seed, shares), **self.changed)


@KNOWN
@pytest.mark.parametrize("line", ["custodians", "seeds"])
def test_attack_18_custodians_or_seeds_swapped_in_the_epoch_note(line: str, evidence: Evidence) -> None:
    s = Swapped()
    other = Custody("all", s.custody.custodians).digest() if line == "custodians" else seeds_digest([])
    s.changed = {line: other}
    s.open()
    s.head()
    found(s.records, T, 0, 0 if line == "custodians" else 1, evidence)


@KNOWN
def test_attack_18_first_signing_key_swapped(evidence: Evidence) -> None:
    records = list(STORY.records)
    text = note.parse(records[1].body).text
    theirs = dataclasses.replace(EpochNote.parse(text), key=public(MALLORY)).text()
    records[1] = Record(Kind.EPOCH, note.sign(theirs, lines.identity_name(STORY.chain_id), MALLORY), 0)
    found(records, T, 0, 0, evidence)


def test_attack_19_a_tag_key_that_is_not_the_seeds() -> None:
    s = Scribe()
    s.open()
    s.decision(proof="mtls")
    s.seal("count", tag_key=secret("other"))
    nothing_worse(s.records)
    found(s.records, T, 0, None, s.keyed)
    found(s.records, T, 0, None, Evidence(disclosure=Disclosure(s.chain_id, s.keys)))


@pytest.mark.parametrize("known", ["custodian", "disclosure"])
def test_attack_19_a_wrong_agent_tag_beside_its_payload(known: str) -> None:
    s = Scribe()
    s.open()
    value = strictjson.dumps(s.decision_value("ALLOW", "mtls"))
    s.write(EntryType.DECISION, value, agent="somebody-else")
    s.seal("count")
    nothing_worse(s.records)
    disclosed = Evidence(disclosure=Disclosure(s.chain_id, s.keys))
    found(s.records, T, 0, 2, s.keyed if known == "custodian" else disclosed)


@KNOWN
@pytest.mark.parametrize("proof", ["asserted", "mtls"])
def test_attack_19_a_tag_that_does_not_go_with_the_proof(proof: str, evidence: Evidence) -> None:
    s = Scribe()
    s.open()
    value = strictjson.dumps(s.decision_value("ALLOW", proof))
    s.write(EntryType.DECISION, value, agent="billing-agent" if proof == "asserted" else None)
    s.head()
    found(s.records, T, 0, 2, evidence)


@KNOWN
def test_attack_20_answer_allow_record_deny(evidence: Evidence) -> None:
    s = Scribe()
    s.open()
    seq = s.decision("DENY")
    s.head()
    value = s.payloads[seq]
    told = Decided(value["decision_id"], "ALLOW", bytes.fromhex(value["request_digest"]))
    nothing_worse(s.records, evidence)
    nothing_worse(s.records, dataclasses.replace(evidence, receipts=[s.receipt(seq)]))
    found(s.records, T, 0, seq, dataclasses.replace(evidence, receipts=[told_otherwise(s, seq, told)]))


def told_otherwise(s: Scribe, seq: int, told: Decided) -> bytes:
    """A receipt validly signed by the sidecar, with another decision in it."""
    head = dataclasses.replace(Head.parse(note.parse(s.receipt(seq)).text), decided=told)
    return note.sign(head.text(), lines.segment_name(s.chain_id, 0), s.signing[0])


@KNOWN
def test_attack_20_record_another_request(evidence: Evidence) -> None:
    """The digest is the caller's, the request recorded under it is not."""
    s = Scribe()
    s.open()
    value = s.decision_value("ALLOW")
    value["request"]["arguments"] = '{"amount":1}'
    seq = s.write(EntryType.DECISION, strictjson.dumps(value))
    s.head()
    found(s.records, T, 0, seq, dataclasses.replace(evidence, receipts=[s.receipt(seq)]))


@KNOWN
def test_attack_9_another_genesis_against_the_pin(evidence: Evidence) -> None:
    other = Scribe(nonce=secret("another"))
    other.open()
    other.head()
    pin = Trust({STORY.chain_id: public(STORY.identity)})
    nothing_worse(STORY.records, dataclasses.replace(evidence, trust=pin))
    found(other.records, T, 0, 0, dataclasses.replace(evidence, trust=pin))
