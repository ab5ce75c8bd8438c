"""Why an action did not run. Whatever is raised here, the action was not started by this client."""

from __future__ import annotations

from typing import Literal

from sidecar.client.decision import Decision, Effect, Obligation, Reason
from sidecar.errors import SidecarError

NoDecisionCause = Literal["timeout", "unreachable", "refused", "protocol"]


def one_line(text: str, limit: int = 300) -> str:
    """Foreign text made fit for an error message: one line, printable, at most ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


class Refused(SidecarError):
    """The sidecar answered, and the answer is not a permission. ``decision`` is the whole answer."""

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(f"{message} (decision {one_line(decision.decision_id)})")
        self.decision = decision
        self.decision_id = decision.decision_id
        self.reasons = decision.reasons
        self.alternatives = decision.alternatives


class Denied(Refused):
    """The policy forbids the action; ``alternatives`` holds the verdicts on what was offered instead."""

    def __init__(self, decision: Decision) -> None:
        line = f"denied: {one_line(decision.action)}{_because(decision.reasons)}"
        instead = [a.alternative.action for a in decision.alternatives if a.effect is Effect.ALLOW]
        super().__init__(line + (f"; allowed instead: {one_line(', '.join(instead))}" if instead else ""), decision)


class ApprovalRequired(Refused):
    """The policy forbids the action until somebody with the right to do so approves."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(
            f"approval required: {one_line(decision.action)}{_because(decision.reasons)}; "
            "ask an approver, then wait for it with the guard's `wait_for_approval`",
            decision,
        )


class NotApproved(Refused):
    """Nobody approved. ``state``: "rejected", "expired" (or the policy changed: ask anew), "pending" (not in time)."""

    def __init__(self, decision: Decision, state: str) -> None:
        told = {"rejected": "it was rejected", "pending": "not approved in time"}.get(state, "it has expired; ask anew")
        super().__init__(f"not approved: {one_line(decision.action)}: {told}", decision)
        self.state = state


class UnmetObligation(Refused):
    """The action is allowed on a condition that this guard does not know or could not meet.

    The outcome BLOCKED is reported.
    """

    def __init__(self, decision: Decision, obligation: Obligation, cause: str) -> None:
        super().__init__(
            f"blocked: {one_line(decision.action)}: the obligation {one_line(obligation.kind)} {cause}", decision
        )
        self.obligation = obligation


class NoDecision(SidecarError):
    """No usable answer came, so there is no permission.

    ``cause`` is a stable word: "timeout" (none in time), "unreachable" (no sidecar, or it cannot record), "refused" (it
    did not accept the question), "protocol" (an answer that is not one). ``receipt`` is the answer's receipt where it
    contradicts the answer: keep it, it is evidence; otherwise it is empty.
    """

    def __init__(self, cause: NoDecisionCause, message: str, receipt: bytes = b"") -> None:
        super().__init__(f"no decision: {message}")
        self.cause = cause
        self.receipt = receipt


def raise_unless_permitted(decision: Decision, *, shadow: bool) -> None:
    """Raises Denied or ApprovalRequired unless the action may run."""
    if decision.may_go_on(shadow=shadow):
        return
    if decision.effect is Effect.REQUIRE_APPROVAL:
        raise ApprovalRequired(decision)
    raise Denied(decision)


def _because(reasons: tuple[Reason, ...]) -> str:
    told = [f"{r.code} ({r.message})" if r.message else r.code for r in reasons]
    return f": {one_line('; '.join(told))}" if told else ", no reason given"
