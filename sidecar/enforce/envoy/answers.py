"""What Envoy is answered: go on, with which headers; or a response in place of the action, for people and models."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue

from sidecar.chain import strictjson
from sidecar.decide import Answer
from sidecar.enforce.envoy.asked import APPROVAL_OF
from sidecar.enforce.envoy.conditions import Conditions
from sidecar.enforce.envoy.v3 import ext_authz_pb2 as pb

DECISION: Final = "x-sidecar-decision-id"
PERMIT: Final = "x-sidecar-permit"
_OURS: Final = (DECISION, PERMIT, APPROVAL_OF)
_TO_THE_GATEWAY: Final = (
    *("x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-retriable-status-codes"),
    *("x-envoy-retriable-header-names", "x-envoy-hedge-on-per-try-timeout", "x-envoy-upstream-rq-timeout-ms"),
    *("x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-upstream-stream-duration-ms"),
    *("x-envoy-upstream-rq-timeout-alt-response", "x-envoy-expected-rq-timeout-ms", "x-envoy-original-path"),
    *("x-envoy-original-host", "x-envoy-upstream-alt-stat-name", "x-envoy-decorator-operation"),
    "x-envoy-original-dst-host",  # to where a cluster of type ORIGINAL_DST sends, with `use_http_header`
)
"""What Envoy does at the word of whom it takes for internal, as it may be told to take any address: try again, say."""

_PERMISSION_DENIED: Final = 7  # google.rpc.Code
_UNAVAILABLE: Final = 14
_MOST_REASONS: Final = 16

DENIED: Final = 403
UNDECIDED: Final = 503
NEEDS_APPROVAL: Final = 428
"""HTTP statuses (RFC 9110, RFC 6585) of a DENY, of no decision, and of REQUIRE_APPROVAL."""


def allowed(answer: Answer, conditions: Conditions, *, permit: bool) -> pb.CheckResponse:
    """Go on. ``permit``: give it to whoever carries the action out behind Envoy."""
    given = [*conditions.set, (DECISION, answer.decision_id)]
    if permit:
        given.append((PERMIT, base64.urlsafe_b64encode(answer.permit).decode()))
    names = {name for name, _ in given}
    removed = [*conditions.remove, *(name for name in _OURS if name not in names), *_TO_THE_GATEWAY]
    ok = pb.OkHttpResponse(headers=_headers(given), headers_to_remove=removed)
    return pb.CheckResponse(
        status=pb.Status(code=0), ok_response=ok, dynamic_metadata=_metadata(answer, "ALLOW")
    )  # fmt: skip


def denied(answer: Answer) -> pb.CheckResponse:
    """The policy's DENY or REQUIRE_APPROVAL, or that it gave no decision."""
    verdict = answer.judged.verdict
    if answer.judged.cause != "policy":
        status, error = UNDECIDED, "undecided"
    elif verdict.effect == "REQUIRE_APPROVAL":
        status, error = NEEDS_APPROVAL, "approval_required"
    else:
        status, error = DENIED, "denied"
    return _instead(status, {**_told(answer, error), "approval": _approval(answer)}, answer)


def unmet(answer: Answer, cause: str) -> pb.CheckResponse:
    """An ALLOW under a condition that this gateway cannot meet."""
    return _instead(DENIED, {**_told(answer, "obligation"), "message": cause}, answer)


def refused(status: int, error: str, message: str) -> pb.CheckResponse:
    """There is no decision: the request was refused before, or could not be decided."""
    return _instead(status, {"error": error, "message": message, "decision_id": None, "effect": None}, None)


def _told(answer: Answer, error: str) -> dict[str, Any]:
    version, verdict = answer.judged.version, answer.judged.verdict
    reasons: Sequence[Any] = verdict.reasons[:_MOST_REASONS]
    return {
        "error": error,
        "message": "; ".join(reason.message for reason in reasons),
        "decision_id": answer.decision_id,
        "effect": verdict.effect,
        "reasons": [{"code": reason.code, "message": reason.message} for reason in reasons],
        "policy": {"revision": version.revision, "bundle_digest": version.bundle_digest},
    }


def _approval(answer: Answer) -> dict[str, Any] | None:
    if answer.terms is None:
        return None
    how = (
        f"Have it approved (`sidecar approvals approve {answer.decision_id}`), then send the very same request again "
        f"with the header {APPROVAL_OF}: {answer.decision_id}"
    )
    return {**answer.terms.member(), "how": how}


def _instead(status: int, told: Mapping[str, Any], answer: Answer | None) -> pb.CheckResponse:
    code = _UNAVAILABLE if status >= 500 else _PERMISSION_DENIED
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    headers += [] if answer is None else [(DECISION, answer.decision_id)]
    body = strictjson.dumps(dict(told)).decode() + "\n"
    return pb.CheckResponse(
        status=pb.Status(code=code),
        denied_response=pb.DeniedHttpResponse(status=pb.HttpStatus(code=status), headers=_headers(headers), body=body),
        dynamic_metadata=None if answer is None else _metadata(answer, "DENY"),
    )


def _headers(given: Sequence[tuple[str, str]]) -> list[pb.HeaderValueOption]:
    return [
        pb.HeaderValueOption(
            header=pb.HeaderValue(key=name, value=value),
            append=BoolValue(value=False),
            append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for name, value in given
    ]


def _metadata(answer: Answer, done: str) -> Struct:
    """What the access log brings back: the decision, and whether the request went on."""
    found = Struct()
    found.update({"decision_id": answer.decision_id, "done": done})
    return found
