"""The trust file: which chains, under which identity keys, the verifier expects (proto/LEDGER.md, "Other formats")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.chain import strictjson
from sidecar.errors import Malformed

FORMAT = "sidecar/v1/trust"
_HEX32 = re.compile(r"\A[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Trust:
    """Identity key (32 bytes) by chain id (32 bytes), and key ids by principal: known from elsewhere than the ledger.

    Raises:
        Malformed: no chain at all, or a value that is not 32 bytes.
    """

    chains: Mapping[bytes, bytes]
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


def parse_trust(data: bytes) -> Trust:
    """Read a trust file.

    Raises:
        Malformed: not strict JSON (RFC 7493), not of this shape, one chain twice.
    """
    value = strictjson.parse_object(data)
    chains = value.get("chains")
    if (
        value.keys() - {"principals"} != {"format", "chains"}
        or value["format"] != FORMAT
        or not isinstance(chains, list)
    ):
        raise Malformed(f"trust file: an object with format {FORMAT!r} and an array chains is required")
    pairs = [_pair(each) for each in chains]
    if len(dict(pairs)) != len(pairs):
        raise Malformed("trust file: one chain occurs twice")
    return Trust(dict(pairs), _principals(value.get("principals", [])))


def _pair(value: Any) -> tuple[bytes, bytes]:
    if not isinstance(value, dict) or value.keys() != {"chain", "identity"}:
        raise Malformed("trust file: each chain has the members chain and identity")
    return hex32(value["chain"]), hex32(value["identity"])


def _principals(value: Any) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for each in value if isinstance(value, list) else [None]:
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
