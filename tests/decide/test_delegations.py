"""A chain of delegations lets an agent do what each of them covers, while everybody in it is active; else nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sidecar.chain.registry import Registry
from sidecar.chain.request import Given, Option, Request
from sidecar.decide import delegations
from sidecar.errors import NotPermitted, RequestError
from tests.people import delegated, person, registry

NOW = "2026-11-23T12:00:00.000000000Z"
CHAIN = "ab" * 32
PEOPLE = (person("ann", "user", "clerk"), person("planner", "agent"), person("billing-agent", "agent", "finance"))
FIRST = delegated("ann", "planner", actions=["payments.*", "crm.read"], resources=["account:*"])
SECOND = delegated("planner", "billing-agent", FIRST, actions=["payments.refund"], resources=["account:a-*"])

ALL = registry(*PEOPLE)


def asking(*given: Given, **changes: Any) -> Request:
    wanted = Option("payments.refund", "account", "a-17", b'{"amount": 5}')
    return dataclasses.replace(Request("billing-agent", wanted, delegations=given), **changes)


def check(request: Request, people: Registry | None = ALL, at: str = NOW) -> list[str]:
    return [giver.id for giver in delegations.delegators(request, people, chain_id=CHAIN, at=at)]


def test_givers_come_in_the_order_of_the_chain() -> None:
    assert check(asking(FIRST, SECOND)) == ["ann", "planner"]
    assert check(asking()) == [] == check(asking(), None)


def test_the_policy_sees_the_whole_chain() -> None:
    givers = [delegations.member(g) for g in delegations.delegators(
        asking(FIRST, SECOND), ALL, chain_id=CHAIN, at=NOW
    )]  # fmt: skip
    seen = delegations.seen([FIRST.text, SECOND.text], givers)
    assert [(s["from"]["id"], s["from"]["kind"], s["to"]) for s in seen] == [
        ("ann", "user", "planner"), ("planner", "agent", "billing-agent"),
    ]  # fmt: skip
    assert seen[0]["from"]["roles"] == ["clerk"]
    assert (seen[1]["actions"], seen[1]["resources"]) == (["payments.refund"], ["account:a-*"])


def without(name: str, **changes: Any) -> Registry:
    return registry(*(p | changes if p["id"] == name else p for p in PEOPLE))


STRANGER = delegated("stranger", "billing-agent")
WIDER = delegated("planner", "billing-agent", FIRST, actions=["*"], resources=["account:a-*"])
LONGER = delegated("planner", "billing-agent", FIRST, not_after="2100-01-01T00:00:00.000000000Z")
FOR_OTHERS = delegated("ann", "billing-agent", audience="cd" * 32)
OLD = delegated("ann", "billing-agent", not_after="2026-11-23T12:00:00.000000000Z")
FORGED = delegated("ann", "billing-agent", signer="planner")
BENT = dataclasses.replace(delegated("ann", "billing-agent"), signature=bytes(64))
OTHER_CASE = Option("payments.refund", "account", "b-1", b"{}")


@pytest.mark.parametrize(
    ("request_", "people", "named"),
    [
        (asking(FIRST, SECOND), None, "no registry"),
        (asking(STRANGER), ALL, "given by somebody who is not active"),
        (asking(FIRST, SECOND), without("ann", status="suspended"), "given by somebody who is not active"),
        (asking(FIRST, SECOND), without("planner", status="revoked"), "not active"),
        (asking(FIRST, SECOND), without("ann", keys=[]), "not its giver's, or is not valid"),
        (
            asking(FIRST, SECOND),
            without("ann", keys=[PEOPLE[0]["keys"][0] | {"not_after": NOW}]),
            "not its giver's, or is not valid",
        ),
        (asking(FORGED), ALL, "not its giver's"),
        (asking(BENT), ALL, "does not verify"),
        (asking(FIRST), ALL, "given to another than the requesting agent"),
        (asking(SECOND), ALL, "has a parent"),
        (asking(SECOND, FIRST), ALL, "delegations"),
        (asking(FIRST, WIDER), ALL, "covers more actions"),
        (asking(FIRST, LONGER), ALL, "valid longer"),
        (asking(FOR_OTHERS), ALL, "another chain"),
        (asking(OLD), ALL, "not valid now"),
        (asking(FIRST, SECOND, wanted=OTHER_CASE), ALL, "does not cover"),
        (asking(FIRST, SECOND, alternatives=(OTHER_CASE,)), ALL, "does not cover"),
    ],
)
def test_what_does_not_cover_it_permits_nothing(request_: Request, people: Registry | None, named: str) -> None:
    with pytest.raises(NotPermitted, match=named):
        check(request_, people)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ((dataclasses.replace(FIRST, text=b"{}"), SECOND), "delegations[0]"),
        ((FIRST, dataclasses.replace(SECOND, key=b"no key")), "delegations[1]"),
        ((FIRST,) * 9, "delegations"),
    ],
)
def test_what_is_no_delegation_is_named(given: tuple[Given, ...], field: str) -> None:
    with pytest.raises(RequestError) as refused:
        check(asking(*given))
    assert refused.value.field == field
