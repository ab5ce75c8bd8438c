"""What a principal signed, held against the entry that keeps it (proto/LEDGER.md rule 10). It needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from sidecar.chain.digests import Approval, Outcome
from sidecar.chain.entry import EntryType
from sidecar.chain.signing import PublicKey
from sidecar.chain.statement import Statement
from sidecar.errors import Malformed, SignatureInvalid
from sidecar.verify.receipts import request_digest

KINDS: Final = {EntryType.DECISION: "request", EntryType.OUTCOME: "outcome", EntryType.APPROVAL: "approval"}


def speaker(kind: EntryType, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The principal whose proof the entry keeps."""
    said: Mapping[str, Any] = value["agent"] if kind is EntryType.DECISION else value["by"]
    return said


def fault(kind: EntryType, value: Mapping[str, Any], chain_id: bytes, epoch: int) -> str | None:
    """Why the statement in a checked payload does not prove who it says, or None: it does, or there is none.

    ``chain_id`` and ``epoch`` are the header's.
    """
    by = speaker(kind, value)
    if not by["proof"].startswith("signature"):
        return f"{by['id']} approved, and nothing was signed" if kind is EntryType.APPROVAL else None
    if is_sealed(value, "/by/statement"):
        return None
    try:
        text, key = by["statement"].encode(), PublicKey(base64.b64decode(by["key"]))
        statement = Statement.parse(text)
        key.verify(base64.b64decode(by["signature"]), text)
    except (Malformed, SignatureInvalid) as error:
        return f"what {by['id']} signed: {error}"
    due = {
        "kind": (statement.kind, KINDS[kind]),
        "audience": (statement.audience, chain_id),
        "epoch": (statement.epoch, epoch),
        "by": (statement.by, by["id"]),
        "key": (statement.key, key.id),
        "digest": (statement.digest, _digest(kind, value)),
    }
    wrong = [name for name, (said, found) in due.items() if said != found]
    return f"what {by['id']} signed is not what is recorded: {', '.join(wrong)}" if wrong else None


def is_sealed(value: Mapping[str, Any], place: str) -> bool:
    """Whether a member of an OUTCOME or APPROVAL is sealed and was not put back (`contents.read`)."""
    return value["sealed"] is not None and place in value["sealed"]["places"]


def _digest(kind: EntryType, value: Mapping[str, Any]) -> bytes:
    if kind is EntryType.DECISION:
        return bytes.fromhex(value["request_digest"]) if value["sealed"] else request_digest(value)
    if kind is EntryType.APPROVAL:
        return Approval.of(value).digest()
    return Outcome.of(value).digest()
