"""Questions and answers as messages: everything of the protocol that needs no network.

An answer is believed only if it is whole: a known effect, a decision id, one verdict for each alternative, and a
receipt whose text names the same decision and effect. The receipt's signature is not checked here: that takes the
chain's keys, and `sidecar verify --receipt` does it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import grpc

from sidecar.client.decision import (
    Alternative,
    AlternativeVerdict,
    Decision,
    Effect,
    Obligation,
    PolicyVersion,
    Reason,
)
from sidecar.client.refusals import NoDecision, NoDecisionCause, one_line
from sidecar.errors import RequestError
from sidecar.v1 import decision_pb2 as pb

_EFFECTS: dict[int, Effect] = {
    pb.EFFECT_ALLOW: Effect.ALLOW,
    pb.EFFECT_DENY: Effect.DENY,
    pb.EFFECT_REQUIRE_APPROVAL: Effect.REQUIRE_APPROVAL,
}

_STATUS_CAUSES: dict[grpc.StatusCode, NoDecisionCause] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNAVAILABLE: "unreachable",
    grpc.StatusCode.CANCELLED: "unreachable",
    grpc.StatusCode.UNIMPLEMENTED: "protocol",
    grpc.StatusCode.INTERNAL: "protocol",
    grpc.StatusCode.UNKNOWN: "protocol",
}

_MEND: dict[NoDecisionCause, str] = {
    "timeout": "see whether the sidecar is overloaded, or give the guard more time",
    "unreachable": "see whether the sidecar runs there and is ready",
    "refused": "the sidecar's words name what to mend",
    "protocol": "see the sidecar's log, and that client and sidecar are of matching versions",
}


class About(TypedDict, total=False):
    """What a question may carry besides action, resource and arguments.

    ``context``: what the policy may look at besides. ``purpose``: why the agent wants it, up to 1,024 characters.
    ``alternatives``: up to 8 other actions to judge. ``idempotency_key``: 1 to 128 characters. ``trace_parent``: W3C
    Trace Context `traceparent`.
    """

    context: Mapping[str, Any]
    purpose: str
    alternatives: Sequence[Alternative]
    idempotency_key: str
    trace_parent: str


def encode_json(field: str, value: object) -> bytes:
    """Any JSON value in UTF-8, or RequestError naming ``field``; the message holds nothing of the value."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except TypeError as error:
        cause = one_line(str(error))  # names a type, never a value
    except (ValueError, RecursionError):
        cause = "cannot be written as JSON: it holds NaN, an infinity, a lone surrogate or itself, or nests too deep"
    raise RequestError(field, cause)


def encode_object(field: str, value: Mapping[str, Any]) -> bytes:
    """A JSON object in UTF-8, or RequestError naming ``field``."""
    if not isinstance(value, Mapping):
        raise RequestError(field, f"must be a mapping, not {type(value).__name__}")
    return encode_json(field, dict(value))


def question(
    agent: str,
    last_receipt: bytes,
    action: str,
    resource: tuple[str, str],
    arguments: Mapping[str, Any],
    *,
    context: Mapping[str, Any] | None = None,
    purpose: str = "",
    alternatives: Sequence[Alternative] = (),
    idempotency_key: str = "",
    trace_parent: str = "",
) -> pb.DecideRequest:
    """The request for one decision. RequestError when something in it cannot be sent."""
    try:
        return pb.DecideRequest(
            agent=agent,
            action=action,
            resource=_resource("resource", resource),
            arguments=encode_object("arguments", arguments),
            context=b"" if context is None else encode_object("context", context),
            purpose=purpose,
            alternatives=[_alternative(f"alternatives[{i}]", a) for i, a in enumerate(alternatives)],
            idempotency_key=idempotency_key,
            trace_parent=trace_parent,
            last_receipt=last_receipt,
        )
    except (TypeError, ValueError):
        raise RequestError("request", "a name in it is not text that UTF-8 can carry") from None


def read_answer(response: pb.DecideResponse, action: str, alternatives: Sequence[Alternative] = ()) -> Decision:
    """The decision in an answer. NoDecision("protocol") when it is not whole or contradicts its receipt."""
    effect = _EFFECTS.get(response.effect)
    if effect is None:
        raise _misshaped(f"the answer's effect is {response.effect}, which this client does not know")
    if not response.decision_id:
        raise _misshaped("the answer has no decision id")
    if len(response.alternatives) != len(alternatives):
        raise _misshaped(f"the answer judges {len(response.alternatives)} alternatives, {len(alternatives)} were asked")
    if not _receipt_names(response.receipt, response.decision_id, effect):
        raise _misshaped("answer and receipt disagree", response.receipt)
    return Decision(
        action=action,
        decision_id=response.decision_id,
        effect=effect,
        reasons=_reasons(response.reasons),
        obligations=tuple(_obligation(o) for o in response.obligations),
        alternatives=tuple(map(_verdict, alternatives, response.alternatives)),
        policy=_policy(response.policy),
        seq=response.seq,
        receipt=response.receipt,
        agent_proof=response.agent_proof,
    )


def no_decision(error: Exception, address: str, timeout: float) -> NoDecision:
    """What a failed call means: gRPC's error, in one line, with cause and mend."""
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):  # the bare RpcError has neither
        code, details = error.code(), one_line(error.details() or "")
    else:
        code, details = grpc.StatusCode.UNAVAILABLE, one_line(str(error))
    cause = _STATUS_CAUSES.get(code, "refused")
    what = f"none within {timeout:g} s" if cause == "timeout" else f"{code.name}: {details or 'no details given'}"
    return NoDecision(cause, f"{what} (sidecar at {address}); {_MEND[cause]}")


def _misshaped(what: str, receipt: bytes = b"") -> NoDecision:
    return NoDecision("protocol", f"{what}; {_MEND['protocol']}", receipt)


def _receipt_names(receipt: bytes, decision_id: str, effect: Effect) -> bool:
    """Whether the receipt, a C2SP signed note of `name value` lines, has exactly these two lines in its text."""
    text, _blank_line, _signatures = receipt.rpartition(b"\n\n")
    lines = text.split(b"\n")
    return all(
        [line for line in lines if line.partition(b" ")[0] == name] == [name + b" " + value]
        for name, value in ((b"decision", decision_id.encode()), (b"effect", effect.value.encode()))
    )


def _resource(field: str, resource: tuple[str, str]) -> pb.Resource:
    # A plain string of two characters would unpack as well.
    if not isinstance(resource, tuple) or len(resource) != 2:
        raise RequestError(field, 'must be a pair of type and id, as ("account", "acme-42")')
    try:
        return pb.Resource(type=resource[0], id=resource[1])
    except (TypeError, ValueError):
        raise RequestError(field, "type and id must be text that UTF-8 can carry") from None


def _alternative(field: str, alternative: Alternative) -> pb.Alternative:
    return pb.Alternative(
        action=alternative.action,
        resource=_resource(f"{field}.resource", alternative.resource),
        arguments=encode_object(f"{field}.arguments", alternative.arguments),
    )


def _reasons(reasons: Sequence[pb.Reason]) -> tuple[Reason, ...]:
    return tuple(Reason(r.code, r.message) for r in reasons)


def _obligation(obligation: pb.Obligation) -> Obligation:
    try:
        parameters = json.loads(obligation.parameters or b"{}")
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        raise _misshaped(f"the parameters of the obligation {one_line(obligation.kind)} are not a JSON object")
    return Obligation(obligation.kind, parameters)


def _verdict(alternative: Alternative, verdict: pb.AlternativeVerdict) -> AlternativeVerdict:
    # An effect this client does not know is a DENY.
    return AlternativeVerdict(alternative, _EFFECTS.get(verdict.effect, Effect.DENY), _reasons(verdict.reasons))


def _policy(policy: pb.PolicyVersion) -> PolicyVersion:
    return PolicyVersion(policy.engine, policy.engine_version, policy.entrypoint, policy.revision, policy.bundle_digest)
