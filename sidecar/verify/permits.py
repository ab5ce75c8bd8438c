"""Permits in entries: who was given one, and whether an outcome's is for what the outcome says (LEDGER.md rule 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.chain import lines
from sidecar.chain.entry import EntryType
from sidecar.chain.permit import Permit
from sidecar.errors import Malformed
from sidecar.verify.signed import is_signed, signer
from sidecar.verify.statements import is_sealed


def fault(kind: EntryType, value: Mapping[str, Any], chain_id: bytes, seq: int) -> str | None:
    """Why a checked payload contradicts itself on permits, or None. ``seq``: the entry it refers to."""
    if kind is EntryType.DECISION:
        return _granted(value)
    return _used(value, chain_id, seq) if kind is EntryType.OUTCOME else None


def forged(permit: str, chain_id: bytes, identity: bytes | None) -> bool | None:
    """Whether a permit that is otherwise right is not signed by the identity key; None: that key is not known."""
    try:
        signed = is_signed(permit.encode(), lines.identity_name(chain_id), identity)
    except Malformed:  # under the name of the chain that its header says, which is not this one
        return True
    return None if signed is None else not signed


def _granted(value: Mapping[str, Any]) -> str | None:
    executor = value["executor"]
    if (executor["id"] if executor is not None else "") != value["request"]["executor"]:
        return "its executor is not the one that the request names"
    if (value["permit"] is not None) != (value["effect"] == "ALLOW" and executor is not None):
        return "it has a permit and is no ALLOW that names an executor, or the other way round"
    return None


def _used(value: Mapping[str, Any], chain_id: bytes, seq: int) -> str | None:
    by = value["by"]["id"]
    if is_sealed(value, "/permit"):
        return None
    if not value["permit"]:
        return None if by == value["agent"]["id"] else "it has no permit, and is not by its decision's agent"
    try:
        text, name = signer(value["permit"].encode())
        permit = Permit.read(text, b"")
    except Malformed as error:
        return f"its permit: {error}"
    due = {
        "name": (name, lines.identity_name(chain_id)),
        "chain": (permit.chain_id, chain_id),
        "decision": (permit.decision_id, value["decision_id"]),
        "seq": (permit.seq, seq),
        "agent": (permit.agent, value["agent"]["id"]),
        "executor": (permit.executor, by),
        "arguments": (permit.arguments.hex(), value["arguments_digest"]),
    }
    wrong = [name for name, (said, found) in due.items() if said != found]
    if wrong:
        return f"its permit is not for what it says: {', '.join(wrong)}"
    if value["status"] != "blocked" and not 0 < int(value["started_ns"] or 0) < permit.not_after:
        return "it does not say that it was begun before its permit ended"
    return None
