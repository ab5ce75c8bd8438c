"""`entries.csv`: every entry of a bundle in one record (proto/CERTIFICATE.md, "Entries")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sidecar.chain import door
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import NO_SEQ

from . import rows
from .recorded import Recorded
from .sheet import line

COLUMNS: Final = (
    "chain", "seq", "segment", "epoch", "time", "type", "about_seq", "leaf", "payload", "decision_id", "agent", "proof",
    "door", "action", "resource_type", "resource_id", "effect", "cause", "status", "by", "detail",
)  # fmt: skip

_BLANK: Final = dict.fromkeys(COLUMNS, "")

Payload = Mapping[str, Any]


def header() -> str:
    """The first record."""
    return line(COLUMNS)


def record(entry: Recorded) -> str:
    """An entry's."""
    head, payload = entry.header, entry.payload
    cells: dict[str, object] = {
        **_BLANK,
        "chain": head.chain_id.hex(),
        "seq": head.seq,
        "segment": head.segment,
        "epoch": head.epoch,
        "time": rows.at(head.wall_ns),
        "type": head.type.name,
        "about_seq": "" if head.ref_seq == NO_SEQ else head.ref_seq,
        "leaf": entry.leaf.hex(),
        "payload": entry.why,
    }
    take = _TAKE.get(head.type)
    if payload is not None and take is not None:
        cells |= take(payload)
    return line(cells.values())


def _decision(payload: Payload) -> dict[str, object]:
    asked = payload["request"]
    return {
        "decision_id": payload["decision_id"],
        "agent": payload["agent"]["id"],
        "proof": payload["agent"]["proof"],
        "door": _door(asked["context"]),
        "action": asked["action"],
        "resource_type": asked["resource"]["type"],
        "resource_id": asked["resource"]["id"],
        "effect": payload["effect"],
        "cause": payload["cause"],
        "by": payload["policy"]["revision"],
        "detail": "; ".join(f"{reason['message']} ({reason['code']})" for reason in payload["reasons"]),
    }


def _door(context: str) -> str:
    if "door" not in context and "\\" not in context:
        return ""  # most name none, and need not be read for that
    kind: str = (door.recorded(context) or {"kind": ""})["kind"]
    return kind


def _outcome(payload: Payload) -> dict[str, object]:
    told = {"status": payload["status"], "detail": payload["downstream_status"]}
    return {**_about(payload), **told}


def _approval(payload: Payload) -> dict[str, object]:
    return {**_about(payload), "status": payload["verdict"]}


def _about(payload: Payload) -> dict[str, object]:
    told = {"decision_id": payload["decision_id"], "agent": payload["agent"]["id"]}
    return {**told, "proof": payload["by"]["proof"], "by": payload["by"]["id"]}


def _rejected(payload: Payload) -> dict[str, object]:
    told = {"decision_id": payload["decision_id"], "by": payload["principal"], "action": payload["call"]}
    return {**told, "status": payload["code"], "cause": payload["field"], "detail": payload["cause"]}


def _policy(payload: Payload) -> dict[str, object]:
    signer = payload["signer"]["principal"] if payload["signer"] else ""
    return {"status": payload["event"], "by": signer, "detail": payload["revision"]}


def _registry(payload: Payload) -> dict[str, object]:
    return {"status": payload["event"], "cause": payload["cause"], "detail": payload["digest"]}


_TAKE: Final[Mapping[EntryType, Callable[[Payload], dict[str, object]]]] = {
    EntryType.DECISION: _decision,
    EntryType.OUTCOME: _outcome,
    EntryType.APPROVAL: _approval,
    EntryType.REJECTED: _rejected,
    EntryType.POLICY: _policy,
    EntryType.REGISTRY: _registry,
    EntryType.OPEN: lambda payload: {"detail": payload["software"]},
    EntryType.CLOSE: lambda payload: {"detail": payload["reason"]},
    EntryType.CLOCK: lambda payload: {"detail": payload["step_ns"]},
}
