"""Permits: an outcome whose permit is forged, for something else or used late; a decision that grants what it must not.

All tags, signatures of the chain and of the principals are right throughout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.chain import lines, note, strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.permit import Permit
from sidecar.errors import Malformed
from tests.attacks.expect import T, found, nothing_worse
from tests.scribe import EXECUTOR, Scribe, registry_text, signing_key


def begun(registry: bytes | None = None) -> Scribe:
    """GENESIS, OPEN, REGISTRY, and at 3 a decision with a permit."""
    s = Scribe("signed")
    s.open()
    s.registry(registry)
    s.signed_decision()
    return s


def test_an_outcome_with_its_permit() -> None:
    s = begun()
    s.signed_outcome(3)
    s.head()
    report = nothing_worse(s.records)
    assert "permits of 1 outcome against the identity key and what the outcomes say" in report.checked


CHANGES: dict[str, dict[str, Any]] = {
    "chain": {"chain_id": bytes(32)},
    "decision": {"decision_id": "019aaf3c-0000-7000-8000-000000000009"},
    "seq": {"seq": 2},
    "agent": {"agent": "payroll-agent"},
    "executor": {"executor": "mallory-gateway"},
    "arguments": {"arguments": bytes(32)},
    "ended": {"not_after": 1},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_permit_for_something_else(what: str) -> None:
    s = begun()
    changed = dataclasses.replace(s.permit(3), **CHANGES[what])
    text = note.parse(changed.sign(s.identity)).text
    s.permitted_outcome(3, note.sign(text, lines.identity_name(s.chain_id), s.identity))
    s.head()
    found(s.records, T, 0, 4)


FORGERIES: dict[str, Callable[[Scribe, Permit], bytes]] = {
    "by another key": lambda s, p: p.sign(signing_key("mallory")),
    "two signatures": lambda s, p: p.sign(s.identity) + p.sign(s.identity).split(b"\n\n")[1],
    "text": lambda s, p: b"yes",
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_permit(what: str) -> None:
    s = begun()
    s.permitted_outcome(3, FORGERIES[what](s, s.permit(3)))
    s.head()
    found(s.records, T, 0, 4)


def test_an_action_begun_at_the_end_of_its_permit_and_before() -> None:
    s = begun()
    until = s.permit(3).not_after
    permit = s.permit(3).sign(s.identity)
    s.permitted_outcome(3, permit, until - 1)
    s.permitted_outcome(3, permit, until)
    s.head()
    found(s.records, T, 0, 5)


def outcome(s: Scribe, **changed: Any) -> None:
    """The outcome of the decision at 3, asserted, changed."""
    about = s.payloads[3]
    value = {**s.outcome_value(3), "agent": {n: about["agent"][n] for n in ("id", "proof")}} | changed
    s.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=3, agent="billing-agent")
    s.head()


def asserted(name: str) -> dict[str, Any]:
    return {"id": name, "proof": "asserted", "roles": ["billing"], "attributes": {"team": "finance"}}


def test_an_executor_without_a_permit() -> None:
    s = begun()
    outcome(s, by=asserted(EXECUTOR))
    found(s.records, T, 0, 4)


def test_what_was_blocked_was_not_begun() -> None:
    s = begun()
    given = s.permit(3)
    brought = {"permit": given.sign(s.identity).decode(), "arguments_digest": given.arguments.hex()}
    outcome(s, by=asserted(EXECUTOR), status="blocked", **brought)
    nothing_worse(s.records)
    for status in ("executed", "failed"):
        s = begun()
        outcome(s, by=asserted(EXECUTOR), status=status, **brought)  # and does not say when
        found(s.records, T, 0, 4)


GRANTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a permit for a DENY": lambda v: v.update(effect="DENY"),
    "a permit for nobody": lambda v: (v.update(executor=None), v["request"].update(executor="")),
    "no permit": lambda v: v.update(permit=None),
    "another executor": lambda v: v["executor"].update(id="billing-agent"),
    "no executor": lambda v: v.update(executor=None, permit=None),
    "other roles": lambda v: v["executor"].update(roles=["chief"]),
    "no registry": lambda v: v.update(registry=None),
}


@pytest.mark.parametrize("what", GRANTS)
def test_a_decision_that_grants_what_it_must_not(what: str) -> None:
    """Its agent's name is asserted, so that no signature of the agent's speaks against the change."""
    s = begun()
    value = {**s.decision_value("ALLOW", executor=EXECUTOR), "agent": asserted("billing-agent")}
    s.write(EntryType.DECISION, strictjson.dumps(value))
    s.head()
    nothing_worse(s.records)
    GRANTS[what](value)
    value["decision_id"] = s.decision_value("ALLOW")["decision_id"]
    s.write(EntryType.DECISION, strictjson.dumps(value))
    s.head()
    found([r for r in s.records if r.kind != 6 or r is s.records[-1]], T, 0, 5)


@pytest.mark.parametrize("changed", [{"status": "suspended"}, {"kind": "agent"}, {"id": "payments-api"}])
def test_an_executor_that_is_none(changed: dict[str, Any]) -> None:
    text = strictjson.parse_object(registry_text())
    text["principals"][1] |= changed
    s = begun(strictjson.dumps(text))
    s.head()
    found(s.records, T, 0, 3)


def test_a_segment_file_has_the_key_for_its_permits() -> None:
    s = begun()
    s.seal("count")
    permit = s.permit(3).sign(signing_key("mallory"))
    s.permitted_outcome(3, permit)
    s.seal("count")
    found(s.segment_file(1), T, 1, 4)


def test_a_permit_is_read_back_as_it_was_signed() -> None:
    s = begun()
    given = s.permit(3)
    assert Permit.read(note.parse(given.sign(s.identity)).text, b"") == given
    with pytest.raises(Malformed):
        Permit.read("sidecar/v1/permit\n", b"")
