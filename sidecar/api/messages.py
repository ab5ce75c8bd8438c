"""Between the messages of decision.proto and the decision path's own nouns. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.chain import strictjson
from sidecar.chain.digests import Outcome
from sidecar.chain.payload import wall_ns_of
from sidecar.chain.request import Given, Option, Request
from sidecar.decide import Answer, Terms
from sidecar.policy import Obligation, PolicyVersion, Reason
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


def answer_message(answer: Answer) -> pb.DecideResponse:
    """The answer on the wire."""
    judged = answer.judged
    return pb.DecideResponse(
        decision_id=answer.decision_id,
        effect=_EFFECTS[judged.verdict.effect],
        reasons=_reasons(judged.verdict.reasons),
        obligations=[_obligation(o) for o in judged.verdict.obligations],
        alternatives=[
            pb.AlternativeVerdict(effect=_EFFECTS[o.verdict.effect], reasons=_reasons(o.verdict.reasons))
            for o in answer.alternatives
        ],
        policy=policy_message(judged.version),
        seq=answer.recorded.seq,
        receipt=answer.recorded.receipt,
        agent_proof=answer.caller.proof,
        enforced=answer.enforced,
        permit=answer.permit,
        approval=None if answer.terms is None else terms_message(answer.terms),
    )


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


def _reasons(reasons: Sequence[Reason]) -> list[pb.Reason]:
    return [pb.Reason(code=r.code, message=r.message) for r in reasons]


def _obligation(obligation: Obligation) -> pb.Obligation:
    return pb.Obligation(kind=obligation.kind, parameters=strictjson.dumps(obligation.parameters))


def policy_message(version: PolicyVersion) -> pb.PolicyVersion:
    """A policy's version on the wire."""
    return pb.PolicyVersion(
        engine=version.engine,
        engine_version=version.engine_version,
        entrypoint=version.entrypoint,
        revision=version.revision,
        bundle_digest=version.bundle_digest,
    )
