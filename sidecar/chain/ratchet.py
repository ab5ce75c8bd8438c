"""The keys: a seed per epoch, ratcheted per segment, evolved per entry (proto/LEDGER.md, "Keys").

Whoever holds the state at entry j can make keys for j and after, never for anything before; whoever is given one
segment's two keys learns nothing of another's. The seed itself is not kept here.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from sidecar.chain.limits import ZERO32

_INNER = bytes(byte ^ 0x36 for byte in range(256))  # RFC 2104: ipad and opad, as tables for bytes.translate
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def seed_commit(chain_id: bytes, epoch: int, seed: bytes) -> bytes:
    """The epoch note's commitment to the 32-byte seed."""
    return hashlib.sha256(b"sidecar/v1/seed\0" + chain_id + epoch.to_bytes(4, "big") + seed).digest()


def mac_key_commit(key: bytes) -> bytes:
    """The seal's commitment to K_i."""
    return hashlib.sha256(b"sidecar/v1/key\0" + key).digest()


def tag_key_commit(key: bytes) -> bytes:
    """The seal's commitment to T_i."""
    return hashlib.sha256(b"sidecar/v1/tag-key\0" + key).digest()


def evolve(key: bytes) -> bytes:
    """k_{j+1} from k_j."""
    return hmac.digest(key, b"sidecar/v1/evolve\0", "sha256")


def tag_and_next(key: bytes, header: bytes) -> tuple[bytes, bytes]:
    """The tag of entry j, which is HMAC-SHA256 under k_j of a label and the encoded header, and k_{j+1} as of
    :func:`evolve`, in half the time of the two.

    RFC 2104 section 4: the two padded blocks of the key are hashed once for both messages.
    """
    block = key + ZERO32
    inner, outer = hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))
    inner_tag, outer_tag = inner.copy(), outer.copy()
    inner_tag.update(b"sidecar/v1/entry\0" + header)
    outer_tag.update(inner_tag.digest())
    inner.update(b"sidecar/v1/evolve\0")
    outer.update(inner.digest())
    return outer_tag.digest(), outer.digest()


def agent_tag(tag_key: bytes, seq: int, agent_id: str) -> bytes:
    """The 16-byte blinded name of a proved agent in the header of entry ``seq``."""
    message = b"sidecar/v1/agent\0" + seq.to_bytes(8, "big") + agent_id.encode()
    return hmac.digest(tag_key, message, "sha256")[:16]


@dataclass(frozen=True, slots=True)
class SegmentKeys:
    """K_i and T_i of one segment, 32 bytes each. Never printed."""

    mac_key: bytes
    tag_key: bytes

    def __repr__(self) -> str:
        return "SegmentKeys(…)"


class Ratchet:
    """R: gives each segment's keys once, in order, and forgets what came before."""

    __slots__ = ("_epoch", "_next", "_r")

    def __init__(self, chain_id: bytes, epoch: int, seed: bytes, first_segment: int) -> None:
        self._r = HKDF.extract(SHA256(), chain_id, seed)
        self._epoch = epoch
        self._next = first_segment

    def advance(self) -> SegmentKeys:
        """The keys of the next segment; the state moves on."""
        place = self._epoch.to_bytes(4, "big") + self._next.to_bytes(8, "big")
        keys = SegmentKeys(self._expand(b"mac", place), self._expand(b"agent-tag", place))
        self._r = self._expand(b"ratchet", place)
        self._next += 1
        return keys

    def skip(self, segments: int) -> None:
        """Pass over the keys of so many segments."""
        for _ in range(segments):
            place = self._epoch.to_bytes(4, "big") + self._next.to_bytes(8, "big")
            # RFC 5869 section 2.3: an expansion of one block is one HMAC.
            self._r = hmac.digest(self._r, b"sidecar/v1/ratchet\0" + place + b"\x01", "sha256")
            self._next += 1

    def _expand(self, label: bytes, place: bytes) -> bytes:
        return HKDFExpand(SHA256(), 32, b"sidecar/v1/" + label + b"\0" + place).derive(self._r)

    def wipe(self) -> None:
        """Forget the state. Python cannot promise that no copy survives in memory."""
        self._r = ZERO32
