"""The statement: what a principal signs, one text a message (proto/SIGNING.md, "Statement")::

sidecar/v1/statement
kind request
audience 5d1c…
epoch 3
by billing-agent
key 8e02…
digest 77ab…
time 1764100000000000000
nonce 00112233445566778899aabbccddeeff
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from sidecar.chain import lines
from sidecar.errors import Malformed

KIND: Final = "sidecar/v1/statement"
KINDS: Final = frozenset({"request", "outcome", "approval", "read"})
MAX_SIZE: Final = 1_024
_NAMES: Final = ("kind", "audience", "epoch", "by", "key", "digest", "time", "nonce")
_PRINCIPAL: Final = re.compile(r"\A[!-~](?:[ -~]{0,254}[!-~])?\Z")
_NONCE: Final = re.compile(r"\A[0-9a-f]{32}\Z")


def is_principal(value: str) -> bool:
    """Whether this may be a principal's id: 1 to 256 printable ASCII characters, no space at either end."""
    return _PRINCIPAL.match(value) is not None


def key_id(spki: bytes) -> str:
    """The name of a key: hex of the SHA-256 of its SPKI."""
    return hashlib.sha256(spki).hexdigest()


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. ``key``: the key's id, hex; ``time`` in ns since 1970; ``nonce``: 16 bytes.

    Raises:
        Malformed: a value that no statement can carry.
    """

    kind: str
    audience: bytes
    epoch: int
    by: str
    key: str
    digest: bytes
    time: int
    nonce: bytes

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Malformed("statement: an unknown kind")
        if not is_principal(self.by):
            raise Malformed("statement: by is not the id of a principal")
        if not 0 <= self.epoch < 2**32 or not 0 <= self.time < 2**63:
            raise Malformed("statement: epoch or time is out of range")
        if (len(self.audience), len(self.digest), len(self.nonce)) != (32, 32, 16):
            raise Malformed("statement: audience and digest have 32 bytes, a nonce has 16")

    def encode(self) -> bytes:
        """The bytes that are signed."""
        values = (
            self.kind, self.audience.hex(), str(self.epoch), self.by, self.key, self.digest.hex(), str(self.time),
            self.nonce.hex(),
        )  # fmt: skip
        return lines.join(KIND, list(zip(_NAMES, values, strict=True))).encode()

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Read a statement of at most 1,024 bytes.

        Raises:
            Malformed: any line not in its place and spelling.
        """
        if len(data) > MAX_SIZE or not data.isascii():
            raise Malformed("statement: too long, or not printable ASCII")
        v = dict(zip(_NAMES, lines.split(data.decode(), KIND, _NAMES), strict=True))
        if not _NONCE.match(v["nonce"]):
            raise Malformed("statement: nonce is not 16 bytes in lower-case hex")
        return cls(
            v["kind"],
            lines.digest(v["audience"], "audience"),
            lines.number(v["epoch"], "epoch", high=2**32 - 1),
            v["by"],
            lines.digest(v["key"], "key").hex(),
            lines.digest(v["digest"], "digest"),
            lines.number(v["time"], "time", high=2**63 - 1),
            bytes.fromhex(v["nonce"]),
        )
