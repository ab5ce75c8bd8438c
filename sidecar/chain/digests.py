"""Digests over a message's own fields, without any serialiser (proto/SIGNING.md, "Digests")."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def framed(label: bytes, fields: Iterable[bytes]) -> bytes:
    """``H(label ‖ field ‖ …)`` with ``field = u32 length ‖ bytes``; the label ends in a zero byte."""
    parts = [label]
    for field in fields:
        parts += (len(field).to_bytes(4, "big"), field)
    return hashlib.sha256(b"".join(parts)).digest()


def arguments_digest(arguments: bytes) -> bytes:
    """Of a JSON text as it was sent; empty stands for ``{}``."""
    return hashlib.sha256(b"sidecar/v1/arguments\0" + (arguments or b"{}")).digest()


def target_digest(action: str, resource_type: str, resource_id: str) -> bytes:
    """Of what is done to what."""
    return framed(b"sidecar/v1/target\0", (action.encode(), resource_type.encode(), resource_id.encode()))


def read_digest(by: str, what: str, parameter: str) -> bytes:
    """Of a question about the ledger: ``what`` is entry, approvals or watch; ``parameter`` a seq, an id, or ""."""
    return framed(b"sidecar/v1/read\0", (by.encode(), what.encode(), parameter.encode()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision, as ``by`` reports it. ``status``: executed, blocked or failed.

    ``response``: a JSON text; ``permit``: the signed note; times in ns, 0 where they are not given.
    """

    by: str
    decision_id: str
    status: str
    response: bytes = b""
    response_digest: bytes = b""
    permit: bytes = b""
    arguments_digest: bytes = b""
    downstream_status: str = ""
    started_ns: int = 0
    duration_ns: int = 0

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Outcome:
        """The outcome that a checked OUTCOME payload keeps."""
        given = (payload["response_digest"], payload["arguments_digest"])
        response_digest, arguments = (bytes.fromhex(each or "") for each in given)
        return cls(
            payload["by"]["id"], payload["decision_id"], payload["status"], (payload["response"] or "").encode(),
            response_digest, payload["permit"].encode(), arguments, payload["downstream_status"],
            int(payload["started_ns"] or 0), int(payload["duration_ns"] or 0),
        )  # fmt: skip

    def digest(self) -> bytes:
        """The 32-byte digest that a statement of kind ``outcome`` names."""
        texts = (self.by.encode(), self.decision_id.encode(), self.status.encode())
        given = (self.response, self.response_digest, self.permit, self.arguments_digest)
        more = (self.downstream_status.encode(), _decimal(self.started_ns), _decimal(self.duration_ns))
        return framed(b"sidecar/v1/outcome\0", (*texts, *given, *more))


@dataclass(frozen=True, slots=True)
class Approval:
    """An approver's word on what a decision requires an approval for. ``verdict``: approve or reject."""

    by: str
    decision_id: str
    verdict: str
    action_digest: bytes
    arguments_digest: bytes
    bundle_digest: str
    policy_revision: str
    comment: str = ""

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Approval:
        """The words in a checked APPROVAL payload."""
        policy = payload["policy"]
        action, arguments = bytes.fromhex(payload["action_digest"]), bytes.fromhex(payload["arguments_digest"])
        return cls(
            payload["by"]["id"], payload["decision_id"], payload["verdict"], action, arguments,
            policy["bundle_digest"], policy["revision"], payload["comment"],
        )  # fmt: skip

    def digest(self) -> bytes:
        """The 32-byte digest that a statement of kind ``approval`` names."""
        texts = (self.by.encode(), self.decision_id.encode(), self.verdict.encode())
        policy = (self.bundle_digest.encode(), self.policy_revision.encode(), self.comment.encode())
        return framed(b"sidecar/v1/approval\0", (*texts, self.action_digest, self.arguments_digest, *policy))


def _decimal(number: int) -> bytes:
    return str(number).encode() if number else b""
