"""Principals with keys, a registry of them, and delegations between them, for tests."""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import delegation, signing
from sidecar.chain.registry import Registry, parse
from sidecar.chain.request import Given
from sidecar.chain.statement import Statement
from sidecar.v1 import decision_pb2 as pb


def key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name."""
    return Ed25519PrivateKey.from_private_bytes(sha256(f"test key of {name}".encode()).digest())


def person(name: str, kind: str, *roles: str, status: str = "active", **changes: Any) -> dict[str, Any]:
    """One member of a registry's principals, with one key."""
    spki = b64encode(signing.public_spki(key(name))).decode()
    plain = {"id": name, "kind": kind, "owner": "tests", "purpose": "tests", "status": status, "roles": list(roles)}
    return {**plain, "keys": [{"spki": spki, "status": "active"}], "spiffe_ids": [], "attributes": {}, **changes}


@dataclass(frozen=True, slots=True)
class Signing:
    """Signs messages to one chain in one epoch, each with a nonce of its own."""

    chain_id: bytes
    epoch: int

    def sign(self, kind: str, by: str, digest: bytes, *, signer: str = "", time_ns: int | None = None) -> pb.Signature:
        """What ``by`` signs, with its key or with ``signer``'s."""
        secret = key(signer or by)
        name = signing.key_id(signing.public_spki(secret))
        at = time.time_ns() if time_ns is None else time_ns
        statement = Statement(kind, self.chain_id, self.epoch, by, name, digest, at, os.urandom(16)).encode()
        return pb.Signature(statement=statement, signature=signing.sign(secret, statement))


def registry_text(*people: dict[str, Any]) -> bytes:
    """A registry file."""
    return json.dumps({"format": "sidecar/v1/registry", "principals": people}).encode()


def registry(*people: dict[str, Any]) -> Registry:
    """A registry, read."""
    return parse(registry_text(*people))


def delegated(giver: str, to: str, parent: Given | None = None, *, signer: str = "", **changes: Any) -> Given:
    """A delegation of everything for this century, signed by its giver's key or by ``signer``'s."""
    spki = signing.public_spki(key(signer or giver))
    text = {
        "format": delegation.FORMAT,
        "from": giver,
        "to": to,
        "key": signing.key_id(spki),
        "audience": "*",
        "actions": ["*"],
        "resources": ["*"],
        "not_before": "2001-01-01T00:00:00.000000000Z",
        "not_after": "2099-01-01T00:00:00.000000000Z",
        "further": 3 if parent is None else delegation.parse(parent.text).further - 1,
        "parent": None if parent is None else delegation.name_of(parent.text),
        **changes,
    }
    raw = json.dumps(text).encode()
    return Given(raw, spki, signing.sign(key(signer or giver), delegation.LABEL + raw))
