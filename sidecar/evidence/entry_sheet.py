"""`entries.csv`: every entry of a bundle in one record (proto/CERTIFICATE.md, "Entries")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from sidecar.chain import door
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import NO_SEQ

from . import rows, sheet
from .recorded import Recorded

_TYPES: Final = {kind: kind.name for kind in EntryType}  # Python 3.11 takes long to look them up

Payload = Mapping[str, Any]


class _Told(NamedTuple):
    """What a payload says, by column."""

    decision_id: str = ""
    agent: str = ""
    proof: str = ""
    door: str = ""
    action: str = ""
    resource_type: str = ""
    resource_id: str = ""
    effect: str = ""
    cause: str = ""
    status: str = ""
    by: str = ""
    detail: str = ""


_NOTHING: Final = _Told()
COLUMNS: Final = (
    "chain", "seq", "segment", "epoch", "time", "type", "about_seq", "leaf", "payload", *_Told._fields,
)  # fmt: skip


def header() -> str:
    """The first record."""
    return sheet.record(COLUMNS)


def record(entry: Recorded) -> str:
    """An entry's."""
    head, payload = entry.header, entry.payload
    take = None if payload is None else _TAKE.get(head.type)
    told = _NOTHING if payload is None or take is None else take(payload)
    return sheet.record(
        (
            head.chain_id.hex(),
            str(head.seq),
            str(head.segment),
            str(head.epoch),
            rows.at(head.wall_ns),
            _TYPES[head.type],
            "" if head.ref_seq == NO_SEQ else str(head.ref_seq),
            entry.leaf.hex(),
            entry.why,
            *told,
        )
    )


def _decision(payload: Payload) -> _Told:
    asked, agent = payload["request"], payload["agent"]
    return _Told(
        decision_id=payload["decision_id"],
        agent=agent["id"],
        proof=agent["proof"],
        door=_door(asked["context"]),
        action=asked["action"],
        resource_type=asked["resource"]["type"],
        resource_id=asked["resource"]["id"],
        effect=payload["effect"],
        cause=payload["cause"],
        by=payload["policy"]["revision"],
        detail="; ".join([f"{reason['message']} ({reason['code']})" for reason in payload["reasons"]]),
    )


def _door(context: str) -> str:
    if "door" not in context and "\\" not in context:
        return ""  # most name none, and need not be read for that
    kind: str = (door.recorded(context) or {"kind": ""})["kind"]
    return kind


def _outcome(payload: Payload) -> _Told:
    return _about(payload, payload["status"], payload["downstream_status"])


def _approval(payload: Payload) -> _Told:
    return _about(payload, payload["verdict"], "")


def _about(payload: Payload, status: str, detail: str) -> _Told:
    by = payload["by"]
    return _Told(
        decision_id=payload["decision_id"],
        agent=payload["agent"]["id"],
        proof=by["proof"],
        status=status,
        by=by["id"],
        detail=detail,
    )


def _rejected(payload: Payload) -> _Told:
    return _Told(
        decision_id=payload["decision_id"],
        action=payload["call"],
        cause=payload["field"],
        status=payload["code"],
        by=payload["principal"],
        detail=payload["cause"],
    )


def _policy(payload: Payload) -> _Told:
    signer = payload["signer"]["principal"] if payload["signer"] else ""
    return _Told(status=payload["event"], by=signer, detail=payload["revision"])


def _registry(payload: Payload) -> _Told:
    return _Told(status=payload["event"], cause=payload["cause"], detail=payload["digest"])


_TAKE: Final[Mapping[EntryType, Callable[[Payload], _Told]]] = {
    EntryType.DECISION: _decision,
    EntryType.OUTCOME: _outcome,
    EntryType.APPROVAL: _approval,
    EntryType.REJECTED: _rejected,
    EntryType.POLICY: _policy,
    EntryType.REGISTRY: _registry,
    EntryType.OPEN: lambda payload: _Told(detail=payload["software"]),
    EntryType.CLOSE: lambda payload: _Told(detail=payload["reason"]),
    EntryType.CLOCK: lambda payload: _Told(detail=payload["step_ns"]),
}
