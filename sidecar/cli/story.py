"""What an entry keeps of people and their words, in sentences: who signed what, for whom, under what, until when.

As it is stored, true or not: nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.chain import delegation, door
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of, to_seconds
from sidecar.chain.statement import Statement
from sidecar.errors import Malformed


def story(entry: Mapping[str, Any]) -> Iterator[str]:
    """The sentences of a payload, one a line; of most types there are none."""
    tell = _STORIES.get(entry["type"])
    if tell is not None:
        yield from tell(entry)


def moment(name: str, value: str) -> str:
    """What a number of nanoseconds means, for the members that are one; else "". ``name``: of the member, with dots."""
    tell = _MOMENTS.get(name)
    return tell(value) if tell is not None and value else ""


def _decision(decision: Mapping[str, Any]) -> Iterator[str]:
    yield _asked(decision["agent"])
    if (through := door.recorded(decision["request"]["context"])) is not None:
        yield f"through the door {through['kind']}"
    for given, giver in zip(decision["request"]["delegations"], decision["delegators"], strict=False):
        yield _leave(given["text"], giver)
    if decision["executor"]:
        permit = decision["permit"]
        under = f"under a permit for what begins before {_ns(permit['not_after'])}" if permit else "had it been allowed"
        yield f"to be carried out by {decision['executor']['id']} {under}"
    if decision["terms"]:
        terms = decision["terms"]
        roles = f" with the role {' or '.join(terms['roles'])}" if terms["roles"] else ""
        yield f"waits for {terms['count']} of the approvers{roles}, until {to_seconds(terms['expires'])}"
    if decision["approval"]:
        yield from _approved(decision["approval"])


def _asked(agent: Mapping[str, Any]) -> str:
    return f"asked by {_signed(agent)}"


def _outcome(outcome: Mapping[str, Any]) -> Iterator[str]:
    yield f"reported by {_signed(outcome['by'])}"
    began, took = outcome["started_ns"], outcome["duration_ns"]
    if began:
        yield f"begun at {_ns(began)}" + (f", and took {_took(took)}" if took else "")
    if outcome["permit"]:
        yield f"under the permit of the decision at seq {outcome['decision_seq']}"
    if outcome["response"] is not None:
        yield f"it answered {outcome['response']}"


def _approval(approval: Mapping[str, Any]) -> Iterator[str]:
    done = "approved" if approval["verdict"] == "approve" else "rejected"
    yield f"{done} by {_signed(approval['by'])}"
    if approval["comment"]:
        yield f"saying: {approval['comment']}"


def _rejected(refused: Mapping[str, Any]) -> Iterator[str]:
    who = refused["principal"] or "somebody who was not proved"
    count = refused["count"]
    yield f"{refused['call']} of {who}, from {refused['peer']}, was refused; nothing came of it"
    if count > 1:
        yield f"it stands for {number_of(count, 'refusal')} of that caller since the one before; the last is told"


def _signed(who: Mapping[str, Any]) -> str:
    named = f"{who['id']}{_with(who['roles'])}"
    if who["proof"] == "asserted":
        return f"{named}, a name that is merely asserted"
    if who["proof"] == "gateway":
        seen = f" as {who['spiffe_id']}" if who["spiffe_id"] else ""
        return f"{named}, named{seen} by the gateway {who['gateway']}, which was proved by {who['gateway_proof']}"
    if not who["proof"].startswith("signature"):
        return f"{named}, proved by {who['proof']} in transit only"
    try:
        said = Statement.parse(who["statement"].encode())
    except Malformed as error:
        return f"{named}; what it signed cannot be read: {error}"
    return f"{named}, who signed it at {_ns(said.time)} with key {said.key[:16]}…"


def _leave(text: str, giver: Mapping[str, Any]) -> str:
    who = f"on behalf of {giver['id']} ({giver['kind']}{_with(giver['roles'])})"
    try:
        given = delegation.parse(text.encode())
    except Malformed as error:
        return f"{who}; the leave cannot be read: {error}"
    allowed = f"{', '.join(given.actions)} on {', '.join(given.resources)}"
    until = to_seconds(given.not_after)
    return f"{who}, who gave {given.to} leave for {allowed} until {until}, with key {given.key[:16]}…"


def _approved(approval: Mapping[str, Any]) -> Iterator[str]:
    yield f"asked again under the decision at seq {approval['decision_seq']}"
    for each in approval["approvals"]:
        by = each["by"]
        signed = f"who signed it at {to_seconds(each['time'])} (seq {each['seq']})"
        yield f"approved by {by['id']}{_with(by['roles'])}, {signed}"


def _with(roles: Sequence[str]) -> str:
    return f" with the role{'s' * (len(roles) > 1)} {', '.join(roles)}" if roles else ""


def _ns(time: int | str) -> str:
    try:
        return to_seconds(policy_time(int(time)))
    except (ValueError, OverflowError, OSError):
        return f"{time} ns, which is no time"


def _took(time: int | str) -> str:
    return f"{int(time) / 1e6:,.3f} ms"


_MOMENTS = {
    "started_ns": _ns, "permit.not_after": _ns, "duration_ns": _took, "timings.evaluate_ns": _took, "step_ns": _took,
}  # fmt: skip
_STORIES = {"DECISION": _decision, "OUTCOME": _outcome, "APPROVAL": _approval, "REJECTED": _rejected}
