"""The methods of ApprovalService: parse, hand to `decide.Approvals`, answer. No rules here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from sidecar.api import messages, wire
from sidecar.api.transports import Context, Transports
from sidecar.chain.digests import Approval
from sidecar.chain.request import recorded
from sidecar.decide import Approvals, Pending, State
from sidecar.v1 import decision_pb2 as pb

APPROVALS = "sidecar.v1.ApprovalService"

_VERDICTS = {pb.APPROVAL_VERDICT_APPROVE: "approve", pb.APPROVAL_VERDICT_REJECT: "reject"}
_STATES = {
    "pending": pb.ApprovalState.WHAT_PENDING,
    "approved": pb.ApprovalState.WHAT_APPROVED,
    "rejected": pb.ApprovalState.WHAT_REJECTED,
    "expired": pb.ApprovalState.WHAT_EXPIRED,
    "used": pb.ApprovalState.WHAT_USED,
}


class ApprovalMethods:
    """Each takes a message's bytes. ``transports`` tell what comes with them."""

    def __init__(self, approvals: Approvals, transports: Transports) -> None:
        self._approvals, self._transports = approvals, transports

    async def list(self, raw: bytes, context: Context) -> pb.ListApprovalsResponse:
        """As the `.proto` says of ListApprovals."""
        asked = wire.parse(pb.ListApprovalsRequest, raw)
        listed, more = self._approvals.open(asked.by, self._transports.shown(context, asked.signature))
        pending = [self._pending(each, payload) for each, payload in listed]
        return pb.ListApprovalsResponse(pending=pending, more=more)

    async def approve(self, raw: bytes, context: Context) -> pb.ApproveResponse:
        """As the `.proto` says of Approve; an unknown verdict becomes the empty string, which is refused."""
        asked = wire.parse(pb.ApproveRequest, raw)
        said = Approval(
            asked.by, asked.decision_id, _VERDICTS.get(asked.verdict, ""), asked.action_digest,
            asked.arguments_digest, asked.bundle_digest, asked.policy_revision, asked.comment,
        )  # fmt: skip
        taken, state = await self._approvals.approve(said, self._transports.shown(context, asked.signature))
        return pb.ApproveResponse(seq=taken.seq, receipt=taken.receipt, state=_state(state))

    async def watch(self, raw: bytes, context: Context) -> AsyncIterator[pb.ApprovalState]:
        """As the `.proto` says of WatchApproval."""
        asked = wire.parse(pb.WatchApprovalRequest, raw)
        async for state in self._approvals.watch(
            asked.by, asked.decision_id, self._transports.shown(context, asked.signature)
        ):
            yield _state(state)

    def _pending(self, pending: Pending, payload: Mapping[str, Any]) -> pb.PendingApproval:
        return pb.PendingApproval(
            decision_id=pending.decision_id,
            seq=pending.seq,
            request=messages.request_message(recorded(payload)),
            reasons=[pb.Reason(code=r["code"], message=r["message"]) for r in payload["reasons"]],
            policy=messages.policy_message(pending.policy),
            terms=messages.terms_message(pending.terms),
            approved_by=self._approvals.state(pending).approved_by,
        )


def _state(state: State) -> pb.ApprovalState:
    return pb.ApprovalState(
        what=_STATES[state.what], approved_by=state.approved_by, terms=messages.terms_message(state.terms)
    )
