"""Between the messages of decision.proto and the decision path's own nouns. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from sidecar.chain import strictjson
from sidecar.chain.digests import Outcome
from sidecar.chain.payload import wall_ns_of
from sidecar.chain.request import Given, Option, Request
from sidecar.decide import Answer, Terms
from sidecar.policy import PolicyVersion, Reason
from sidecar.v1 import decision_pb2 as pb

_EFFECTS = {
    "ALLOW": pb.EFFECT_ALLOW,
    "DENY": pb.EFFECT_DENY,
    "REQUIRE_APPROVAL": pb.EFFECT_REQUIRE_APPROVAL,
}
_STATUSES = {
    pb.OUTCOME_STATUS_EXECUTED: "executed",
    pb.OUTCOME_STATUS_BLOCKED: "blocked",
    pb.OUTCOME_STATUS_FAILED: "failed",
}


def request_of(message: pb.DecideRequest) -> Request:
    """The request as it was sent."""
    return Request(
        message.agent,
        Option(message.action, message.resource.type, message.resource.id, message.arguments),
        message.context,
        message.purpose,
        message.trace_parent,
        message.idempotency_key,
        message.last_receipt,
        tuple(Option(a.action, a.resource.type, a.resource.id, a.arguments) for a in message.alternatives),
        message.executor,
        message.approval_of,
        tuple(Given(d.text, d.key, d.signature) for d in message.delegations),
    )


def outcome_of(message: pb.ReportOutcomeRequest) -> Outcome:
    """The outcome as it was reported; an unknown status becomes the empty string, which the path refuses."""
    status = _STATUSES.get(message.status, "")
    return Outcome(
        message.agent, message.decision_id, status, message.response, message.response_digest, message.permit,
        message.arguments_digest, message.downstream_status, message.started_ns, message.duration_ns,
    )  # fmt: skip


def write_answer(answer: Answer, to: pb.DecideResponse) -> None:
    """The answer on the wire, into an empty message: one that is put into another is copied, and so on outwards."""
    judged = answer.judged
    to.decision_id, to.effect = answer.decision_id, _EFFECTS[judged.verdict.effect]
    _write_reasons(judged.verdict.reasons, to.reasons)
    for obligation in judged.verdict.obligations:
        to.obligations.add(kind=obligation.kind, parameters=strictjson.dumps(obligation.parameters))
    for other in answer.alternatives:
        verdict = to.alternatives.add(effect=_EFFECTS[other.verdict.effect])
        _write_reasons(other.verdict.reasons, verdict.reasons)
    to.policy.CopyFrom(policy_message(judged.version))
    to.seq, to.receipt, to.permit = answer.recorded.seq, answer.recorded.receipt, answer.permit
    to.agent_proof, to.enforced = answer.caller.proof, answer.enforced
    if answer.terms is not None:
        to.approval.CopyFrom(terms_message(answer.terms))


def request_message(request: Request) -> pb.DecideRequest:
    """A request as it was sent, without its signature."""
    return pb.DecideRequest(
        agent=request.agent,
        action=request.wanted.action,
        resource=pb.Resource(type=request.wanted.resource_type, id=request.wanted.resource_id),
        arguments=request.wanted.arguments,
        context=request.context,
        purpose=request.purpose,
        alternatives=[
            pb.Alternative(
                action=o.action, resource=pb.Resource(type=o.resource_type, id=o.resource_id), arguments=o.arguments
            )
            for o in request.alternatives
        ],
        trace_parent=request.trace_parent,
        idempotency_key=request.idempotency_key,
        last_receipt=request.last_receipt,
        executor=request.executor,
        delegations=[pb.Delegation(text=d.text, key=d.key, signature=d.signature) for d in request.delegations],
        approval_of=request.approval_of,
    )


def terms_message(terms: Terms) -> pb.ApprovalTerms:
    """What an approval takes, on the wire."""
    return pb.ApprovalTerms(count=terms.count, roles=terms.roles, expires_ns=wall_ns_of(terms.expires))


def _write_reasons(reasons: Sequence[Reason], to: RepeatedCompositeFieldContainer[pb.Reason]) -> None:
    for reason in reasons:
        to.add(code=reason.code, message=reason.message)


def policy_message(version: PolicyVersion) -> pb.PolicyVersion:
    """A policy's version on the wire."""
    return pb.PolicyVersion(
        engine=version.engine,
        engine_version=version.engine_version,
        entrypoint=version.entrypoint,
        revision=version.revision,
        bundle_digest=version.bundle_digest,
    )
