"""What a DECISION keeps of people and their words, in sentences: who signed what, for whom, under what, until when.

As it is stored, true or not: nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.chain import delegation
from sidecar.chain.payload import policy_time
from sidecar.chain.statement import Statement
from sidecar.errors import Malformed

_SECONDS = 19  # of the characters of a time, those up to its seconds


def story(decision: Mapping[str, Any]) -> Iterator[str]:
    """The sentences of a DECISION payload, one a line."""
    yield _asked(decision["agent"])
    for given, giver in zip(decision["request"]["delegations"], decision["delegators"], strict=False):
        yield _leave(given["text"], giver)
    if decision["executor"]:
        permit = decision["permit"]
        under = f"under a permit for what begins before {_ns(permit['not_after'])}" if permit else "had it been allowed"
        yield f"to be carried out by {decision['executor']['id']} {under}"
    if decision["terms"]:
        terms = decision["terms"]
        roles = f" with the role {' or '.join(terms['roles'])}" if terms["roles"] else ""
        yield f"waits for {terms['count']} of the approvers{roles}, until {_at(terms['expires'])}"
    if decision["approval"]:
        yield from _approved(decision["approval"])


def _asked(agent: Mapping[str, Any]) -> str:
    who = f"asked by {agent['id']}{_with(agent['roles'])}"
    if agent["proof"] == "asserted":
        return f"{who}, a name that is merely asserted"
    if "statement" not in agent:
        return f"{who}, proved by {agent['proof']} in transit only"
    try:
        said = Statement.parse(agent["statement"].encode())
    except Malformed as error:
        return f"{who}; what it signed cannot be read: {error}"
    return f"{who}, who signed it at {_ns(said.time)} with key {said.key[:16]}…"


def _leave(text: str, giver: Mapping[str, Any]) -> str:
    who = f"on behalf of {giver['id']} ({giver['kind']}{_with(giver['roles'])})"
    try:
        given = delegation.parse(text.encode())
    except Malformed as error:
        return f"{who}; the leave cannot be read: {error}"
    allowed = f"{', '.join(given.actions)} on {', '.join(given.resources)}"
    return f"{who}, who gave {given.to} leave for {allowed} until {_at(given.not_after)}, with key {given.key[:16]}…"


def _approved(approval: Mapping[str, Any]) -> Iterator[str]:
    yield f"asked again under the decision at seq {approval['decision_seq']}"
    for each in approval["approvals"]:
        by = each["by"]
        yield f"approved by {by['id']}{_with(by['roles'])}, who signed it at {_at(each['time'])} (seq {each['seq']})"


def _with(roles: Sequence[str]) -> str:
    return f" with the role{'s' * (len(roles) > 1)} {', '.join(roles)}" if roles else ""


def _at(time: str) -> str:
    return time[:_SECONDS] + "Z"


def _ns(time: int | str) -> str:
    return _at(policy_time(int(time)))
