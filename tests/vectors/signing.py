"""Worked examples of every construction in proto/SIGNING.md; `tests.vectors.make` writes them."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.chain import digests, signing
from sidecar.chain.delegation import LABEL, name_of
from sidecar.chain.digests import Approval, Outcome
from sidecar.chain.permit import Permit
from sidecar.chain.request import Given, Option, Request
from sidecar.chain.statement import Statement

DECISION = "0190a5b2-5c3d-7a10-8000-0123456789ab"
NOW = 1_764_100_000_000_000_000


def secret(name: str) -> bytes:
    """32 bytes that anybody can make again: SHA-256 of ``signing vector`` and a name."""
    return sha256(f"signing vector {name}".encode()).digest()


CHAIN = secret("chain")
KEYS: dict[str, signing.PrivateKey] = {
    "ed25519": Ed25519PrivateKey.from_private_bytes(secret("ed25519")),
    "p256": ec.derive_private_key(int.from_bytes(secret("p256"), "big") % signing.P256_ORDER, ec.SECP256R1()),
}


def files() -> dict[str, bytes]:
    """Every file, by name."""
    built = {"keys": keys(), "digests": messages(), "statements": statements(), "permit": permit()}
    built["delegations"] = delegations()
    return {f"{name}.json": (json.dumps(v, indent=1, ensure_ascii=False) + "\n").encode() for name, v in built.items()}


def keys() -> list[dict[str, str]]:
    return [
        {"type": name, "pkcs8": _pkcs8(key), "spki": _base64(signing.public_spki(key)), "id": _id(key)}
        for name, key in KEYS.items()
    ]


REQUEST = Request(
    "billing-agent",
    Option("refund", "invoice", "inv-é", b'{"amount": 12}'),
    b'{"ticket":7}',
    "customer asked",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "key-1",
    b"\x00\xff receipt",
    (Option("credit", "invoice", "inv-é", b"{}"), Option("escalate", "", "")),
)


def request() -> Request:
    given = (Given(b'{"format":"first"}', b"\x01\x02", b"\x03"), Given(b"{}", b"", b""))
    return replace(REQUEST, executor="payments-gateway", approval_of=DECISION, delegations=given)


def outcome() -> Outcome:
    arguments = digests.arguments_digest(b'{"amount": 12}')
    return Outcome(
        "payments-gateway", DECISION, "executed", b'{"ok":true}', b"", b"a permit", arguments, "200", NOW, 1_000_000
    )


def approval() -> Approval:
    asked = request()
    arguments = digests.arguments_digest(asked.wanted.arguments)
    return Approval("alice", DECISION, "approve", asked.action_digest(), arguments, "ab" * 32, "c0ffee", "fine by me")


def messages() -> dict[str, Any]:
    asked, plain = request(), Request("a", Option("", "", ""))
    return {
        "request": [_request(plain), _request(asked)],
        "outcome": [_plain(outcome()), _plain(Outcome("billing-agent", DECISION, "blocked"))],
        "approval": [_plain(approval())],
        "read": [
            {"by": by, "what": what, "parameter": parameter, "digest": digests.read_digest(by, what, parameter).hex()}
            for by, what, parameter in (("auditor", "entry", "17"), ("alice", "approvals", ""))
        ],
        "arguments": [
            {"arguments": text, "digest": digests.arguments_digest(text.encode()).hex()}
            for text in ("", "{}", '{"amount": 12}')
        ],
        "target": {
            "action": "refund", "resource_type": "invoice", "resource_id": "inv-é",
            "digest": digests.target_digest("refund", "invoice", "inv-é").hex(),
        },
    }  # fmt: skip


def _request(r: Request) -> dict[str, Any]:
    texts = ("agent", "purpose", "trace_parent", "idempotency_key", "executor", "approval_of")
    return {
        **{name: getattr(r, name) for name in texts},
        "wanted": _option(r.wanted),
        "context": r.context.decode(),
        "last_receipt": r.last_receipt.hex(),
        "alternatives": [_option(o) for o in r.alternatives],
        "delegations": [
            {"text": d.text.decode(), "key": d.key.hex(), "signature": d.signature.hex()} for d in r.delegations
        ],
        "digest": r.digest().hex(),
        "action_digest": r.action_digest().hex(),
    }


def _option(o: Option) -> dict[str, str]:
    return {"action": o.action, "type": o.resource_type, "id": o.resource_id, "arguments": o.arguments.decode()}


def _plain(message: Outcome | Approval) -> dict[str, Any]:
    names = message.__dataclass_fields__
    values = {name: getattr(message, name) for name in names}
    return {n: v.hex() if isinstance(v, bytes) else v for n, v in values.items()} | {"digest": message.digest().hex()}


def statements() -> list[dict[str, str]]:
    made = []
    digest = {"request": request().digest(), "outcome": outcome().digest(), "approval": approval().digest()}
    digest["read"] = digests.read_digest("auditor", "entry", "17")
    for name, key in KEYS.items():
        for kind, value in digest.items():
            statement = Statement(kind, CHAIN, 3, "billing-agent", _id(key), value, NOW, secret(kind)[:16])
            text = statement.encode()
            signature = signing.sign(key, text).hex()
            made.append({"key": name, "kind": kind, "statement": text.decode(), "signature": signature})
    return made


def permit() -> dict[str, str]:
    identity = Ed25519PrivateKey.from_private_bytes(secret("identity"))
    note = Permit(
        CHAIN, DECISION, 17, "billing-agent", "payments-gateway", digests.target_digest("refund", "invoice", "inv-é"),
        digests.arguments_digest(b'{"amount": 12}'), NOW,
    ).sign(identity)  # fmt: skip
    public = identity.public_key().public_bytes_raw().hex()
    return {"identity": public, "chain": CHAIN.hex(), "permit": note.decode()}


def delegation(
    key: signing.PrivateKey, giver: str, to: str, *, parent: str | None = None, further: int = 0, **other: Any
) -> Given:
    """A signed delegation; ``other`` members replace those given here."""
    members = {
        "format": "sidecar/v1/delegation", "from": giver, "to": to, "key": _id(key), "audience": "*",
        "actions": ["payments.*"], "resources": ["account:*"],
        "not_before": "2025-11-25T00:00:00.000000000Z", "not_after": "2025-11-26T00:00:00.000000000Z",
        "further": further, "parent": parent, **other,
    }  # fmt: skip
    text = json.dumps(members).encode()
    return Given(text, signing.public_spki(key), signing.sign(key, LABEL + text))


def delegations() -> list[dict[str, str]]:
    first = delegation(KEYS["p256"], "alice", "planner", further=1)
    narrow = {"actions": ["payments.refund"], "resources": ["account:acme-42"], "audience": CHAIN.hex()}
    second = delegation(KEYS["ed25519"], "planner", "billing-agent", parent=name_of(first.text), **narrow)
    return [
        {"text": g.text.decode(), "key": _base64(g.key), "signature": g.signature.hex(), "name": name_of(g.text)}
        for g in (first, second)
    ]


def _id(key: signing.PrivateKey) -> str:
    return signing.key_id(signing.public_spki(key))


def _pkcs8(key: signing.PrivateKey) -> str:
    return _base64(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
