"""Questions as messages: everything of asking that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict
from uuid import uuid4

from sidecar.chain.request import Given, Option, Request
from sidecar.client.decision import Alternative
from sidecar.client.refusals import one_line
from sidecar.client.tracing import trace_parent
from sidecar.errors import RequestError
from sidecar.v1 import decision_pb2 as pb

MAX_BATCH: Final = 64


class About(TypedDict, total=False):
    """What a question may carry besides action, resource and arguments.

    ``context``: what the policy may look at besides. ``purpose``: why the agent wants it, up to 1,024 characters.
    ``alternatives``: up to 8 other actions to judge. ``trace_parent``: W3C Trace Context `traceparent`; that of
    OpenTelemetry's current span unless given. ``executor``: the registered executor that will carry it out; an ALLOW
    then has a permit for it, and it reports the outcome.

    ``idempotency_key``: 1 to 128 characters, to get the decision made before, also after the agent itself was
    restarted, until its outcome is recorded: then NoDecision, for what was allowed is not allowed twice. It stands for
    the same request byte for byte, so a question with the caller's own key carries no last receipt. Without one, each
    question gets a fresh key.

    ``delegations``: on whose behalf, as `delegate` makes them, the first given by whom it all starts from.
    ``approval_of``: the id of the decision under whose approvals this is asked; `wait_for_approval` does it.
    """

    context: Mapping[str, Any]
    purpose: str
    alternatives: Sequence[Alternative]
    idempotency_key: str
    trace_parent: str
    executor: str
    delegations: Sequence[Given]
    approval_of: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of several; the fields are those of `Guard.ask` and `About`."""

    action: str
    resource: tuple[str, str]
    arguments: Mapping[str, Any] | bytes | None = None
    context: Mapping[str, Any] | None = None
    purpose: str = ""
    alternatives: Sequence[Alternative] = ()
    idempotency_key: str = ""
    trace_parent: str = ""
    executor: str = ""
    delegations: Sequence[Given] = ()
    approval_of: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is sent, once or again."""

    ask: Ask
    request: pb.DecideRequest

    @property
    def last_receipt(self) -> bytes:
        """The receipt sent with it."""
        return self.request.last_receipt

    def digest(self) -> str:
        """The request digest in hex (`proto/LEDGER.md`), which the receipt of its answer must name."""
        return request_digest(self.request).hex()


def request_digest(sent: pb.DecideRequest) -> bytes:
    """The request digest (`proto/LEDGER.md`) of a message as it is sent."""
    return request_in(sent).digest()


def request_in(sent: pb.DecideRequest) -> Request:
    """What a message asks."""
    return Request(
        sent.agent,
        Option(sent.action, sent.resource.type, sent.resource.id, sent.arguments),
        sent.context,
        sent.purpose,
        sent.trace_parent,
        sent.idempotency_key,
        sent.last_receipt,
        tuple(Option(a.action, a.resource.type, a.resource.id, a.arguments) for a in sent.alternatives),
        sent.executor,
        sent.approval_of,
        tuple(Given(d.text, d.key, d.signature) for d in sent.delegations),
    )


def encode_json(field: str, value: object) -> bytes:
    """Any JSON value in UTF-8, or RequestError naming ``field``; the message holds nothing of the value."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except TypeError as error:
        cause = one_line(str(error))  # names a type, never a value
    except (ValueError, RecursionError):
        cause = "cannot be written as JSON: it holds NaN, an infinity, a lone surrogate or itself, or nests too deep"
    raise RequestError(field, cause)


def encode_object(field: str, value: Mapping[str, Any] | bytes) -> bytes:
    """A JSON object in UTF-8, or RequestError naming ``field``. Bytes are that already, and are sent as they are."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, Mapping):
        raise RequestError(field, f"must be a mapping, not {type(value).__name__}")
    return encode_json(field, dict(value))


def asked(agent: str, last_receipt: bytes, ask: Ask) -> Asked:
    """The request for one decision. RequestError when something in it cannot be sent."""
    own_key = ask.idempotency_key
    try:
        request = pb.DecideRequest(
            agent=agent,
            action=ask.action,
            resource=_resource("resource", ask.resource),
            arguments=encode_object("arguments", {} if ask.arguments is None else ask.arguments),
            context=b"" if ask.context is None else encode_object("context", ask.context),
            purpose=ask.purpose,
            alternatives=[_alternative(f"alternatives[{i}]", a) for i, a in enumerate(ask.alternatives)],
            idempotency_key=own_key or uuid4().hex,
            trace_parent=ask.trace_parent or ("" if own_key else trace_parent()),
            delegations=[pb.Delegation(text=d.text, key=d.key, signature=d.signature) for d in ask.delegations],
            approval_of=ask.approval_of,
            last_receipt=b"" if own_key else last_receipt,
            executor=ask.executor,
        )
    except (TypeError, ValueError):
        raise RequestError("request", "a name in it is not text that UTF-8 can carry") from None
    return Asked(ask, request)


def batch(questions: Sequence[Asked]) -> pb.DecideBatchRequest:
    """Several questions in one call. RequestError for more than 64."""
    if len(questions) > MAX_BATCH:
        raise RequestError("requests", f"has {len(questions)} members; the limit is {MAX_BATCH}: ask in several calls")
    return pb.DecideBatchRequest(requests=[question.request for question in questions])


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
