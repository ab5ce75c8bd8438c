"""What a PEP is answered: true only for an ALLOW; all else is false, or an error of HTTP."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.decide import Answer
from sidecar.enforce.authzen.asked import APPROVAL_OF

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
SEARCHES: Final = tuple(f"/access/v1/search/{what}" for what in ("subject", "resource", "action"))
METADATA: Final = "/.well-known/authzen-configuration"

UNDECIDED: Final = 503
"""HTTP status where the policy gave no decision, the ledger could not record, or the sidecar failed."""

_MOST_REASONS: Final = 16
_DUTIES: Final = "allowed only if every obligation is met; a PEP that cannot meet one must not go on"


@dataclass(frozen=True, slots=True)
class Told:
    """An HTTP status, a JSON object, and headers besides."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def evaluated(answer: Answer, *, context: bool = True) -> Told:
    """The answer to one evaluation."""
    decided = decision(answer, context=context)
    if "error" in decided.get("context", {}):
        return error(UNDECIDED, "undecided", decided["context"]["error"]["message"], answer.decision_id)
    return Told(200, decided)


def decision(answer: Answer, *, context: bool = True) -> dict[str, Any]:
    """A Decision as the specification has it. ``context``: whether it says more, which an error does in any case;
    without it an ALLOW with obligations is false, since they could not be said."""
    verdict = answer.judged.verdict
    if answer.judged.cause != "policy":
        return {"decision": False, "context": {**_told(answer), **failure(UNDECIDED, _message(answer))}}
    if not context:
        return {"decision": verdict.effect == "ALLOW" and not withheld(answer, context=False)}
    if verdict.effect != "ALLOW":
        return {"decision": False, "context": {**_told(answer), **_approval(answer)}}
    told = {**_told(answer), "permit": base64.urlsafe_b64encode(answer.permit).decode()}
    if verdict.obligations:
        told["obligations"] = [{"kind": each.kind, "parameters": each.parameters} for each in verdict.obligations]
        told["message"] = _DUTIES
    return {"decision": True, "context": told}


def withheld(answer: Answer, *, context: bool) -> bool:
    """Whether it is an ALLOW that is answered false, since its obligations cannot be said."""
    verdict = answer.judged.verdict
    return not context and verdict.effect == "ALLOW" and bool(verdict.obligations)


def failed(status: int, message: str) -> dict[str, Any]:
    """One evaluation of several that came to no decision."""
    return {"decision": False, "context": failure(status, message)}


def failure(status: int, message: str) -> dict[str, Any]:
    """As the specification shows errors of one evaluation."""
    return {"error": {"status": status, "message": message}}


def error(status: int, kind: str, message: str, decision_id: str = "", **headers: str) -> Told:
    """There is no answer to what was asked."""
    named = {"decision_id": decision_id} if decision_id else {}
    return Told(status, {"error": kind, "message": message, **named}, headers)


def metadata(url: str) -> dict[str, Any]:
    """The PDP's metadata; no search endpoints, since there is no search."""
    return {
        "policy_decision_point": url,
        "access_evaluation_endpoint": url + EVALUATION,
        "access_evaluations_endpoint": url + EVALUATIONS,
    }


def _told(answer: Answer) -> dict[str, Any]:
    version, verdict = answer.judged.version, answer.judged.verdict
    return {
        "decision_id": answer.decision_id,
        "effect": verdict.effect,
        "reasons": [{"code": each.code, "message": each.message} for each in verdict.reasons[:_MOST_REASONS]],
        "policy": {"revision": version.revision, "bundle_digest": version.bundle_digest},
    }


def _message(answer: Answer) -> str:
    return "; ".join(each.message for each in answer.judged.verdict.reasons[:_MOST_REASONS])


def _approval(answer: Answer) -> dict[str, Any]:
    if answer.terms is None:
        return {}
    how = (
        f"Have it approved (`sidecar approvals approve {answer.decision_id}`), then send the very same evaluation to "
        f"{EVALUATION} with the header {APPROVAL_OF}: {answer.decision_id}"
    )
    return {"approval": {**answer.terms.member(), "how": how}}
