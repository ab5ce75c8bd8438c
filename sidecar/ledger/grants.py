"""Permits: what an ALLOW that names an executor gives it, signed by the identity key (proto/SIGNING.md, "Permit")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain.digests import arguments_digest, target_digest
from sidecar.chain.permit import Permit


class Grants:
    """Signs permits of one chain. The same decision gives the same bytes: Ed25519 takes no randomness."""

    def __init__(self, chain_id: bytes, identity: Ed25519PrivateKey) -> None:
        self._chain_id, self._identity = chain_id, identity

    def permit(self, seq: int, decision: Mapping[str, Any]) -> bytes:
        """The permit of the DECISION at ``seq``, by its checked payload; empty where it grants none."""
        if decision["permit"] is None:
            return b""
        asked = decision["request"]
        return Permit(
            self._chain_id, decision["decision_id"], seq, decision["agent"]["id"], decision["executor"]["id"],
            target_digest(asked["action"], asked["resource"]["type"], asked["resource"]["id"]),
            arguments_digest(asked["arguments"].encode()), int(decision["permit"]["not_after"]),
        ).sign(self._identity)  # fmt: skip
