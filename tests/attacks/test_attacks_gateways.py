"""Agents named by a gateway (LEDGER.md, proof `gateway`): attacks by whoever has every key of the sidecar."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from tests.attacks.expect import T, found, nothing_worse
from tests.scribe import EXECUTOR, Scribe, registered, registry_text, vouched_story

DECISION, OUTCOME, BY_SPIFFE = 4, 5, 7  # entries of `vouched_story`
Change = Callable[[dict[str, Any]], None]


def agent(**members: Any) -> Change:
    return lambda value: value["agent"].update(members)


def by(**members: Any) -> Change:
    return lambda value: value["by"].update(members)


def unregistered(value: dict[str, Any]) -> None:
    value["registry"] = None
    value["agent"] |= {"roles": [], "attributes": {}}
    value["executor"] = value["permit"] = None
    value["request"]["executor"] = ""


def with_one_more(seq: int, change: Change) -> Scribe:
    """The story, and the decision or outcome at ``seq`` again, changed."""
    s = vouched_story()
    value = copy.deepcopy(s.payloads[seq])
    change(value)
    agent = value["agent"]["id"]
    s.write(s.headers[seq].type, strictjson.dumps(value), ref_seq=s.headers[seq].ref_seq, agent=agent)
    s.head()
    return s


def test_the_story_is_as_it_should_be() -> None:
    s = vouched_story()
    s.head()
    report = nothing_worse(s.records)
    assert report.decisions["vouched"] == 3
    assert sum(report.decisions.values()) == 3


BAD: dict[str, tuple[int, Change]] = {
    "a gateway that nobody knows": (DECISION, agent(gateway="mallory")),
    "an agent as gateway": (DECISION, agent(gateway="billing-agent")),
    "another's SPIFFE id": (BY_SPIFFE, agent(spiffe_id="spiffe://prod.example/other")),
    "roles it has not": (DECISION, agent(roles=["admin"])),
    "no registry": (DECISION, unregistered),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_decisions(name: str) -> None:
    s = with_one_more(*BAD[name])
    found(s.records, T, 1, s.seq - 1)


def test_an_outcome_that_a_gateway_reports_for_another() -> None:
    s = vouched_story()
    s.permitted_outcome(BY_SPIFFE, s.permit(BY_SPIFFE).sign(s.identity), by=registered(EXECUTOR, "gateway"))
    s.head()
    nothing_worse(s.records)
    s = vouched_story()
    other = {**registered(EXECUTOR, "gateway"), "gateway": "billing-agent"}
    s.permitted_outcome(BY_SPIFFE, s.permit(BY_SPIFFE).sign(s.identity), by=other)
    s.head()
    found(s.records, T, 1, s.seq - 1)


def test_a_second_outcome() -> None:
    s = with_one_more(OUTCOME, lambda _: None)
    found(s.records, T, 1, s.seq - 1)


def test_a_gateway_that_is_suspended_meanwhile() -> None:
    """The outcome after two registries without it is nobody's."""
    s = vouched_story()
    for team in ("finance", "sales"):
        text = registry_text(owner=team).replace(
            b'"id":"payments-gateway","kind":"executor","owner":"","purpose":"","status":"active"',
            b'"id":"payments-gateway","kind":"executor","owner":"","purpose":"","status":"suspended"',
        )
        assert b"suspended" in text
        s.registry(text)
    s.permitted_outcome(BY_SPIFFE, s.permit(BY_SPIFFE).sign(s.identity), by=registered(EXECUTOR, "gateway"))
    s.head()
    assert s.headers[s.seq - 1].type is EntryType.OUTCOME
    found(s.records, T, 1, s.seq - 1)
