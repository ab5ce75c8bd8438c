"""What a model and a person are told where nothing was done: why, by which decision, and how an approval is had."""

from __future__ import annotations

from sidecar.client import ApprovalRequired, Decision, NoDecision, NotApproved, Refused, UnmetObligation


def told(what: str, undone: str, door: str, why: Exception) -> str:
    """``what`` was asked for; ``undone``: what has therefore not happened to it, as "did not run"; ``door``: by whose
    hand, as "this gateway"."""
    if not isinstance(why, Refused):
        which = "no decision was given" if isinstance(why, NoDecision) else "it cannot be decided"
        return (
            f"Not done: {what} {undone}, because {which}: {why}. Without a decision nothing is done; "
            "try again once the cause is mended."
        )
    decision, which = why.decision, named(why.decision)
    if isinstance(why, ApprovalRequired):
        return f"Not done yet: {what} needs an approval{_reasons(decision)}. {_how(decision)} {which}"
    if isinstance(why, NotApproved):
        if why.state == "pending":
            return f"Not done yet: {what} still waits for its approval{_reasons(decision)}. {_how(decision)} {which}"
        how = "was rejected" if why.state == "rejected" else "has an approval that expired; ask again"
        return f"Not done: {what} {how}. {which}"
    if isinstance(why, UnmetObligation):
        return f"Not done: {what} is allowed only on a condition that {door} cannot meet: {why}"
    return f"Not done: {what} is denied{_reasons(decision)}. The same call will be denied again. {which}"


def named(decision: Decision) -> str:
    """Which decision it was, and by which policy."""
    policy = decision.policy.revision or decision.policy.bundle_digest or "unknown"
    return f"Decision {decision.decision_id}, policy {policy}."


def _how(decision: Decision) -> str:
    terms = decision.approval
    count = 1 if terms is None else terms.count
    who = f"{count} approvers" if count > 1 else "an approver"
    roles = f" with the role {' or '.join(terms.roles)}" if terms is not None and terms.roles else ""
    run = f"`sidecar approvals approve {decision.decision_id}`"
    return f"Ask {who}{roles} to run {run}, then make the very same call again."


def _reasons(decision: Decision) -> str:
    told = "; ".join(f"{r.message} ({r.code})" if r.message else r.code for r in decision.reasons)
    return f": {told}" if told else ", and no reason was given"
