"""How an epoch's seed is split and bound to its custodians (proto/LEDGER.md, "Wrapped seeds").

Only the bytes: the encryption itself is `custody`'s, and random bytes come in as arguments.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.chain.limits import MAX_CUSTODIANS
from sidecar.errors import Malformed

MODES = {"any": 1, "all": 2}
KEMS = {"hpke": 1, "rsa-oaep": 2}


@dataclass(frozen=True, slots=True)
class Custodian:
    """Who can open seeds: a name for people, how to encrypt to it, its DER SubjectPublicKeyInfo.

    Raises:
        Malformed: an unknown kem.
    """

    name: str
    kem: str
    spki: bytes

    def __post_init__(self) -> None:
        if self.kem not in KEMS:
            raise Malformed("custodian has an unknown kem")


@dataclass(frozen=True, slots=True)
class Custody:
    """The custodian set of a chain. ``mode``: ``any`` opens alone, ``all`` only together.

    Raises:
        Malformed: an unknown mode, too many custodians, or one key twice.
    """

    mode: str
    custodians: tuple[Custodian, ...]

    def __post_init__(self) -> None:
        if self.mode not in MODES or len(self.custodians) > MAX_CUSTODIANS:
            raise Malformed("custodian set has an unknown mode or too many custodians")
        if len({c.spki for c in self.custodians}) != len(self.custodians):
            raise Malformed("custodian set names one key twice")

    def digest(self) -> bytes:
        """The epoch note's ``custodians``."""
        head = bytes((MODES[self.mode], len(self.custodians)))
        each = b"".join(bytes((KEMS[c.kem],)) + hashlib.sha256(c.spki).digest() for c in self.custodians)
        return hashlib.sha256(b"sidecar/v1/custodians\0" + head + each).digest()

    def context(self, chain_id: bytes, epoch: int, index: int) -> bytes:
        """``ctx``: what a share is bound to."""
        place = bytes((MODES[self.mode], index, len(self.custodians)))
        spki = hashlib.sha256(self.custodians[index].spki).digest()
        label = b"sidecar/v1/wrap\0"
        return hashlib.sha256(label + chain_id + epoch.to_bytes(4, "big") + place + spki).digest()

    def split(self, seed: bytes, randomness: Sequence[bytes]) -> list[bytes]:
        """One 32-byte share each. ``all`` needs n − 1 random 32-byte strings."""
        n = len(self.custodians)
        if self.mode == "any":
            return [seed] * n
        shares = [bytes(r) for r in randomness[: n - 1]] if n else []
        return [*shares, join([seed, *shares])] if n else []

    def combine(self, shares: Sequence[bytes]) -> bytes:
        """The seed from one share (``any``) or all of them, in order (``all``)."""
        return shares[0] if self.mode == "any" else join(shares)


@dataclass(frozen=True, slots=True)
class SealedShare:
    """One custodian's share as OPEN carries it: its commitment and its ciphertext."""

    commit: bytes
    sealed: bytes


def join(shares: Sequence[bytes]) -> bytes:
    """XOR of 32-byte strings."""
    total = 0
    for share in shares:
        total ^= int.from_bytes(share, "big")
    return total.to_bytes(32, "big")


def share_commit(ctx: bytes, share: bytes) -> bytes:
    """Names a share, so that a bad one is known by its custodian."""
    return hashlib.sha256(b"sidecar/v1/share\0" + ctx + share).digest()


def seeds_digest(shares: Sequence[SealedShare]) -> bytes:
    """The epoch note's ``seeds``."""
    hasher = hashlib.sha256(b"sidecar/v1/seeds\0" + len(shares).to_bytes(4, "big"))
    for share in shares:
        hasher.update(share.commit + len(share.sealed).to_bytes(4, "big") + share.sealed)
    return hasher.digest()


def custody_of(genesis: Mapping[str, Any]) -> Custody:
    """The custodian set of a checked GENESIS payload.

    Raises:
        Malformed: a set that no chain may have.
    """
    each = (Custodian(c["name"], c["kem"], base64.b64decode(c["spki"])) for c in genesis["custodians"])
    return Custody(genesis["mode"], tuple(each))


def shares_of(opening: Mapping[str, Any]) -> list[SealedShare]:
    """The wrapped seeds of a checked OPEN payload."""
    return [SealedShare(bytes.fromhex(s["commit"]), base64.b64decode(s["sealed"])) for s in opening["seeds"]]
