"""The checkpoint: a log's signed size and root (C2SP tlog-checkpoint; proto/LOG.md, "Checkpoint").

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDe…

Extension lines are refused: no monitor can audit them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import lines, note
from sidecar.chain.merkle import EMPTY_ROOT, HASH_BYTES
from sidecar.chain.note import SignedNote, VerifierKey
from sidecar.errors import Malformed, SignatureInvalid

MAX_TREE = 2**63 - 1
_ORIGIN = re.compile(r"[^\s+\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One tree: whose, how many leaves, which root.

    Raises:
        Malformed: an origin that no key can be named after, a size out of range, a root that is none.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not _ORIGIN.fullmatch(self.origin):
            raise Malformed("checkpoint: an origin is not empty and has no spaces, plus signs or control characters")
        if not 0 <= self.size <= MAX_TREE or len(self.root) != HASH_BYTES:
            raise Malformed("checkpoint: size or root cannot be right")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise Malformed("checkpoint: the empty tree has another root")

    def text(self) -> str:
        """The note's text, unsigned."""
        return f"{self.origin}\n{self.size}\n{note.to_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a text.

        Raises:
            Malformed: not exactly three lines in their one spelling.
        """
        rows = text.split("\n")
        if len(rows) != 4 or rows[3]:
            raise Malformed("checkpoint: exactly three lines are required")
        return cls(rows[0], lines.number(rows[1], "size", high=MAX_TREE), note.from_base64(rows[2]))


def sign(checkpoint: Checkpoint, private: Ed25519PrivateKey) -> bytes:
    """The checkpoint as its log signs it; the same arguments give the same bytes."""
    return note.sign(checkpoint.text(), checkpoint.origin, private)


def verify(data: bytes, key: VerifierKey) -> tuple[Checkpoint, SignedNote]:
    """The checkpoint that the log of ``key`` signed, and its note for the signatures besides.

    Raises:
        Malformed: no checkpoint, of another origin, or without a line of this key.
        SignatureInvalid: a line of this key does not verify.
    """
    signed = note.parse(data)
    read = Checkpoint.parse(signed.text)
    if read.origin != key.name:
        raise Malformed("checkpoint: of another log than the expected one")
    found = note.by_key(signed, key)
    if not found:
        raise SignatureInvalid("checkpoint: not signed by the log's key")
    for signature in found:
        note.verify_signature(key.public_key, signature, signed.text.encode())
    return read, signed
