"""Answers read: a message becomes a plain decision, or there is none.

An answer is believed only if it is whole: a known effect, a decision id, one verdict for each alternative, and a
receipt whose text names the same decision, effect and seq, and the very request that was sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from sidecar.client.decision import (
    Alternative,
    AlternativeVerdict,
    ApprovalTerms,
    Decision,
    Effect,
    Obligation,
    PolicyVersion,
    Reason,
)
from sidecar.client.failure import misshaped, refusal
from sidecar.client.receipts import names
from sidecar.client.refusals import NoDecision, one_line
from sidecar.client.retry import Patience
from sidecar.client.wire import Asked
from sidecar.v1 import decision_pb2 as pb

_EFFECTS: dict[int, Effect] = {
    pb.EFFECT_ALLOW: Effect.ALLOW,
    pb.EFFECT_DENY: Effect.DENY,
    pb.EFFECT_REQUIRE_APPROVAL: Effect.REQUIRE_APPROVAL,
}


def read_answer(response: pb.DecideResponse, asked: Asked) -> Decision:
    """The decision in an answer. NoDecision("protocol") when it is not whole or contradicts its receipt."""
    effect = _EFFECTS.get(response.effect)
    if effect is None:
        raise misshaped(f"the answer's effect is {response.effect}, which this client does not know")
    if not response.decision_id:
        raise misshaped("the answer has no decision id")
    offered = asked.ask.alternatives
    if len(response.alternatives) != len(offered):
        raise misshaped(f"the answer judges {len(response.alternatives)} alternatives, {len(offered)} were asked")
    if effect is Effect.ALLOW and asked.ask.executor and not response.permit:
        raise misshaped("the answer has no permit for the executor that was named")
    _check_receipt(response, effect, asked)
    return Decision(
        action=asked.ask.action,
        decision_id=response.decision_id,
        effect=effect,
        reasons=reasons_of(response.reasons),
        obligations=tuple(_obligation(o) for o in response.obligations),
        alternatives=tuple(map(_verdict, offered, response.alternatives)),
        policy=policy_of(response.policy),
        seq=response.seq,
        receipt=response.receipt,
        agent_proof=response.agent_proof,
        enforced=response.enforced if response.HasField("enforced") else True,
        arguments=asked.request.arguments,
        executor=asked.ask.executor,
        permit=response.permit,
        approval=terms_of(response.approval) if response.HasField("approval") else None,
        asked=replace(asked.ask, idempotency_key=asked.request.idempotency_key),
    )


def read_one(answer: pb.Answer, asked: Asked, patience: Patience) -> Decision:
    """One answer of a batch or a stream. NoDecision when it is a refusal, or nothing."""
    which = answer.WhichOneof("what")
    if which == "decision":
        return read_answer(answer.decision, asked)
    if which == "refusal":
        said = answer.refusal
        raise refusal(said.code, said.message, patience.address, patience.timeout, asked.last_receipt)
    raise misshaped("the answer is neither a decision nor a refusal")


def read_batch(
    response: pb.DecideBatchResponse, questions: Sequence[Asked], patience: Patience
) -> list[Decision | NoDecision]:
    """The answers of a batch, in the order of its questions. Raises NoDecision when they are not as many."""
    if len(response.answers) != len(questions):
        raise misshaped(f"{len(response.answers)} answers to {len(questions)} questions")
    return [_either(answer, asked, patience) for answer, asked in zip(response.answers, questions, strict=True)]


def _either(answer: pb.Answer, asked: Asked, patience: Patience) -> Decision | NoDecision:
    try:
        return read_one(answer, asked, patience)
    except NoDecision as none:
        return none


def _check_receipt(response: pb.DecideResponse, effect: Effect, asked: Asked) -> None:
    wanted = {
        "seq": str(response.seq),
        "decision": response.decision_id,
        "effect": effect.value,
        "request": asked.digest(),
    }
    if not names(response.receipt, wanted):
        raise misshaped("answer and receipt disagree", response.receipt)


def reasons_of(reasons: Sequence[pb.Reason]) -> tuple[Reason, ...]:
    """Reasons, in their order."""
    return tuple(Reason(r.code, r.message) for r in reasons)


def _obligation(obligation: pb.Obligation) -> Obligation:
    try:
        parameters = json.loads(obligation.parameters or b"{}")
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        raise misshaped(f"the parameters of the obligation {one_line(obligation.kind)} are not a JSON object")
    return Obligation(obligation.kind, parameters)


def _verdict(alternative: Alternative, verdict: pb.AlternativeVerdict) -> AlternativeVerdict:
    # An effect this client does not know is a DENY.
    return AlternativeVerdict(alternative, _EFFECTS.get(verdict.effect, Effect.DENY), reasons_of(verdict.reasons))


def policy_of(policy: pb.PolicyVersion) -> PolicyVersion:
    """Which policy it was."""
    return PolicyVersion(policy.engine, policy.engine_version, policy.entrypoint, policy.revision, policy.bundle_digest)


def terms_of(terms: pb.ApprovalTerms) -> ApprovalTerms:
    """What an approval takes."""
    return ApprovalTerms(terms.count, tuple(terms.roles), terms.expires_ns)
