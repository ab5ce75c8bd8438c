"""Waiting until a decision that requires an approval is approved, or will not be."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Final

import grpc

from sidecar.client.decision import Decision
from sidecar.client.failure import code_of, no_decision
from sidecar.client.refusals import ApprovalRequired, NotApproved
from sidecar.client.retry import Patience
from sidecar.client.wire import Ask
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb

_STATES: Final[Mapping[int, str]] = {
    pb.ApprovalState.WHAT_PENDING: "pending",
    pb.ApprovalState.WHAT_APPROVED: "approved",
    pb.ApprovalState.WHAT_REJECTED: "rejected",
    pb.ApprovalState.WHAT_EXPIRED: "expired",
    pb.ApprovalState.WHAT_USED: "used",
}
_AGAIN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED})


class Wait:
    """One wait for one decision, ``timeout`` seconds long. Whoever watches tells it of each state and failure."""

    def __init__(self, what: ApprovalRequired | Decision, timeout: float, patience: Patience) -> None:
        self.decision = what.decision if isinstance(what, ApprovalRequired) else what
        self._patience = patience
        self._deadline = patience.pace.clock() + timeout
        self._failures = 0

    @property
    def seconds(self) -> float:
        """What is left. Raises NotApproved where nothing is."""
        left = self._deadline - self._patience.pace.clock()
        if left <= 0:
            raise NotApproved(self.decision, "pending")
        return left

    def over(self, state: pb.ApprovalState) -> bool:
        """Whether it is approved. Raises NotApproved where it will not be; a state that is unknown is none."""
        self._failures = 0
        told = _STATES.get(state.what, "expired")
        if told in ("pending", "approved", "used"):  # used: perhaps by this very agent; asking again tells
            return told != "pending"
        raise NotApproved(self.decision, told)

    def pause_after(self, error: Exception | None) -> float:
        """Seconds before watching again. Raises NoDecision where that makes no sense.

        ``error``: None where the stream ended, or was signed for another epoch.
        """
        code = None if error is None else code_of(error)
        if error is not None and code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return 0.0
        if error is not None and code not in _AGAIN:
            raise no_decision(error, self._patience.address, self._patience.timeout) from error
        self._failures += 1
        return min(self._patience.pace.pause(self._failures), max(self.seconds, 0.0))


def again(what: ApprovalRequired | Decision) -> Ask:
    """The question to ask under the approvals: the same, under a key that stands for this approval.

    Nobody can guess it who could not guess the first question's: personal fields rest on that.
    """
    decision = what.decision if isinstance(what, ApprovalRequired) else what
    asked = decision.asked
    if asked is None:
        raise UsageError("this decision does not say what was asked: pass the one that this guard was given")
    first, named = asked.idempotency_key, decision.decision_id
    key = hashlib.sha256(f"sidecar/v1/approved\0{first}\0{named}".encode()).hexdigest()[:32]
    return dataclasses.replace(asked, alternatives=(), idempotency_key=key, approval_of=named)
