"""The cosignature: a witness says when it saw a checkpoint extend all it saw before (C2SP tlog-cosignature, Ed25519).

The message that is signed::

    cosignature/v1
    time 1679315147
    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import note
from sidecar.chain.note import Signature, SignedNote, VerifierKey
from sidecar.errors import Malformed

COSIGNATURE = b"\x04"
"""The key type of witnesses."""

_TIME_BYTES = 8
_BYTES = _TIME_BYTES + 64


@dataclass(frozen=True, slots=True)
class Cosignature:
    """What a witness's signature line carries. ``time`` is in POSIX seconds, below 2^63.

    Raises:
        Malformed: another time, or no 64-byte signature.
    """

    time: int
    signature: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.time < 2**63 or len(self.signature) != _BYTES - _TIME_BYTES:
            raise Malformed("cosignature: a time below 2^63 and 64 bytes are required")

    def encode(self) -> bytes:
        """The bytes after the key hash."""
        return self.time.to_bytes(_TIME_BYTES, "big") + self.signature

    @classmethod
    def parse(cls, data: bytes) -> Cosignature:
        """Read the bytes after the key hash.

        Raises:
            Malformed: not 72 bytes, or a time out of range.
        """
        if len(data) != _BYTES:
            raise Malformed(f"cosignature: {_BYTES} bytes are required")
        return cls(int.from_bytes(data[:_TIME_BYTES], "big"), data[_TIME_BYTES:])


def witness_key(vkey: str) -> VerifierKey:
    """A witness's verifier key from its text. Raises Malformed."""
    return note.parse_vkey(vkey, COSIGNATURE)


def message(text: str, time: int) -> bytes:
    """What a witness signs of a checkpoint's text."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosign(text: str, name: str, private: Ed25519PrivateKey, time: int) -> Signature:
    """A witness's signature line over a checkpoint's text."""
    key = VerifierKey(name, private.public_key().public_bytes_raw(), COSIGNATURE)
    return Signature(name, key.hash, Cosignature(time, private.sign(message(text, time))).encode())


def verify(signed: SignedNote, key: VerifierKey) -> int | None:
    """When the witness of ``key`` cosigned this note, POSIX seconds (the latest of its lines); None if it did not.

    Raises:
        Malformed: a line of this key that is no cosignature.
        SignatureInvalid: a line of this key that does not verify.
    """
    times = []
    for raw in note.by_key(signed, key):
        read = Cosignature.parse(raw)
        note.verify_signature(key.public_key, read.signature, message(signed.text, read.time))
        times.append(read.time)
    return max(times, default=None)
