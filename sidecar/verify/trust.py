"""The trust file: what an auditor knows from a source other than the ledger (proto/LOG.md, "Trust file")."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sidecar.chain import strictjson
from sidecar.chain.seeds import Custody
from sidecar.errors import Malformed
from sidecar.verify.policy import Policy

FORMAT = "sidecar/v1/trust"
_MEMBERS = {"format", "chains", "policy", "tsa_roots", "custodians", "principals"}
_HEX32 = re.compile(r"\A[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Trust:
    """Known from elsewhere than the ledger: identity key (32 bytes) by chain id (32 bytes); which logs and witnesses
    are believed (None: none is); roots of timestamp authorities, DER; the custodians there may be, by SHA-256 of their
    SPKI (none: any); key ids by principal.

    Raises:
        Malformed: no chain at all, or a value that is not 32 bytes.
    """

    chains: Mapping[bytes, bytes]
    policy: Policy | None = None
    tsa_roots: tuple[bytes, ...] = ()
    custodians: frozenset[bytes] = frozenset()
    principals: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.chains or any(len(v) != 32 for pair in self.chains.items() for v in pair):
            raise Malformed("trust file: at least one chain, and 32 bytes for each value")

    def keys_of(self, principal: str) -> frozenset[str]:
        """Ids of the keys that are known to be this principal's."""
        return self.principals.get(principal, frozenset())

    def objection(self, chain_id: bytes, identity: bytes | None) -> str | None:
        """Why a ledger of this chain and identity key is not one of those expected, or None."""
        expected = self.chains.get(chain_id)
        if expected is None:
            return "this chain is not in the trust file"
        if identity is not None and identity != expected:
            return "the identity key is not the one in the trust file"
        return None

    def stranger(self, custody: Custody) -> str | None:
        """A custodian of the ledger that the trust file does not know, by name, or None."""
        known = self.custodians
        strange = [c.name for c in custody.custodians if known and sha256(c.spki).digest() not in known]
        return strange[0] if strange else None


def parse_trust(data: bytes) -> Trust:
    """Read a trust file.

    Raises:
        Malformed: not strict JSON (RFC 7493), not of this shape, one chain twice, or no tlog-policy.
    """
    value = strictjson.parse_object(data)
    if not {"format", "chains"} <= value.keys() <= _MEMBERS or value["format"] != FORMAT:
        raise Malformed(f"trust file: an object with format {FORMAT!r}, chains and no unknown member is required")
    pairs = [_pair(each) for each in _array(value, "chains")]
    if len(dict(pairs)) != len(pairs):
        raise Malformed("trust file: one chain occurs twice")
    policy = value.get("policy")
    if policy is not None and not isinstance(policy, str):
        raise Malformed("trust file: its policy is a string or null")
    return Trust(
        dict(pairs),
        None if policy is None else Policy.parse(policy),
        tuple(_base64(each) for each in _array(value, "tsa_roots")),
        frozenset(hex32(each) for each in _array(value, "custodians")),
        _principals(_array(value, "principals")),
    )


def _array(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name, [])
    if not isinstance(found, list):
        raise Malformed(f"trust file: {name} is an array")
    return found


def _pair(value: Any) -> tuple[bytes, bytes]:
    if not isinstance(value, dict) or value.keys() != {"chain", "identity"}:
        raise Malformed("trust file: each chain has the members chain and identity")
    return hex32(value["chain"]), hex32(value["identity"])


def _base64(value: Any) -> bytes:
    try:
        data = b64decode(value, validate=True) if isinstance(value, str) else b""
    except (Error, ValueError):
        data = b""
    if not data or b64encode(data).decode() != value:
        raise Malformed("trust file: a root is base64 of a certificate in DER")
    return data


def _principals(value: list[Any]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for each in value:
        if not isinstance(each, dict) or each.keys() != {"id", "keys"} or not isinstance(each["keys"], list):
            raise Malformed("trust file: principals is an array of objects with the members id and keys")
        if not isinstance(each["id"], str) or each["id"] in found:
            raise Malformed("trust file: a principal's id is no string, or occurs twice")
        found[each["id"]] = frozenset(hex32(key).hex() for key in each["keys"])
    return found


def hex32(value: Any) -> bytes:
    """32 bytes from lower-case hex.

    Raises:
        Malformed: anything else.
    """
    if not isinstance(value, str) or not _HEX32.match(value):
        raise Malformed("32 bytes in lower-case hex are required")
    return bytes.fromhex(value)
