"""Entries as events of the Open Cybersecurity Schema Framework 1.9 (proto/CERTIFICATE.md, "Events").

Every event carries the profile `record_integrity`: an attestation whose fingerprint is the SHA-256 of the event's own
canonical form (RFC 8785) and that names the event before it, so that the file is a hash chain by OCSF's own rules.
Beside it stands the leaf of the ledger's entry, by which the event is found again in the stream.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from sidecar.chain.entry import EntryType, Header
from sidecar.chain.limits import NO_SEQ

from . import rows
from .external import VALUES
from .recorded import Recorded

VERSION: Final = "1.9.0"
_NAME: Final = "Decision Sidecar"
_MOST: Final = 2**53 - 1
_API: Final = (6, "Application Activity", 6003, "API Activity")
_LIFE: Final = (6, "Application Activity", 6002, "Application Lifecycle")
_ENTITY: Final = (3, "Identity & Access Management", 3004, "Entity Management")
_BASE: Final = (0, "Uncategorized", 0, "Base Event")
_EFFECTS: Final = {
    "ALLOW": (1, "Allowed", 1, "Allowed"),
    "DENY": (2, "Denied", 2, "Blocked"),
    "REQUIRE_APPROVAL": (99, "Require approval", 14, "Delayed"),
}  # action_id, action, disposition_id, disposition
_STATUSES: Final = {"executed": (1, "Success"), "failed": (2, "Failure"), "blocked": (99, "Blocked")}
_EVENTS: Final = {"activated": (10, "Activate"), "resumed": (13, "Resume")}

_ATTESTED: Final = "attestation_list"
_PLACE: Final = b'"attestation_list":0'  # in no text, where a quote is escaped, and no other member's name
_NAMED: Final = b'"attestation_list":['

_NAMES: Final = {kind: kind.name for kind in EntryType}  # Python 3.11 takes long to look them up
_INTEGRITY: Final = ("record_integrity",)
_CONTROL: Final = ("record_integrity", "security_control")
_OF_AGENT: Final = ("ai_operation", "record_integrity", "security_control")
_NOTHING: Final[Mapping[str, Any]] = {}

Event = dict[str, Any]
Payload = Mapping[str, Any]


class Events:
    """Makes events of one file, in order. ``product``: name and version of the exporter; ``authority``: the id of the
    key that signs the certificate over the file, or ""; ``external``: values are left out."""

    def __init__(self, product: str, authority: str, *, external: bool) -> None:
        self._authority, self._external = authority, external
        tool = {"name": _NAME, "vendor_name": _NAME, "version": product}
        self._metadata = {"version": VERSION, "product": tool, "log_name": "ledger"}
        self._before: dict[str, dict[str, Any]] = {}  # by chain

    def line(self, entry: Recorded) -> bytes:
        """The event of an entry in its canonical form, as a line: attested, after the one made before of its chain."""
        made = self._about(entry)
        chain, uid = made["metadata"]["log_provider"], made["metadata"]["uid"]
        attestation: dict[str, Any] = {"uid": uid, "chain_uid": chain}
        if self._authority:
            attestation["authority_uid"] = self._authority
        if chain in self._before:
            attestation["prev_event"] = self._before[chain]
        # Written once: what stands around the attestation is the same with its fingerprint and without.
        made[_ATTESTED] = 0
        head, _, tail = _canonical(made).partition(_PLACE)
        print_ = _fingerprint(b"".join((head, _NAMED, _canonical(attestation), b"]", tail)))
        attestation["fingerprint"] = print_
        self._before[chain] = {"uid": uid, "type_uid": made["type_uid"], "fingerprint": print_}
        return b"".join((head, _NAMED, _canonical(attestation), b"]", tail, b"\n"))

    def _about(self, entry: Recorded) -> Event:
        payload, header = entry.payload, entry.header
        take = None if payload is None else _TAKE.get(header.type)
        if payload is None or take is None:
            made, more = _other(header.type, payload)
        else:
            made, more = take(payload)
        if self._external:
            more = {name: value for name, value in more.items() if name not in VALUES}
        return {
            "time": max(-_MOST, min(_MOST, header.wall_ns // 1_000_000)),
            "severity_id": 1,
            "severity": "Informational",
            **made,
            "metadata": self._metadata_of(header, made),
            "raw_data_hash": _sha256(entry.leaf.hex()),
            "unmapped": {**_place(entry), **more},
        }

    def _metadata_of(self, header: Header, made: Event) -> Event:
        chain = header.chain_id.hex()
        metadata = {
            **self._metadata,
            "profiles": _INTEGRITY,
            "uid": f"{chain}/{header.seq}",
            "log_provider": chain,
            "event_code": _NAMES[header.type],
            "original_time": rows.at(header.wall_ns),
            **made.get("metadata", _NOTHING),
        }
        if header.seq <= _MOST:
            metadata["sequence"] = header.seq
        return metadata


def _place(entry: Recorded) -> dict[str, Any]:
    """What of every entry OCSF has no place for: where it stands, and why its values are not here."""
    header = entry.header
    told: dict[str, Any] = {
        "seq": str(header.seq),
        "segment": str(header.segment),
        "epoch": header.epoch,
        "type": _NAMES[header.type],
    }
    if header.ref_seq != NO_SEQ:
        told["about_seq"] = str(header.ref_seq)
    if entry.why:
        told["payload"] = entry.why
    if entry.payload is not None and (hidden := rows.sealed(entry.payload)):
        told["sealed"] = hidden
    return told


def _canonical(value: Event) -> bytes:
    """RFC 8785: every number here is an integer below 2^53 and every name ASCII, so sorting the members is all."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _fingerprint(event: bytes) -> dict[str, Any]:
    """Of a canonical event without fingerprint and signatures in its attestation (OCSF, object `attestation`)."""
    return {**_sha256(hashlib.sha256(event).hexdigest()), "serialization_id": 2, "serialization": "JCS"}


def _sha256(value: str) -> dict[str, Any]:
    return {"algorithm_id": 3, "algorithm": "SHA-256", "encoding_id": 1, "encoding": "Hex", "value": value}


@functools.lru_cache(maxsize=64)
def _class(which: tuple[int, str, int, str], activity: int, name: str) -> Mapping[str, Any]:
    category, category_name, uid, class_name = which
    return {
        "category_uid": category,
        "category_name": category_name,
        "class_uid": uid,
        "class_name": class_name,
        "activity_id": activity,
        "activity_name": name,
        "type_uid": uid * 100 + activity,
        "type_name": f"{class_name}: {name if activity != 99 else 'Other'}",
    }


def _decision(payload: Payload) -> tuple[Event, Payload]:
    asked, said = payload["request"], payload["policy"]
    action_id, action, disposition_id, disposition = _EFFECTS[payload["effect"]]
    decided = payload["cause"] == "policy"
    because = "; ".join(reason["message"] for reason in payload["reasons"]) or "no reason given"
    policy = {"uid": said["bundle_digest"], "name": said["entrypoint"], "version": said["revision"], "is_applied": True}
    made = {
        **_class(_API, 99, asked["action"]),
        **_call(payload["agent"]["id"], asked["action"], payload["decision_id"], payload["peer"]),
        "ai_agent": {"uid": payload["agent"]["id"], "name": payload["agent"]["id"], "type_id": 0, "type": "Unknown"},
        "resources": [{"uid": asked["resource"]["id"], "type": asked["resource"]["type"]}],
        "policy": {name: value for name, value in policy.items() if value != ""},
        "action_id": action_id,
        "action": action,
        "disposition_id": disposition_id,
        "disposition": disposition,
        "message": f"{payload['effect']} {asked['action']} {asked['resource']['type']}:{asked['resource']['id']}",
        "status_id": 1 if decided else 2,
        "status": "Success" if decided else "Failure",
        "status_code": payload["cause"],
        "status_detail": because,
        "metadata": {"correlation_uid": payload["decision_id"], "profiles": _OF_AGENT},
    }
    more = {
        "enforced": payload["enforced"],
        "proof": payload["agent"]["proof"],
        "reasons": [{"code": each["code"], "message": each["message"]} for each in payload["reasons"]],
        "obligations": [_json(each) for each in payload["obligations"]],
        "alternatives": [_json(each) for each in payload["alternatives"]],
        "on_behalf_of": [giver["id"] for giver in payload["delegators"]],
        "approved_by": [each["by"]["id"] for each in (payload["approval"] or {"approvals": ()})["approvals"]],
        "executor": asked["executor"],
        "registry": payload["registry"]["digest"] if payload["registry"] else "",
        "request_digest": payload["request_digest"],
        **{name: asked[name] for name in ("arguments", "context", "purpose")},
    }
    return made, more


def _outcome(payload: Payload) -> tuple[Event, Payload]:
    status_id, status = _STATUSES[payload["status"]]
    made = {
        **_class(_API, 99, "report outcome"),
        **_call(payload["by"]["id"], "ReportOutcome", payload["decision_id"], ""),
        "message": f"{payload['status']}, of decision {payload['decision_id']}",
        "status_id": status_id,
        "status": status,
        "metadata": {"correlation_uid": payload["decision_id"]},
    }
    if payload["downstream_status"]:
        made["status_code"] = payload["downstream_status"]
    more = {
        "agent": payload["agent"]["id"],
        "proof": payload["by"]["proof"],
        "response": payload["response"] or "",
        "response_digest": payload["response_digest"] or "",
        "arguments_digest": payload["arguments_digest"] or "",
        "duration_ns": payload["duration_ns"],
    }
    return made, more


def _approval(payload: Payload) -> tuple[Event, Payload]:
    given = payload["verdict"] == "approve"
    made = {
        **_class(_API, 99, payload["verdict"]),
        **_call(payload["by"]["id"], "Approve", payload["decision_id"], ""),
        "message": f"{payload['verdict']}, of decision {payload['decision_id']}",
        "status_id": 1,
        "status": "Success",
        "disposition_id": 8 if given else 25,
        "disposition": "Approved" if given else "Rejected",
        "metadata": {"correlation_uid": payload["decision_id"], "profiles": _CONTROL},
    }
    return made, {"agent": payload["agent"]["id"], "proof": payload["by"]["proof"], "comment": payload["comment"]}


def _rejected(payload: Payload) -> tuple[Event, Payload]:
    made = {
        **_class(_API, 99, "refused"),
        **_call(payload["principal"] or "unproved", payload["call"] or "unknown", "", payload["peer"]),
        "message": f"{payload['call'] or 'call'} refused: {payload['code']}",
        "severity_id": 2,
        "severity": "Low",
        "status_id": 2,
        "status": "Failure",
        "status_code": payload["code"],
        "status_detail": payload["cause"],
    }
    if payload["decision_id"]:
        made["metadata"] = {"correlation_uid": payload["decision_id"]}
    return made, {"field": payload["field"], "times": payload["count"]}


def _policy(payload: Payload) -> tuple[Event, Payload]:
    refused = payload["event"] == "refused"
    named = {"name": payload["entrypoint"], "version": payload["revision"], "uid": payload["bundle_digest"]}
    policy = {name: value for name, value in named.items() if value}
    made = {
        **_class(_ENTITY, *_EVENTS.get(payload["event"], (99, payload["event"]))),
        "entity": {"name": payload["entrypoint"], "type_id": 5, "type": "Policy", "policy": policy},
        **_management(payload["event"], f"policy {payload['event']}: revision {payload['revision'] or 'unknown'}"),
    }
    signer = payload["signer"]["principal"] if payload["signer"] else ""
    commit = payload["commit"]["id"] if payload["commit"] else ""
    more = {
        "engine": payload["engine"],
        "engine_version": payload["engine_version"],
        "signer": signer,
        "commit": commit,
    }
    return made, {**more, "source": payload["source"]["place"], "in_force": not refused}


def _registry(payload: Payload) -> tuple[Event, Payload]:
    made = {
        **_class(_ENTITY, *_EVENTS.get(payload["event"], (99, payload["event"]))),
        "entity": {
            "name": "registry of principals",
            "uid": payload["digest"] or "refused",
            "type_id": 99,
            "type": "Registry",
        },
        **_management(payload["event"], f"registry {payload['event']}"),
    }
    return made, {"source": payload["source"]["place"], "cause": payload["cause"], "revision": payload["revision"]}


def _management(event: str, message: str) -> Event:
    refused = event == "refused"
    status = (2, "Failure") if refused else (1, "Success")
    return {"status_id": status[0], "status": status[1], "message": message}


def _open(payload: Payload) -> tuple[Event, Payload]:
    name, _, version = payload["software"].partition(" ")
    app = {"name": name or "unknown", "vendor_name": _NAME, **({"version": version} if version else {})}
    made = {**_class(_LIFE, 3, "Start"), "app": app, "message": "the sidecar started"}
    return made, {"development": payload["development"], "unconfirmed": bool(payload.get("unconfirmed"))}


def _close(payload: Payload) -> tuple[Event, Payload]:
    made = {**_class(_LIFE, 4, "Stop"), "app": {"name": _NAME}, "message": "the sidecar stopped in order"}
    return made, {"reason": payload["reason"]}


def _other(kind: EntryType, payload: Payload | None) -> tuple[Event, Payload]:
    more = {"step_ns": payload["step_ns"]} if kind is EntryType.CLOCK and payload is not None else {}
    return {**_class(_BASE, 99, kind.name.lower()), "message": kind.name}, more


_TAKE: Final = {
    EntryType.DECISION: _decision,
    EntryType.OUTCOME: _outcome,
    EntryType.APPROVAL: _approval,
    EntryType.REJECTED: _rejected,
    EntryType.POLICY: _policy,
    EntryType.REGISTRY: _registry,
    EntryType.OPEN: _open,
    EntryType.CLOSE: _close,
}


def _call(who: str, operation: str, uid: str, peer: str) -> Event:
    api: Event = {"operation": operation, "service": {"name": _NAME}}
    if uid:
        api["request"] = {"uid": uid}
    return {
        "actor": {"user": {"uid": who, "name": who, "type_id": 4, "type": "Service"}},
        "api": api,
        "src_endpoint": {"name": peer or "unknown"},
    }


def _json(value: object) -> str:
    """Any JSON as a text, so that every number of an event is one that we wrote."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
