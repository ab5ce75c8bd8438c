"""What the decision path writes: payloads of DECISION, OUTCOME, REJECTED and POLICY (LEDGER.md, "Payload")."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.chain import strictjson
from sidecar.chain.digests import Approval, Outcome
from sidecar.chain.request import Given, Option, Request
from sidecar.decide import delegations
from sidecar.decide.registered import Registered, executor_of
from sidecar.errors import WrongState
from sidecar.identity import Proved
from sidecar.ledger import Recorded, unopened
from sidecar.policy import Obligation, PolicyVersion, Reason, Verdict


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as it was proved by ``registry``, and what the transport knows of it."""

    proved: Proved
    peer: str
    registry: Registered | None = None

    @property
    def agent(self) -> str:
        """The agent's id."""
        return self.proved.id

    @property
    def proof(self) -> str:
        """How it was proved."""
        return self.proved.proof

    @property
    def tagged(self) -> str | None:
        """The id by which the entry is tagged: a proved one."""
        return None if self.proof == "asserted" else self.agent


@dataclass(frozen=True, slots=True)
class Asking:
    """What one registry says of a request: who asks, and as payloads have them, who gave its delegations, and the
    approvals that it is asked under."""

    caller: Caller
    delegators: tuple[Mapping[str, Any], ...] = ()
    approval: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused request: gRPC status name, field, cause; who was refused, if that was proved; a word for metrics."""

    code: str
    field: str
    cause: str
    principal: str = ""
    why: str = ""
    decision_id: str = ""
    call: str = ""

    @property
    def alarm(self) -> bool:
        """Whether it must not be lost among others: a receipt that this ledger does not hold, an outcome not taken."""
        told = self.cause.startswith("last_receipt") or self.call == "ReportOutcome"
        return told and self.code == "FAILED_PRECONDITION"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a policy comes from and what it had to pass, as POLICY entries have it (LEDGER.md, "POLICY")."""

    kind: str
    place: str
    commit: Mapping[str, str] | None = None
    signer: Mapping[str, str] | None = None
    gate: Sequence[Mapping[str, Any]] = ()
    impure_builtins: Sequence[str] = ()

    def members(self) -> dict[str, Any]:
        """The members of a POLICY payload that say it."""
        return {
            "source": {"kind": self.kind, "place": self.place},
            "commit": None if self.commit is None else dict(self.commit),
            "signer": None if self.signer is None else dict(self.signer),
            "gate": [dict(step) for step in self.gate],
            "impure_builtins": list(self.impure_builtins),
        }

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Origin:
        """The origin in a checked POLICY payload."""
        source = payload["source"]
        return cls(
            source["kind"], source["place"], payload["commit"], payload["signer"], payload["gate"],
            payload["impure_builtins"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Terms:
    """Who must approve, and until when: the ``terms`` of a DECISION."""

    count: int
    roles: tuple[str, ...]
    expires: str

    def member(self) -> dict[str, Any]:
        """As payloads have it."""
        return {"count": self.count, "roles": list(self.roles), "expires": self.expires}

    @classmethod
    def of(cls, said: Mapping[str, Any] | None) -> Terms | None:
        """The terms in a checked payload."""
        return None if said is None else cls(said["count"], tuple(said["roles"]), said["expires"])


@dataclass(frozen=True, slots=True)
class Judgement:
    """One option judged: the verdict, why (``policy`` or an engine error's cause), and the whole result.

    ``impure``: the built-ins for which the policy gives no promise to answer the same when it is run again.
    """

    verdict: Verdict
    cause: str
    result: object
    version: PolicyVersion
    impure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision that is on disk."""

    decision_id: str
    judged: Judgement
    alternatives: tuple[Judgement, ...]
    caller: Caller
    recorded: Recorded
    enforced: bool
    permit: bytes = b""
    terms: Terms | None = None


def answer_again(payload: Mapping[str, Any], caller: Caller, recorded: Recorded, permit: bytes) -> Answer:
    """The answer that a DECISION's payload holds, for a caller who asks the same again."""
    version = PolicyVersion(**payload["policy"])
    judged = Judgement(_verdict(payload), payload["cause"], payload["result"], version)
    others = tuple(Judgement(_verdict(o), payload["cause"], None, version) for o in payload["alternatives"])
    terms = Terms.of(payload["terms"])
    return Answer(payload["decision_id"], judged, others, caller, recorded, payload["enforced"], permit, terms)


def _verdict(said: Mapping[str, Any]) -> Verdict:
    reasons = tuple(Reason(r["code"], r["message"]) for r in said["reasons"])
    obligations = tuple(Obligation(o["kind"], o["parameters"]) for o in said.get("obligations", ()))
    return Verdict(said["effect"], reasons, obligations)


def policy_input(
    asking: Asking, request: Request, option: Option, arguments: dict[str, Any], context: dict[str, Any], at: str
) -> dict[str, Any]:
    """The document the policy sees, with the option's arguments and the context as read from the request's bytes.

    It can be rebuilt from the entry alone. Raises RequestError as `executor_of`.
    """
    who = asking.caller.proved
    return {
        "agent": {"id": who.id, "proof": who.proof, "roles": list(who.roles), "attributes": dict(who.attributes)},
        "action": option.action,
        "resource": {"type": option.resource_type, "id": option.resource_id},
        "arguments": arguments,
        "context": context,
        "purpose": request.purpose,
        "time": at,
        "executor": executor_of(asking.caller.registry, request),
        "delegation": delegations.seen([given.text for given in request.delegations], asking.delegators),
        "approvals": _approvals(asking.approval),
    }


def policy_inputs(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents that the policy saw for a recorded DECISION: of the action, then of each alternative.

    Raises:
        WrongState: personal fields are sealed in it. `chain.personal` puts them back, with an opening.
    """
    if unopened(payload):
        raise WrongState("it cannot be re-run: personal fields of it are sealed, and there is no opening")
    request = payload["request"]
    return [
        {
            "agent": {name: payload["agent"][name] for name in ("id", "proof", "roles", "attributes")},
            "action": option["action"],
            "resource": {"type": option["resource"]["type"], "id": option["resource"]["id"]},
            "arguments": strictjson.parse_object(option["arguments"].encode() or b"{}"),
            "context": strictjson.parse_object(request["context"].encode() or b"{}"),
            "purpose": request["purpose"],
            "time": payload["time"],
            "executor": payload["executor"],
            "delegation": delegations.seen([d["text"].encode() for d in request["delegations"]], payload["delegators"]),
            "approvals": _approvals(payload["approval"]),
        }
        for option in (request, *request["alternatives"])
    ]


def _approvals(approval: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    given = () if approval is None else approval["approvals"]
    return [{**each["by"], "time": each["time"]} for each in given]


def named_in(payload: Mapping[str, Any]) -> set[str]:
    """The ids of the principals that an entry is about."""
    about = [payload.get(member) for member in ("agent", "by", "executor")]
    approval = payload.get("approval")
    about += [each["by"] for each in approval["approvals"]] if isinstance(approval, dict) else []
    return {each["id"] for each in about if isinstance(each, dict)} | {payload.get("principal", "")} - {""}


def version_member(version: PolicyVersion) -> dict[str, str]:
    """The ``policy`` member of payloads."""
    return {
        "engine": version.engine,
        "engine_version": version.engine_version,
        "entrypoint": version.entrypoint,
        "revision": version.revision,
        "bundle_digest": version.bundle_digest,
    }


def decision(
    decision_id: str,
    at: str,
    asking: Asking,
    request: Request,
    digest: bytes,
    judged: Judgement,
    others: Sequence[Judgement],
    ns: int,
    enforced: bool,
    until: int,
    terms: Terms | None,
) -> dict[str, Any]:
    """A DECISION's payload.

    ``digest``: of the request; ``ns``: how long the policy took; ``enforced``: not in shadow; ``until``: ns since 1970
    when a permit ends, if it gives one; ``terms``: what it waits for, with REQUIRE_APPROVAL.

    Raises:
        RequestError: as `executor_of`.
    """
    caller = asking.caller
    impure = sorted({name for judgement in (judged, *others) for name in judgement.impure})
    executor = executor_of(caller.registry, request)
    return {
        "type": "DECISION",
        "decision_id": decision_id,
        "time": at,
        "agent": caller.proved.member(),
        "registry": None if caller.registry is None else caller.registry.member(),
        "request": _request(request),
        "request_digest": digest.hex(),
        "effect": judged.verdict.effect,
        "enforced": enforced,
        "cause": judged.cause,
        "reasons": _reasons(judged.verdict.reasons),
        "obligations": [{"kind": o.kind, "parameters": o.parameters} for o in judged.verdict.obligations],
        "alternatives": [{"effect": o.verdict.effect, "reasons": _reasons(o.verdict.reasons)} for o in others],
        "result": judged.result,
        "policy": version_member(judged.version),
        "peer": caller.peer,
        "executor": executor,
        "delegators": [dict(giver) for giver in asking.delegators],
        "approval": None if asking.approval is None else dict(asking.approval),
        "terms": None if terms is None else terms.member(),
        "permit": {"not_after": str(until)} if executor and judged.verdict.effect == "ALLOW" else None,
        "timings": {"evaluate_ns": str(ns)},
        **({"impure_builtins": impure} if impure else {}),
    }


def outcome(caller: Caller, said: Outcome, seq: int, agent: Mapping[str, Any]) -> dict[str, Any]:
    """An OUTCOME's payload, about the DECISION at ``seq``, whose ``agent`` it names."""
    return {
        "type": "OUTCOME",
        "decision_id": said.decision_id,
        "decision_seq": seq,
        "agent": {"id": agent["id"], "proof": agent["proof"]},
        "by": caller.proved.member(),
        "status": said.status,
        "response": said.response.decode() if said.response else None,
        "response_digest": said.response_digest.hex() if said.response_digest else None,
        "arguments_digest": said.arguments_digest.hex() if said.arguments_digest else None,
        "permit": said.permit.decode(),
        "downstream_status": said.downstream_status,
        "started_ns": str(said.started_ns or ""),
        "duration_ns": str(said.duration_ns or ""),
    }


def approval(caller: Caller, said: Approval, seq: int, agent: Mapping[str, Any]) -> dict[str, Any]:
    """An APPROVAL's payload, about the DECISION at ``seq``, whose ``agent`` it names."""
    return {
        "type": "APPROVAL",
        "decision_id": said.decision_id,
        "decision_seq": seq,
        "agent": {"id": agent["id"], "proof": agent["proof"]},
        "by": caller.proved.member(),
        "verdict": said.verdict,
        "action_digest": said.action_digest.hex(),
        "arguments_digest": said.arguments_digest.hex(),
        "policy": {"revision": said.policy_revision, "bundle_digest": said.bundle_digest},
        "comment": said.comment,
    }


def rejected(refusal: Refusal, peer: str, count: int) -> dict[str, Any]:
    """A REJECTED entry's payload: what was wrong and where, never the content."""
    return {
        "type": "REJECTED",
        "call": refusal.call,
        "code": refusal.code,
        "field": refusal.field,
        "cause": refusal.cause,
        "peer": peer,
        "principal": refusal.principal,
        "decision_id": refusal.decision_id,
        "count": count,
    }


def policy(event: str, version: PolicyVersion, before: PolicyVersion | None, origin: Origin) -> dict[str, Any]:
    """A POLICY entry's payload; ``before``: the policy in force until now."""
    was = None if before is None else {"revision": before.revision, "bundle_digest": before.bundle_digest}
    return {"type": "POLICY", "event": event, **version_member(version), "from": was, **origin.members()}


def _request(request: Request) -> dict[str, Any]:
    return {
        **_option(request.wanted),
        "context": request.context.decode(),
        "purpose": request.purpose,
        "alternatives": [_option(o) for o in request.alternatives],
        "trace_parent": request.trace_parent,
        "idempotency_key": request.idempotency_key,
        "last_receipt": base64.b64encode(request.last_receipt).decode(),
        "executor": request.executor,
        "delegations": [_given(each) for each in request.delegations],
        "approval_of": request.approval_of,
    }


def _given(given: Given) -> dict[str, str]:
    key, signature = (base64.b64encode(each).decode() for each in (given.key, given.signature))
    return {"text": given.text.decode(), "key": key, "signature": signature}


def _option(option: Option) -> dict[str, Any]:
    return {
        "action": option.action,
        "resource": {"type": option.resource_type, "id": option.resource_id},
        "arguments": option.arguments.decode(),
    }


def _reasons(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code, "message": r.message} for r in reasons]
