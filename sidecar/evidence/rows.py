"""What a timeline says of single entries: JSON-shaped, from checked payloads, for every form that shows it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from sidecar.chain import authority_note, delegation, door
from sidecar.chain.digests import arguments_digest
from sidecar.chain.entry import Header
from sidecar.chain.payload import policy_time
from sidecar.chain.statement import Statement, key_id
from sidecar.chain.strictjson import MAX_INTEGER
from sidecar.errors import Malformed

Payload = Mapping[str, Any]

ALLOWED: Final = "ALLOW"


def decision(payload: Payload, policies: Mapping[tuple[str, str], Payload]) -> dict[str, Any]:
    """What was attempted, how it was judged and why, and for whom. ``policies``: by revision and bundle's digest."""
    asked = payload["request"]
    leaves = zip(asked["delegations"], payload["delegators"], strict=False)
    said = payload["policy"]
    return {
        "decision_id": payload["decision_id"],
        "agent": who(payload["agent"]),
        "door": door.recorded(asked["context"]),
        **option(asked),
        "context": asked["context"],
        "purpose": asked["purpose"],
        "effect": payload["effect"],
        "enforced": payload["enforced"],
        "cause": payload["cause"],
        "reasons": payload["reasons"],
        "obligations": payload["obligations"],
        "considered": [
            {**option(wanted), "effect": judged["effect"], "reasons": judged["reasons"]}
            for wanted, judged in zip(asked["alternatives"], payload["alternatives"], strict=False)
        ],
        "policy": {**said, **policies.get((said["revision"], said["bundle_digest"]), _UNKNOWN)},
        "registry": payload["registry"],
        "on_behalf_of": [_leave(given["text"], giver) for given, giver in leaves],
        "executor": payload["executor"] and payload["executor"]["id"],
        "permit_until": payload["permit"] and at(int(payload["permit"]["not_after"])),
        "waits_for": payload["terms"],
        "asked_under": payload["approval"],
        "impure_builtins": payload.get("impure_builtins", []),
        "sealed": sealed(payload),
        "approvals": [],
        "asked_again": [],
        "outcomes": [],
        "refused": [],
        "gaps": [],
    }  # fmt: skip


_UNKNOWN: Final[Payload] = {"entry": None, "source": None, "commit": None, "signer": None, "gate": []}


def policy(header: Header, payload: Payload) -> dict[str, Any]:
    """Where a policy came from, who signed it, what it had passed: added to what a decision says of its policy."""
    gate = [{"step": step["step"], "outcome": step["outcome"], "note": step["note"]} for step in payload["gate"]]
    told = {name: payload[name] for name in ("source", "commit", "signer")}
    return {"entry": number(header.seq), **told, "gate": gate}


def outcome(header: Header, payload: Payload, decided: str | None) -> dict[str, Any]:
    """What became of it. ``decided``: the arguments decided on, where they are known."""
    acted_on = payload["arguments_digest"]  # None: not said; "": sealed
    changed = bool(acted_on) and decided is not None and acted_on != arguments_digest(decided.encode()).hex()
    return {
        **_place(header),
        "status": payload["status"],
        "by": who(payload["by"]),
        "downstream_status": payload["downstream_status"],
        "response": payload["response"],
        "response_digest": payload["response_digest"],
        "began": at(int(payload["started_ns"])) if payload["started_ns"] else None,
        "duration_ns": payload["duration_ns"] or None,
        "under_permit": bool(payload["permit"]),
        "changed_arguments": changed,
        "sealed": sealed(payload),
    }


def approval(header: Header, payload: Payload) -> dict[str, Any]:
    """Who approved or rejected."""
    told = {"verdict": payload["verdict"], "by": who(payload["by"]), "comment": payload["comment"]}
    return {**_place(header), **told, "sealed": sealed(payload)}


def rejected(header: Header, payload: Payload) -> dict[str, Any]:
    """A request, report or approval that was refused before it counted."""
    names = ("call", "code", "field", "cause", "peer", "principal", "decision_id", "count")
    return {**_place(header), **{name: payload[name] for name in names}}


def sealed(payload: Payload) -> list[str]:
    """Where personal values were taken out, as pointers into the payload and into the text there (LEDGER.md, "Personal
    fields"); what they were is in no document."""
    if "personal" not in payload:
        return []
    personal = payload["personal"]
    fields = personal.get("fields") if isinstance(personal, dict) else None
    known = [each for each in fields if isinstance(each, dict)] if isinstance(fields, list) else []
    return [f"{each.get('in', '')}{each.get('pointer', '')}" for each in known]


def who(principal: Payload) -> dict[str, Any]:
    """A principal, how it was proved, with which key and when it signed."""
    named = {"id": principal["id"], "proof": principal["proof"], "roles": principal["roles"]}
    shown = "mtls" in principal["proof"] or principal["proof"] == "gateway"  # what its proof does not have says nothing
    told: dict[str, Any] = {**named, "key": None, "signed_at": None}
    told["spiffe_id"] = principal["spiffe_id"] if shown else ""
    told["gateway"] = principal["gateway"] if principal["proof"] == "gateway" else None
    if principal["proof"].startswith("signature"):
        told["key"] = key_id(base64.b64decode(principal["key"]))
        try:
            told["signed_at"] = at(Statement.parse(principal["statement"].encode()).time)
        except Malformed:
            told["signed_at"] = None
    return told


def option(asked: Payload) -> dict[str, Any]:
    """An action, on what, with which arguments."""
    return {"action": asked["action"], "resource": dict(asked["resource"]), "arguments": asked["arguments"]}


def _leave(text: str, giver: Payload) -> dict[str, Any]:
    told = {"id": giver["id"], "kind": giver["kind"], "roles": giver["roles"]}
    try:
        given = delegation.parse(text.encode())
    except Malformed:
        return {**told, "to": None, "actions": [], "resources": [], "not_before": None, "not_after": None, "key": None}
    return {
        **told,
        "to": given.to,
        "actions": list(given.actions),
        "resources": list(given.resources),
        "not_before": given.not_before,
        "not_after": given.not_after,
        "key": given.key,
    }


def authority(record: bytes) -> dict[str, Any] | None:
    """What an authority note allows, when and why, unverified; None where it cannot be read."""
    try:
        grant = authority_note.read(record)
    except Malformed:
        return None
    reason = getattr(grant.act, "reason", "")
    return {"act": grant.note.act, "time": at(grant.note.time), "reason": reason}


def _place(header: Header) -> dict[str, Any]:
    return {"seq": number(header.seq), "time": at(header.wall_ns)}


def number(seq: int) -> int | str:
    """A number as strict JSON takes it: as text beyond 2^53 - 1, where only damage puts it."""
    return seq if seq <= MAX_INTEGER else str(seq)


def at(wall_ns: int) -> str:
    """A wall clock's time, whatever it says."""
    try:
        return policy_time(wall_ns)
    except (ValueError, OverflowError):
        return f"{wall_ns} ns"
