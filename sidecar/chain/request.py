"""The request digest: what a caller asked, computable from its own fields (proto/LEDGER.md, "Request digest")."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.chain.digests import framed


@dataclass(frozen=True, slots=True)
class Option:
    """One action on one resource; ``arguments`` is the JSON text as it was sent."""

    action: str
    resource_type: str
    resource_id: str
    arguments: bytes = b""


@dataclass(frozen=True, slots=True)
class Given:
    """A delegation (`delegation`) as it was sent: its text, the SPKI it is signed with, the signature."""

    text: bytes
    key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a caller asks, as it was sent. ``wanted`` is what it would do, ``alternatives`` what it could."""

    agent: str
    wanted: Option
    context: bytes = b""
    purpose: str = ""
    trace_parent: str = ""
    idempotency_key: str = ""
    last_receipt: bytes = b""
    alternatives: tuple[Option, ...] = ()
    executor: str = ""
    approval_of: str = ""
    delegations: tuple[Given, ...] = ()

    def digest(self) -> bytes:
        """The 32-byte request digest."""
        return framed(b"sidecar/v1/request\0", self._fields())

    def action_digest(self) -> bytes:
        """What stays the same when the question is asked again after its approval (proto/SIGNING.md, "Digests")."""
        texts = (*_option(self.wanted), self.context, self.purpose.encode(), self.executor.encode())
        given = (_count(self.delegations), *(d.text for d in self.delegations))
        return framed(b"sidecar/v1/action\0", (self.agent.encode(), *texts, *given))

    def _fields(self) -> Iterable[bytes]:
        yield self.agent.encode()
        yield from _option(self.wanted)
        yield self.context
        yield from (self.purpose.encode(), self.trace_parent.encode(), self.idempotency_key.encode())
        yield self.last_receipt
        yield _count(self.alternatives)
        for alternative in self.alternatives:
            yield from _option(alternative)
        yield from (self.executor.encode(), self.approval_of.encode(), _count(self.delegations))
        for given in self.delegations:
            yield from (given.text, given.key, given.signature)


def recorded(payload: Mapping[str, Any]) -> Request:
    """The request in a checked DECISION payload."""
    r = payload["request"]
    others = tuple(_recorded_option(each) for each in r["alternatives"])
    given = tuple(
        Given(d["text"].encode(), base64.b64decode(d["key"]), base64.b64decode(d["signature"]))
        for d in r["delegations"]
    )
    return Request(
        payload["agent"]["id"], _recorded_option(r), r["context"].encode(), r["purpose"], r["trace_parent"],
        r["idempotency_key"], base64.b64decode(r["last_receipt"]), others, r["executor"], r["approval_of"], given,
    )  # fmt: skip


def _recorded_option(value: Mapping[str, Any]) -> Option:
    resource = value["resource"]
    return Option(value["action"], resource["type"], resource["id"], value["arguments"].encode())


def _option(option: Option) -> tuple[bytes, ...]:
    return option.action.encode(), option.resource_type.encode(), option.resource_id.encode(), option.arguments


def _count(items: tuple[object, ...]) -> bytes:
    return len(items).to_bytes(4, "big")
