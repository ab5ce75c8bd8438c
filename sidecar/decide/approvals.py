"""What an approval takes, without a ledger or a clock: who may approve, what counts, how a decision stands.

    REQUIRE_APPROVAL ─► pending ─► approved ─► asked again ─► ALLOW: used
                           └─► rejected, expired, or stale: its policy is not in force any more

The terms are the policy's (`sidecar.policy.Approval`), held to here mechanically; the policy has the last word when the
agent asks again. proto/SIGNING.md, "Approval".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from sidecar.chain.digests import Approval, arguments_digest
from sidecar.chain.payload import policy_time
from sidecar.chain.registry import Principal, Registry
from sidecar.chain.request import Request, recorded
from sidecar.chain.statement import Statement
from sidecar.decide.entries import Terms
from sidecar.decide.in_force import same
from sidecar.decide.registered import known
from sidecar.errors import NotPermitted, RequestError, SidecarError, WrongState
from sidecar.policy import PolicyVersion

What = Literal["pending", "approved", "rejected", "expired", "used"]
Cause = Literal["unauthorised", "own", "altered", "repeated", "pending", "rejected", "expired", "stale", "used"]
CAUSES: Final = frozenset(get_args(Cause))


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an approval, or a request under one, is refused. ``cause``: for the metric."""

    cause: Cause
    error: SidecarError


@dataclass(frozen=True, slots=True)
class Given:
    """An APPROVAL entry with the verdict approve. ``time``: when it was signed, as in payloads; ``by``: whose it is."""

    seq: int
    time: str
    by: str


def given(seq: int, by: str, statement: str) -> Given:
    """An approval as its entry has it. Its time is when it was signed."""
    return Given(seq, policy_time(Statement.parse(statement.encode()).time), by)


@dataclass(slots=True)
class Pending:
    """A decision that waits, or waited, for approvals. ``barred``: who may not approve it."""

    seq: int
    decision_id: str
    agent: Mapping[str, str]
    barred: frozenset[str]
    terms: Terms
    policy: PolicyVersion
    action_digest: bytes
    arguments_digest: bytes
    approvals: list[Given] = field(default_factory=list)
    settled: Literal["", "rejected", "used", "expired"] = ""
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, seq: int, payload: Mapping[str, Any]) -> Pending | None:
        """What a checked DECISION payload waits for, or None: it requires no approval."""
        terms, request = Terms.of(payload["terms"]), recorded(payload)
        if payload["effect"] != "REQUIRE_APPROVAL" or terms is None:
            return None
        return cls(
            seq,
            payload["decision_id"],
            {"id": payload["agent"]["id"], "proof": payload["agent"]["proof"]},
            frozenset({request.agent, *(giver["id"] for giver in payload["delegators"])}),
            terms,
            PolicyVersion(**payload["policy"]),
            request.action_digest(),
            arguments_digest(request.wanted.arguments),
        )


@dataclass(frozen=True, slots=True)
class Granted:
    """The approvals under which a request is decided, each with its approver by the registry in force."""

    pending: Pending
    by: tuple[tuple[Given, Principal], ...]

    def member(self) -> dict[str, Any]:
        """The ``approval`` member of the DECISION."""
        told = [{"seq": each.seq, "time": each.time, "by": known(approver)} for each, approver in self.by]
        return {"decision_id": self.pending.decision_id, "decision_seq": self.pending.seq, "approvals": told}


@dataclass(frozen=True, slots=True)
class Now:
    """What an approval is held against: the registry in force, the time as in payloads, the policy in force."""

    registry: Registry | None
    time: str
    policy: PolicyVersion | None

    def principal(self, name: str) -> Principal | None:
        """A principal that is active."""
        found = None if self.registry is None else self.registry.principals.get(name)
        return found if found is not None and found.status == "active" else None


def counted(pending: Pending, now: Now) -> list[tuple[Given, Principal]]:
    """The approvals that count now, each with its approver as the registry has it now, in the order they came in."""
    found: dict[str, tuple[Given, Principal]] = {}
    for given in pending.approvals:
        approver = now.principal(given.by)
        if approver is not None and may_approve(pending, approver) is None:
            found.setdefault(given.by, (given, approver))
    return list(found.values())


def standing(pending: Pending, now: Now) -> What:
    """How it stands; "expired" also where its policy is not in force any more."""
    if pending.settled:
        return pending.settled
    if now.time >= pending.terms.expires or not _in_force(pending, now):
        return "expired"
    return "approved" if len(counted(pending, now)) >= pending.terms.count else "pending"


def may_approve(pending: Pending, approver: Principal) -> Fault | None:
    """Why this principal's word on it does not count, or None."""
    if approver.id in pending.barred:
        return Fault(
            "own", NotPermitted(f"approval: {approver.id} asked for this itself, or had it asked for", "approval")
        )
    if approver.kind != "approver" or approver.status != "active":
        return Fault(
            "unauthorised",
            NotPermitted(f"approval: {approver.id} is not an active approver in the registry", "approval"),
        )
    roles = pending.terms.roles
    if roles and not set(roles).intersection(approver.roles):
        return Fault(
            "unauthorised",
            NotPermitted(f"approval: {approver.id} has none of the roles that this one takes", "approval"),
        )
    return None


def approval_fault(pending: Pending, said: Approval, now: Now) -> Fault | None:
    """Why an approver's word is not taken, or None."""
    approver = now.principal(said.by)
    if approver is None:
        return Fault("unauthorised", NotPermitted(f"approval: {said.by} is not active in the registry", "approval"))
    fault = may_approve(pending, approver) or _over(pending, now) or _altered(pending, said)
    if fault is None and said.verdict == "approve" and said.by in {given.by for given in pending.approvals}:
        return Fault("repeated", WrongState(f"approval: {said.by} has approved this already; one approver counts once"))
    return fault


def asking_fault(pending: Pending, request: Request, now: Now) -> Fault | None:
    """Why a request cannot be decided under the approvals of this decision, or None."""
    if request.agent != pending.agent["id"]:
        return Fault("unauthorised", NotPermitted("approval_of: that decision was made for another agent", "approval"))
    if request.alternatives:
        return Fault("altered", RequestError("alternatives", "cannot be asked for with approval_of"))
    if request.action_digest() != pending.action_digest:
        return Fault("altered", RequestError("approval_of", "is of another request; ask the very same, or anew"))
    fault = _over(pending, now)
    if fault is None and standing(pending, now) != "approved":
        have = len(counted(pending, now))
        said = f"approval_of: {have} of {pending.terms.count} approvals count; wait for the others, or for new ones"
        return Fault("pending", WrongState(said))
    return fault


_OVER: Final[dict[str, str]] = {
    "rejected": "it was rejected",
    "used": "it was used for an ALLOW; each approval is for one",
    "expired": "it has expired; ask anew",
    "stale": "the policy that required it is not in force any more; ask anew",
}


def _over(pending: Pending, now: Now) -> Fault | None:
    cause: Cause | None = pending.settled or None
    if cause is None and now.time >= pending.terms.expires:
        cause = "expired"
    elif cause is None and not _in_force(pending, now):
        cause = "stale"
    return None if cause is None else Fault(cause, WrongState(f"approval: {_OVER[cause]}"))


def _altered(pending: Pending, said: Approval) -> Fault | None:
    due = {
        "decision_id": (said.decision_id, pending.decision_id),
        "action_digest": (said.action_digest, pending.action_digest),
        "arguments_digest": (said.arguments_digest, pending.arguments_digest),
        "policy_revision": (said.policy_revision, pending.policy.revision),
        "bundle_digest": (said.bundle_digest, pending.policy.bundle_digest),
    }
    for name, (given, right) in due.items():
        if given != right:
            return Fault("altered", RequestError(name, "is not that of the decision"))
    return None


def _in_force(pending: Pending, now: Now) -> bool:
    return now.policy is not None and same([pending.policy, now.policy])
