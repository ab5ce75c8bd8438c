"""Who may approve, what counts now, and when an approval is over: the rules alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sidecar.chain.digests import Approval, arguments_digest
from sidecar.chain.registry import Registry
from sidecar.chain.request import Option, Request
from sidecar.decide import approvals
from sidecar.decide.approvals import Given, Now, Pending
from sidecar.decide.entries import Terms
from tests.decide.engines import VERSION
from tests.people import person, registry

ID = "0190a5b2-5c3d-7a10-8000-0123456789ab"
REQUEST = Request("billing-agent", Option("payments.refund", "account", "a-17", b'{"amount": 5}'))
PEOPLE = (
    person("ann", "approver", "lead"),
    person("bob", "approver", "lead"),
    person("cleo", "approver"),
    person("dan", "user", "lead"),
    person("eve", "approver", "lead", status="suspended"),
    person("fay", "approver", "lead"),
    person("billing-agent", "agent", "lead"),
)
EARLY, LATE = "2026-11-23T12:00:00.000000000Z", "2026-11-23T13:00:00.000000000Z"
NOW = Now(registry(*PEOPLE), EARLY, VERSION)


def pending(*by: str, count: int = 1, settled: Any = "") -> Pending:
    given = [Given(10 + n, EARLY, name) for n, name in enumerate(by)]
    barred = frozenset({"billing-agent", "fay"})
    digests = REQUEST.action_digest(), arguments_digest(REQUEST.wanted.arguments)
    terms, agent = Terms(count, ("lead",), LATE), {"id": "billing-agent", "proof": "asserted"}
    return Pending(7, ID, agent, barred, terms, VERSION, *digests, given, settled)


def says(by: str, verdict: str = "approve", **changes: Any) -> Approval:
    digests = REQUEST.action_digest(), arguments_digest(REQUEST.wanted.arguments)
    return dataclasses.replace(Approval(by, ID, verdict, *digests, VERSION.bundle_digest, VERSION.revision), **changes)


def without(name: str, **changes: Any) -> Registry:
    return registry(*(p | changes if p["id"] == name else p for p in PEOPLE))


def test_an_approver_with_the_role_is_heard() -> None:
    assert approvals.approval_fault(pending(), says("ann"), NOW) is None
    assert approvals.approval_fault(pending("ann"), says("bob"), NOW) is None
    assert approvals.approval_fault(pending("ann"), says("ann", "reject"), NOW) is None  # a change of mind


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (says("cleo"), "unauthorised"),
        (says("dan"), "unauthorised"),
        (says("eve"), "unauthorised"),
        (says("nobody"), "unauthorised"),
        (says("cleo", "reject"), "unauthorised"),
        (says("billing-agent"), "own"),
        (says("fay"), "own"),  # gave one of the request's delegations
        (says("ann", action_digest=bytes(32)), "altered"),
        (says("ann", arguments_digest=bytes(32)), "altered"),
        (says("ann", policy_revision="revision-2"), "altered"),
        (says("ann", bundle_digest=""), "altered"),
        (says("ann", decision_id="0190a5b2-5c3d-7a10-8000-000000000000"), "altered"),
        (says("ann", "reject", action_digest=bytes(32)), "altered"),
    ],
)
def test_others_are_not_and_nothing_else_is_approved(said: Approval, cause: str) -> None:
    fault = approvals.approval_fault(pending(), said, NOW)
    assert fault is not None
    assert fault.cause == cause


NEW_POLICY = dataclasses.replace(NOW, policy=dataclasses.replace(VERSION, bundle_digest="cd" * 32))


@pytest.mark.parametrize(
    ("waiting", "now", "cause"),
    [
        (pending("ann"), NOW, "repeated"),
        (pending(settled="rejected"), NOW, "rejected"),
        (pending(settled="used"), NOW, "used"),
        (pending(), dataclasses.replace(NOW, time=LATE), "expired"),
        (pending(), NEW_POLICY, "stale"),
        (pending(), dataclasses.replace(NOW, policy=None), "stale"),
        (pending(), dataclasses.replace(NOW, registry=None), "unauthorised"),
    ],
)
def test_what_is_over_is_over(waiting: Pending, now: Now, cause: str) -> None:
    fault = approvals.approval_fault(waiting, says("ann"), now)
    assert fault is not None
    assert fault.cause == cause


def test_two_are_two_different_ones() -> None:
    assert approvals.standing(pending("ann", count=2), NOW) == "pending"
    assert approvals.standing(pending("ann", "ann", count=2), NOW) == "pending"
    assert approvals.standing(pending("ann", "bob", count=2), NOW) == "approved"
    assert approvals.standing(pending("ann", "fay", count=2), NOW) == "pending"


@pytest.mark.parametrize(
    "people",
    [
        without("bob", status="revoked"),
        without("bob", roles=[]),
        without("bob", kind="user"),
        registry(*(p for p in PEOPLE if p["id"] != "bob")),
        None,
    ],
)
def test_an_approval_counts_while_its_approver_may_give_it(people: Registry | None) -> None:
    now = dataclasses.replace(NOW, registry=people)
    waiting = pending("bob", "ann", count=2)
    assert approvals.standing(waiting, now) == "pending"
    fault = approvals.asking_fault(waiting, REQUEST, now)
    assert fault is not None
    assert fault.cause == "pending"


def test_the_very_same_question_is_asked_again() -> None:
    waiting = pending("ann")
    again = dataclasses.replace(REQUEST, approval_of=ID, idempotency_key="another", trace_parent="x")
    assert approvals.asking_fault(waiting, again, NOW) is None
    for changes, cause in (
        ({"agent": "other-agent"}, "unauthorised"),
        ({"wanted": Option("payments.refund", "account", "a-17", b'{"amount": 6}')}, "altered"),
        ({"wanted": Option("payments.refund", "account", "a-17", b'{"amount":5}')}, "altered"),
        ({"context": b"{}"}, "altered"),
        ({"purpose": "another"}, "altered"),
        ({"executor": "gateway"}, "altered"),
        ({"alternatives": (REQUEST.wanted,)}, "altered"),
    ):
        fault = approvals.asking_fault(waiting, dataclasses.replace(again, **changes), NOW)  # type: ignore[arg-type]
        assert fault is not None, changes
        assert fault.cause == cause


def test_how_it_stands() -> None:
    late = dataclasses.replace(NOW, time=LATE)
    assert approvals.standing(pending(), NOW) == "pending"
    assert approvals.standing(pending("ann"), late) == "expired"
    assert approvals.standing(pending("ann"), NEW_POLICY) == "expired"
    assert approvals.standing(pending("ann", settled="used"), late) == "used"
    assert approvals.standing(pending(settled="rejected"), NOW) == "rejected"
