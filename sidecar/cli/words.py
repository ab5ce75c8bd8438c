"""Decisions and entries in a person's words. Text from agents and policies is printed without control characters."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sidecar.chain import door
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of, to_seconds
from sidecar.chain.printable import plain as plain
from sidecar.chain.statement import key_id

if TYPE_CHECKING:  # gRPC is slow to import, and most commands do not need it
    from sidecar.client import Decision

_MARKS = {"ALLOW": "ALLOW", "DENY": "DENY", "REQUIRE_APPROVAL": "NEEDS APPROVAL"}


def decision_lines(decision: Decision) -> Iterable[str]:
    """An answer as a person reads it."""
    policy = decision.policy
    shadow = "" if decision.enforced else "  (not enforced: shadow)"
    yield f"{_MARKS[decision.effect]}  {plain(decision.action)}{shadow}"
    for reason in decision.reasons:
        yield f"  because {plain(reason.message)} ({plain(reason.code)})"
    for obligation in decision.obligations:
        yield f"  obliged to {plain(obligation.kind)} {plain(dict(obligation.parameters))}"
    for other in decision.alternatives:
        yield f"  instead {plain(other.alternative.action)}: {_MARKS[other.effect]}"
    if decision.approval is not None:
        roles = f" with the role {plain(' or '.join(decision.approval.roles))}" if decision.approval.roles else ""
        until = to_seconds(policy_time(decision.approval.expires_ns))
        yield f"  takes {decision.approval.count} of the approvers{roles}, until {until}"
    yield f"  decision {decision.decision_id}, entry {decision.seq}, agent {decision.agent_proof}"
    yield f"  policy {policy.engine} {policy.entrypoint} revision {plain(policy.revision) or 'unknown'}"


def decision_object(decision: Decision) -> dict[str, Any]:
    """An answer for programs."""
    return {
        "decision_id": decision.decision_id,
        "effect": decision.effect.value,
        "enforced": decision.enforced,
        "reasons": [{"code": r.code, "message": r.message} for r in decision.reasons],
        "obligations": [{"kind": o.kind, "parameters": dict(o.parameters)} for o in decision.obligations],
        "alternatives": [{"effect": a.effect.value} for a in decision.alternatives],
        "policy": {
            "engine": decision.policy.engine,
            "revision": decision.policy.revision,
            "bundle_digest": decision.policy.bundle_digest,
        },
        "approval": None
        if decision.approval is None
        else {
            "count": decision.approval.count,
            "roles": list(decision.approval.roles),
            "expires": policy_time(decision.approval.expires_ns),
        },
        "seq": decision.seq,
        "agent_proof": decision.agent_proof,
        "receipt": decision.receipt.decode(),
    }


def summary(kind: str, payload: Mapping[str, Any]) -> str:
    """What an entry says, in one line."""
    said = _SUMMARIES.get(kind)
    return plain(said(payload)) if said else ""


def _decision(p: Mapping[str, Any]) -> str:
    request = p["request"]
    because = "; ".join(r["message"] for r in p["reasons"]) or "no reason given"
    target = f"{request['resource']['type']}:{request['resource']['id']}"
    shadow = "" if p["enforced"] else " (not enforced: shadow)"
    agent = _proved(p["agent"])
    approved = ", ".join(each["by"]["id"] for each in p["approval"]["approvals"]) if p["approval"] else ""
    under = f", approved by {approved} (decision at seq {p['approval']['decision_seq']})" if approved else ""
    behalf = "".join(f" for {giver['id']}" for giver in reversed(p["delegators"]))
    by = f" through {p['executor']['id']}" if p["executor"] else ""
    named = door.recorded(request["context"])
    via = f" via {named['kind']}" if named else ""
    impure = p.get("impure_builtins")
    exact = f" (not exactly re-runnable: uses {', '.join(impure)})" if impure else ""
    return (
        f"{_MARKS[p['effect']]}{shadow} {agent}{behalf} {request['action']} {target}{by}{via}: {because}{under}{exact}"
    )


def _proved(who: Mapping[str, Any]) -> str:
    """Who, and by what: `billing-agent (signature, key 1f3c…)`."""
    key = base64.b64decode(who["key"]) if "key" in who else b""
    named = f", key {key_id(key)[:16]}…" if key else ""
    spiffe = f", {who['spiffe_id']}" if who.get("spiffe_id") else ""
    named += f" {who['gateway']}" if who["proof"] == "gateway" else ""
    return f"{who['id']} ({who['proof']}{named}{spiffe})"


def _outcome(p: Mapping[str, Any]) -> str:
    downstream = f", the downstream said {p['downstream_status']}" if p["downstream_status"] else ""
    return f"{p['status']}{downstream} (decision at seq {p['decision_seq']}, reported by {_proved(p['by'])})"


def _registry(p: Mapping[str, Any]) -> str:
    return f"{p['event']}: {p['source']['place']}" + (
        f": {p['cause']}" if p["cause"] else f", digest {p['digest'][:16]}…"
    )


def _rejected(p: Mapping[str, Any]) -> str:
    """`Decide UNAUTHENTICATED: signature: is missing … (nobody proved, unix:, ×3)`."""
    field = f"{p['field']}: " if p["field"] else ""
    about = f", decision {p['decision_id']}" if p["decision_id"] else ""
    times = f", ×{p['count']}" if p["count"] > 1 else ""
    who = p["principal"] or "nobody proved"
    return f"{p['call']} {p['code']}: {field}{p['cause']} ({who}, {p['peer']}{about}{times})"


def _genesis(p: Mapping[str, Any]) -> str:
    count = len(p["custodians"])
    mode = f" ({p['mode']})" if count > 1 else ""
    return f"identity {p['identity'][:16]}…, {number_of(count, 'custodian')}{mode}"


def _policy(p: Mapping[str, Any]) -> str:
    failed = [step["step"] for step in p["gate"] if step["outcome"] == "failed"]
    why = f", failed at: {', '.join(failed)}" if failed else ""
    signer = f", signed by {p['signer']['principal']}" if p["signer"] else ""
    revision = p["revision"] or "unknown"
    return f"{p['event']}: {p['engine']} {p['entrypoint']} revision {revision}{signer}{why}"


_SUMMARIES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "GENESIS": _genesis,
    "OPEN": lambda p: f"{p['software']}" + (", development: agent names are asserted" if p["development"] else ""),
    "DECISION": _decision,
    "OUTCOME": _outcome,
    "APPROVAL": lambda p: f"{p['verdict']} by {_proved(p['by'])} (decision at seq {p['decision_seq']})",
    "REGISTRY": _registry,
    "REJECTED": _rejected,
    "POLICY": _policy,
    "TOMBSTONE": lambda p: f"data subject {p['subject']} was erased",
    "CLOCK": lambda p: f"the wall clock moved by {int(p['step_ns']) / 1e9:+.3f} s",
    "CLOSE": lambda p: p["reason"],
}
