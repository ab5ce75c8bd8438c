"""What is not whole about a decision, and other sentences of a timeline that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.chain.printable import to_seconds

from . import rows


def withheld(first: int, last: int) -> str:
    """Of entries without their payloads."""
    which = f"entry {first}" if first == last else f"entries {first} to {last}"
    return f"what {which} said is not here: pruned, or withheld as another agent's; sidecar verify says which"


def said(about: Mapping[str, Any]) -> str:
    """A decision in a sentence."""
    target = f"{about['resource']['type']}:{about['resource']['id']}"
    because = "; ".join(reason["message"] for reason in about["reasons"]) or "no reason given"
    return f"{about['effect']} {about['action']} {target}: {because}"


def of_decision(about: Mapping[str, Any], now: int, until: str) -> list[str]:
    """What is not whole about a decision, by the end of what was read."""
    found = []
    outcomes = about["outcomes"]
    if about["cause"] != "policy":
        found.append(f"denied for want of a decision ({about['cause']})")
    if about["effect"] == rows.ALLOWED and not outcomes:
        found.append(f"allowed, and no outcome is recorded up to {until}")
    if about["effect"] != rows.ALLOWED and outcomes:
        shadow = "in shadow enforcement" if not about["enforced"] else "though it was not allowed"
        found.append(f"an outcome is recorded {shadow}")
    if len(outcomes) > 1:
        found.append(f"{len(outcomes)} outcomes are recorded")
    if any(each["changed_arguments"] for each in outcomes):
        found.append("what was acted on is not what was decided on: the arguments differ")
    if about["waits_for"] is not None:
        found += _waiting(about, now)
    if about["policy"]["entry"] is None:
        found.append("the entry that put its policy in force is not here")
    return found


def _waiting(about: Mapping[str, Any], now: int) -> list[str]:
    if about["asked_again"] or any(each["verdict"] == "reject" for each in about["approvals"]):
        return []
    wanted, given = about["waits_for"]["count"], len(about["approvals"])
    expires = about["waits_for"]["expires"]
    ended = "it has expired" if expires <= rows.at(now) else f"it waits until {to_seconds(expires)}"
    return [f"approvals given: {given} of {wanted}, and it was not asked again; {ended}"]
