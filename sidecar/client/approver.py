"""The approver's side: what waits, and a signed word on it. For a team's own tool, and `sidecar approvals`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import grpc

from sidecar.chain import delegation
from sidecar.chain.digests import arguments_digest
from sidecar.client.answer import policy_of, reasons_of, terms_of
from sidecar.client.calls import AsyncCalls, Calls
from sidecar.client.decision import ApprovalTerms, PolicyVersion, Reason
from sidecar.client.retry import ATTEMPTS, REAL, Pace, Patience
from sidecar.client.signing import Signer, Signing
from sidecar.client.target import check_address, check_timeout
from sidecar.client.tls import Tls
from sidecar.client.wire import request_in
from sidecar.errors import Malformed, RequestError
from sidecar.v1 import decision_pb2 as pb

_STATES: Final = {
    pb.ApprovalState.WHAT_PENDING: "pending",
    pb.ApprovalState.WHAT_APPROVED: "approved",
    pb.ApprovalState.WHAT_REJECTED: "rejected",
}


@dataclass(frozen=True, slots=True)
class Pending:
    """What an approver is asked, whole. ``arguments`` and ``context``: JSON texts, as the agent sent them."""

    decision_id: str
    seq: int
    agent: str
    action: str
    resource: tuple[str, str]
    arguments: str
    context: str
    purpose: str
    executor: str
    delegations: tuple[delegation.Delegation, ...]
    reasons: tuple[Reason, ...]
    policy: PolicyVersion
    terms: ApprovalTerms
    approved_by: tuple[str, ...]
    _request: pb.DecideRequest = field(repr=False, compare=False)


class Approver:
    """Approves and rejects as ``by``, signed with ``key``; the other arguments are those of `Guard`.

    What is signed is computed from the request as it was shown, so that nothing else is approved than what was seen.
    """

    def __init__(
        self,
        address: str | grpc.Channel,
        *,
        by: str,
        key: Signer,
        chain: str | None = None,
        tls: Tls | None = None,
        timeout: float = 5.0,
        attempts: int = ATTEMPTS,
        pace: Pace = REAL,
    ) -> None:
        given = None if isinstance(address, str) else address
        where = check_address(address) if isinstance(address, str) else "the channel given"
        self._calls = Calls(
            Patience(where, check_timeout(timeout), attempts, pace), given, Signing(by, key, chain), tls
        )  # fmt: skip
        self._by = by

    def close(self) -> None:
        """Closes the channel this approver opened."""
        self._calls.close()

    def __enter__(self) -> Approver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def list(self) -> tuple[list[Pending], bool]:
        """What waits for this approver's word, at most 100, and whether there is more. Raises NoDecision."""
        return _listed(self._calls.list_approvals(pb.ListApprovalsRequest(by=self._by)))

    def approve(self, pending: Pending, comment: str = "") -> str:
        """Approves; gives how it stands now: pending, approved or rejected. Raises NoDecision: it was not taken."""
        return _standing(self._calls.approve(_word(self._by, pending, pb.APPROVAL_VERDICT_APPROVE, comment)))

    def reject(self, pending: Pending, comment: str = "") -> str:
        """Rejects, as `approve`."""
        return _standing(self._calls.approve(_word(self._by, pending, pb.APPROVAL_VERDICT_REJECT, comment)))


class AsyncApprover:
    """`Approver` for asyncio; it serves the loop in which it was first used."""

    def __init__(
        self,
        address: str,
        *,
        by: str,
        key: Signer,
        chain: str | None = None,
        tls: Tls | None = None,
        timeout: float = 5.0,
        attempts: int = ATTEMPTS,
        pace: Pace = REAL,
    ) -> None:
        patience = Patience(check_address(address), check_timeout(timeout), attempts, pace)
        self._calls = AsyncCalls(patience, Signing(by, key, chain), tls)
        self._by = by

    async def close(self) -> None:
        """Closes the channel."""
        await self._calls.close()

    async def __aenter__(self) -> AsyncApprover:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def list(self) -> tuple[list[Pending], bool]:
        """As `Approver.list`."""
        return _listed(await self._calls.list_approvals(pb.ListApprovalsRequest(by=self._by)))

    async def approve(self, pending: Pending, comment: str = "") -> str:
        """As `Approver.approve`. A cancelled word may have been taken; the same again gets the same answer."""
        return _standing(await self._calls.approve(_word(self._by, pending, pb.APPROVAL_VERDICT_APPROVE, comment)))

    async def reject(self, pending: Pending, comment: str = "") -> str:
        """Rejects, as `approve`."""
        return _standing(await self._calls.approve(_word(self._by, pending, pb.APPROVAL_VERDICT_REJECT, comment)))


def _word(by: str, pending: Pending, verdict: pb.ApprovalVerdict.ValueType, comment: str) -> pb.ApproveRequest:
    request = request_in(pending._request)
    return pb.ApproveRequest(
        by=by,
        decision_id=pending.decision_id,
        verdict=verdict,
        action_digest=request.action_digest(),
        arguments_digest=arguments_digest(request.wanted.arguments),
        policy_revision=pending.policy.revision,
        bundle_digest=pending.policy.bundle_digest,
        comment=comment,
    )


def _standing(taken: pb.ApproveResponse) -> str:
    return _STATES.get(taken.state.what, "expired")


def _listed(listed: pb.ListApprovalsResponse) -> tuple[list[Pending], bool]:
    return [_pending(each) for each in listed.pending], listed.more


def _pending(told: pb.PendingApproval) -> Pending:
    asked = told.request
    try:
        given = tuple(delegation.parse(each.text) for each in asked.delegations)
        arguments, context = asked.arguments.decode(), asked.context.decode()
    except (Malformed, UnicodeDecodeError) as error:
        raise RequestError("pending", f"the sidecar shows a request that is none: {error}") from None
    return Pending(
        told.decision_id, told.seq, asked.agent, asked.action, (asked.resource.type, asked.resource.id),
        arguments or "{}", context or "{}", asked.purpose, asked.executor, given, reasons_of(told.reasons),
        policy_of(told.policy), terms_of(told.terms), tuple(told.approved_by), asked,
    )  # fmt: skip
