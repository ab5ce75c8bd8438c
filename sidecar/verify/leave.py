"""By whose leave a decision was asked: its delegations, and the approvals it names, by its own payload alone.

What each of its own delegations says is checked again, with its signature (LEDGER.md rule 11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.chain import delegation
from sidecar.chain.digests import arguments_digest
from sidecar.chain.request import Request, recorded
from sidecar.errors import Malformed, NotPermitted, SignatureInvalid


def fault(value: Mapping[str, Any], chain_id: bytes, seq: int) -> str | None:
    """Why a checked DECISION payload contradicts itself on whose leave it had, or None. ``seq``: its entry's."""
    if (value["terms"] is not None) != (value["effect"] == "REQUIRE_APPROVAL"):
        return "it has terms and requires no approval, or the other way round"
    if value["request"]["delegations"] or value["delegators"]:
        wrong = _delegations(value, chain_id)
        if wrong:
            return wrong
    return _approval(value, seq)


def asked(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """What later entries are held against, of a DECISION that has to do with approvals or delegations; else None.

    Digests of what has sealed fields are None: they are not known.
    """
    if value["terms"] is None and value["approval"] is None and not value["delegators"]:
        return None
    request, known = recorded(value), not value["sealed"]
    return {
        "action": request.action_digest().hex() if known else None,
        "arguments": arguments_digest(request.wanted.arguments).hex() if known else None,
        "keys": [delegation.parse(given.text).key for given in request.delegations],
    }


def _delegations(value: Mapping[str, Any], chain_id: bytes) -> str | None:
    request = recorded(value)
    try:
        chain = [delegation.opened(given) for given in request.delegations]
        delegation.check_chain(
            chain, chain_id=chain_id.hex(), agent=request.agent, at=value["time"], asked=_options(request)
        )
    except (Malformed, NotPermitted, SignatureInvalid) as error:
        return f"its delegations do not let its agent do this: {error}"
    if [each.giver for each in chain] != [giver["id"] for giver in value["delegators"]]:
        return "its delegators are not those of its delegations"
    return "it has delegations and names no registry" if value["registry"] is None else None


def _options(request: Request) -> list[tuple[str, str, str]]:
    return [(o.action, o.resource_type, o.resource_id) for o in (request.wanted, *request.alternatives)]


def _approval(value: Mapping[str, Any], seq: int) -> str | None:
    approval, request = value["approval"], value["request"]
    if (approval["decision_id"] if approval is not None else "") != request["approval_of"]:
        return "the decision that it was asked under is not the one that its request names"
    if approval is None:
        return None
    by = [each["by"]["id"] for each in approval["approvals"]]
    if len(set(by)) < len(by) or {value["agent"]["id"], *(g["id"] for g in value["delegators"])}.intersection(by):
        return "an approval counts twice in it, or is by its agent or by who gave a delegation"
    if not all(approval["decision_seq"] < each["seq"] < seq for each in approval["approvals"]):
        return "an approval that it names does not stand between the two decisions"
    return None
