"""Principals with keys, registries of them, and messages that they sign: for tests that play callers, good and bad."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.api import messages
from sidecar.chain import registry
from sidecar.chain.digests import read_digest
from sidecar.chain.registry import Registry
from sidecar.chain.signing import PrivateKey, key_id, public_spki, sign
from sidecar.chain.statement import Statement
from sidecar.decide import Registered
from sidecar.v1 import decision_pb2 as pb


@dataclass(frozen=True)
class Agent:
    """A principal and its private key."""

    id: str
    key: PrivateKey

    @property
    def spki(self) -> bytes:
        return public_spki(self.key)

    @property
    def key_id(self) -> str:
        return key_id(self.spki)

    def entry(self, kind: str = "agent", **changed: Any) -> dict[str, Any]:
        """Its place in a registry."""
        key = {"spki": base64.b64encode(self.spki).decode(), "status": "active"}
        members = {"id": self.id, "kind": kind, "owner": "finance", "purpose": "a test", "status": "active"}
        more = {"keys": [key], "spiffe_ids": [], "roles": ["billing"], "attributes": {"limit": 100}}
        return {**members, **more, **changed}

    def sign(self, message: Any, kind: str, digest: bytes, head: pb.HeadResponse, /, **lines: Any) -> Any:
        """The message with a statement over it; ``lines`` that differ."""
        said = {
            "kind": kind, "audience": head.chain_id, "epoch": head.epoch, "by": self.id, "key": self.key_id,
            "digest": digest, "time": time.time_ns(), "nonce": os.urandom(16), **lines,
        }  # fmt: skip
        text = Statement(**said).encode()
        message.signature.CopyFrom(pb.Signature(statement=text, signature=sign(self.key, text)))
        return message

    def request(self, message: pb.DecideRequest, head: pb.HeadResponse, /, **lines: Any) -> pb.DecideRequest:
        signed: pb.DecideRequest = self.sign(message, "request", messages.request_of(message).digest(), head, **lines)
        return signed

    def outcome(self, message: pb.ReportOutcomeRequest, head: pb.HeadResponse, **lines: Any) -> pb.ReportOutcomeRequest:
        digest = messages.outcome_of(message).digest()
        signed: pb.ReportOutcomeRequest = self.sign(message, "outcome", digest, head, **lines)
        return signed

    def read(self, message: Any, parameter: str, head: pb.HeadResponse) -> Any:
        message.by = self.id
        return self.sign(message, "read", read_digest(self.id, "entry", parameter), head)


BILLING = Agent("billing-agent", Ed25519PrivateKey.generate())
PAYROLL = Agent("payroll-agent", ec.generate_private_key(ec.SECP256R1()))
GATEWAY = Agent("payments-gateway", Ed25519PrivateKey.generate())
MALLORY = Agent("billing-agent", Ed25519PrivateKey.generate())


def registry_text(*entries: dict[str, Any]) -> bytes:
    """The file."""
    return json.dumps({"format": "sidecar/v1/registry", "principals": list(entries)}).encode()


def registry_of(*entries: dict[str, Any]) -> Registry:
    return registry.parse(registry_text(*entries))


def registered(*entries: dict[str, Any]) -> Registered:
    return Registered(registry_of(*entries), "file", "/etc/registry.json")


EVERYBODY = (BILLING.entry(), PAYROLL.entry(), GATEWAY.entry("executor"))
