"""Approvals and delegations, by whoever has every key of the sidecar: what was not given, or was used up, shows.

All tags and signatures of the chain are right throughout. The story: 2 REGISTRY, 3 a decision that waits for two, 4, 5
their approvals, 6 the ALLOW under them.
"""

from __future__ import annotations

import copy
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.digests import Approval, arguments_digest
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import NO_SEQ
from sidecar.chain.payload import policy_time
from sidecar.chain.request import Given, recorded
from sidecar.chain.statement import Statement
from tests.attacks.expect import T, found, nothing_worse
from tests.people import delegated, key, person, registry_text
from tests.scribe import TERMS, Scribe, judge

Change = Callable[[dict[str, Any]], object]
KNOWN: dict[str, Any] = {"roles": ["billing"], "attributes": {"team": "finance"}}
PEOPLE = (
    *(person(name, "approver", "billing", attributes=KNOWN["attributes"]) for name in ("ann", "bob", "cleo")),
    person("billing-agent", "agent", "billing", attributes=KNOWN["attributes"]),
    person("ursula", "user", "billing", attributes=KNOWN["attributes"]),
)
TWO = {**TERMS, "count": 2, "roles": ["billing", "other"]}
GIVEN = delegated("ursula", "billing-agent")


def begun() -> Scribe:
    s = Scribe("approvals")
    s.open()
    s.registry(registry_text(*PEOPLE))
    return s


def nothing(_: dict[str, Any]) -> None:
    pass


def decide(s: Scribe, effect: str, change: Change = nothing, *given: Given, under: int | None = None) -> int:
    """A decision with these delegations; ``under``: the seq of the one that waited."""
    value = s.decision_value(effect)
    if under is not None:
        value["request"]["arguments"] = s.payloads[under]["request"]["arguments"]
    value["request"]["delegations"] = [
        {"text": g.text.decode(), "key": b64encode(g.key).decode(), "signature": b64encode(g.signature).decode()}
        for g in given
    ]
    value["delegators"] = [{"id": "ursula", "kind": "user", **KNOWN} for _ in given]
    if under is not None:
        about = s.payloads[under]
        named = [(seq, p) for seq, p in s.payloads.items() if p["type"] == "APPROVAL" and p["decision_seq"] == under]
        value["request"]["approval_of"] = about["decision_id"]
        value["approval"] = {
            "decision_id": about["decision_id"], "decision_seq": under,
            "approvals": [{"seq": seq, "time": signed_at(p), "by": {"id": p["by"]["id"], **KNOWN}} for seq, p in named],
        }  # fmt: skip
    change(value)
    value["request_digest"] = recorded(value).digest().hex()
    ref = NO_SEQ if value["approval"] is None else value["approval"]["decision_seq"]
    return s.write(EntryType.DECISION, strictjson.dumps(value), ref_seq=ref)


def signed_at(approval: dict[str, Any]) -> str:
    return policy_time(Statement.parse(approval["by"]["statement"].encode()).time)


def approve(s: Scribe, seq: int, by: str, verdict: str = "approve", change: Change = nothing) -> int:
    about = s.payloads[seq]
    asked = recorded(about)
    said = {
        "by": by, "decision_id": about["decision_id"], "verdict": verdict, "action_digest": asked.action_digest(),
        "arguments_digest": arguments_digest(asked.wanted.arguments), "comment": "",
        "bundle_digest": about["policy"]["bundle_digest"], "policy_revision": about["policy"]["revision"],
    }  # fmt: skip
    change(said)
    word = Approval(**said)
    value = {
        "type": "APPROVAL", "decision_id": word.decision_id, "decision_seq": seq,
        "agent": {"id": "billing-agent", "proof": "asserted"},
        "by": s.signed("approval", word.by, key(word.by), word.digest()), "verdict": verdict,
        "action_digest": word.action_digest.hex(), "arguments_digest": word.arguments_digest.hex(),
        "policy": {"revision": word.policy_revision, "bundle_digest": word.bundle_digest}, "comment": word.comment,
    }  # fmt: skip
    return s.write(EntryType.APPROVAL, strictjson.dumps(value), ref_seq=seq)


def waits(s: Scribe, *given: Given, **terms: Any) -> int:
    def change(value: dict[str, Any]) -> None:
        value["terms"] = {**TWO, **terms}

    return decide(s, "REQUIRE_APPROVAL", change, *given)


def headed(s: Scribe) -> Scribe:
    s.head()
    return s


def story() -> Scribe:
    s = begun()
    seq = waits(s, GIVEN)
    approve(s, seq, "ann")
    approve(s, seq, "bob")
    decide(s, "ALLOW", nothing, GIVEN, under=seq)
    return s


def test_the_story_as_it_should_be() -> None:
    s = story()
    asked = waits(s)
    approve(s, asked, "ann", "reject")
    late = waits(s)
    approve(s, late, "cleo")
    s.seal("count")
    approve(s, late, "ann")
    decide(s, "DENY", under=late)  # which uses nothing up
    decide(s, "ALLOW", under=late)
    nothing_worse(headed(s).records)


def test_a_second_allow() -> None:
    s = story()
    decide(s, "ALLOW", nothing, GIVEN, under=3)
    found(headed(s).records, T, 0, 7)


def test_an_allow_after_a_rejection() -> None:
    s = begun()
    seq = waits(s, count=1)
    approve(s, seq, "ann")
    approve(s, seq, "bob", "reject")
    decide(s, "ALLOW", lambda v: v["approval"]["approvals"].pop(), under=seq)
    found(headed(s).records, T, 0, 6)


def test_a_word_after_the_last_one() -> None:
    s = story()
    approve(s, 3, "cleo")
    found(headed(s).records, T, 0, 7)


@pytest.mark.parametrize("effect", ["ALLOW", "DENY"])
def test_what_did_not_wait_is_not_approved(effect: str) -> None:
    s = begun()
    approve(s, decide(s, effect), "ann")
    found(headed(s).records, T, 0, 4)


def set_to(**members: Any) -> Change:
    return lambda value: value.update(members)


@pytest.mark.parametrize(
    "change",
    [
        set_to(action_digest=bytes(32)),
        set_to(arguments_digest=bytes(32)),
        set_to(policy_revision="r2"),
        set_to(bundle_digest="ab" * 32),
        set_to(by="ursula"),
        set_to(by="billing-agent"),
        set_to(decision_id="019aaf3c-0000-7000-8000-00000000ffff"),
    ],
)
def test_an_approval_of_something_else_or_by_another(change: Change) -> None:
    s = begun()
    approve(s, waits(s, GIVEN), "ann", change=change)
    found(headed(s).records, T, 0, 4)


def test_an_approval_that_nobody_signed() -> None:
    s = begun()
    value = s.payloads[approve(s, waits(s, count=1), "ann")]
    s = begun()
    waits(s, count=1)
    by = {name: value["by"][name] for name in ("id", "roles", "attributes")} | {"proof": "asserted"}
    s.write(EntryType.APPROVAL, strictjson.dumps(value | {"by": by}), ref_seq=3)
    found(headed(s).records, T, 0, 4)


def test_an_approval_by_somebody_who_lost_the_role_or_the_trust() -> None:
    for changed in ({"status": "suspended"}, {"kind": "user"}):
        s = begun()
        seq = waits(s)
        for _ in range(2):  # one of the last two registries may be the one in force
            text = registry_text(*(p | changed if p["id"] == "ann" else p for p in PEOPLE), person(f"x{s.seq}", "user"))
            s.registry(text)
        approve(s, seq, "ann")
        found(headed(s).records, T, 0, 6)
    s = begun()
    approve(s, waits(s, roles=["other"]), "ann")
    found(headed(s).records, T, 0, 4)


def test_one_approver_twice() -> None:
    s = begun()
    seq = waits(s)
    approve(s, seq, "ann")
    approve(s, seq, "ann")
    found(headed(s).records, T, 0, 5)


def approvals(change: Callable[[list[dict[str, Any]]], object]) -> Change:
    return lambda value: change(value["approval"]["approvals"])


@pytest.mark.parametrize(
    "change",
    [
        approvals(lambda a: a.pop()),
        approvals(lambda a: a.clear()),
        approvals(lambda a: a[0]["by"].update(id="cleo")),
        approvals(lambda a: a[0].update(seq=2)),
        approvals(lambda a: a[0].update(seq=5)),
        approvals(lambda a: a[0].update(time="2026-01-01T00:00:00.000000000Z")),
        approvals(lambda a: a[0]["by"].update(roles=["billing", "more"])),
        approvals(lambda a: a.append(copy.deepcopy(a[0]))),
        approvals(lambda a: a[0]["by"].update(id="ursula")),
        lambda value: value["request"].update(approval_of=""),
        lambda value: value["request"].update(arguments='{"amount":1}'),
        lambda value: value.update(time="2026-01-01T01:00:01.000000000Z"),
        lambda value: value["policy"].update(revision="r2"),
        lambda value: value.update(terms=TERMS),
    ],
)
def test_an_allow_under_other_approvals_than_were_given(change: Change) -> None:
    s = begun()
    seq = waits(s, GIVEN)
    approve(s, seq, "ann")
    approve(s, seq, "bob")
    decide(s, "ALLOW", change, GIVEN, under=seq)
    found(headed(s).records, T, 0, 6)


WRONG = (
    delegated("ursula", "billing-agent", signer="ann"),
    delegated("ursula", "ann"),
    delegated("ursula", "billing-agent", actions=["pay"]),
    delegated("ursula", "billing-agent", resources=["invoice:other"]),
    delegated("ursula", "billing-agent", not_after="2026-01-01T00:00:01.000000000Z"),
    delegated("ursula", "billing-agent", audience="ab" * 32),
    Given(GIVEN.text, GIVEN.key, bytes(64)),
)


@pytest.mark.parametrize("given", WRONG)
def test_a_delegation_that_does_not_cover_it(given: Given) -> None:
    s = begun()
    decide(s, "ALLOW", nothing, given)
    found(headed(s).records, T, 0, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(delegators=[]),
        lambda value: value["delegators"][0].update(id="ann"),
        lambda value: value["delegators"][0].update(kind="agent"),
        lambda value: value["delegators"][0].update(roles=["more"]),
        lambda value: value.update(registry=None),
        lambda value: value["request"].update(delegations=[]),
    ],
)
def test_delegators_who_are_not_those(change: Change) -> None:
    s = begun()
    decide(s, "ALLOW", change, GIVEN)
    found(headed(s).records, T, 0, 3)


def test_a_delegator_whose_key_was_revoked() -> None:
    s = Scribe("approvals")
    s.open()
    key_gone = [PEOPLE[4]["keys"][0] | {"status": "revoked"}]
    s.registry(registry_text(*PEOPLE[:4], PEOPLE[4] | {"keys": key_gone}))
    decide(s, "ALLOW", nothing, GIVEN)
    found(headed(s).records, T, 0, 3)


def test_terms_go_with_the_effect() -> None:
    for effect, terms in (("ALLOW", TERMS), ("REQUIRE_APPROVAL", None)):
        s = begun()
        decide(s, effect, lambda value, terms=terms: value.update(terms=terms))  # type: ignore[misc]
        found(headed(s).records, T, 0, 3)


def test_a_segment_file_says_what_it_cannot_check() -> None:
    s = begun()
    seq = waits(s)
    approve(s, seq, "ann")
    s.seal("count")
    approve(s, seq, "bob")
    decide(s, "ALLOW", under=seq)
    s.seal("count")
    report = judge(s.segment_file(1))
    assert report.verdict.name == "UNANCHORED", report.findings
    assert any("what was approved, in 2 entries" in line for line in report.not_checked)
