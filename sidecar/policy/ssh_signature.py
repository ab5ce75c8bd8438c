"""SSH signatures as `ssh-keygen -Y sign` makes them (OpenSSH's PROTOCOL.sshsig), read strictly.

What ssh-keygen passes over is refused, so that nothing in a signature can be changed: anything around the armour, lines
of changing length, base64 with loose bits, something in the reserved field, bytes at the end.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from .ssh_keys import Reader, SshKey, Unreadable

_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
_END: Final = b"-----END SSH SIGNATURE-----"
_MAGIC: Final = b"SSHSIG"
_HASHES: Final = ("sha256", "sha512")
_WIDEST: Final = 76  # ssh-keygen writes 70
_LARGEST: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class SshSignature:
    """``key``: the bytes of the key it says it is by; ``made``: the key's own signature. Nothing is verified yet."""

    key: bytes
    namespace: str
    hash: str
    made: bytes

    def verify(self, key: SshKey, message: bytes) -> None:
        """Raises `Unreadable` when it is no signature by such a key, `InvalidSignature` when it is over other bytes."""
        digest = hashlib.new(self.hash, message).digest()
        parts = (self.namespace.encode(), b"", self.hash.encode(), digest)
        key.verify(self.made, _MAGIC + b"".join(len(part).to_bytes(4, "big") + part for part in parts))


def read_signature(armored: bytes) -> SshSignature:
    """Raises `Unreadable`."""
    reader = Reader(_dearmored(armored))
    if reader.take(len(_MAGIC)) != _MAGIC or reader.number() != 1:
        raise Unreadable("is not an SSH signature of version 1")
    key, namespace, reserved, digest, made = (
        reader.string(),
        reader.word(),
        reader.string(),
        reader.word(),
        reader.string(),
    )
    reader.end()
    if reserved:
        raise Unreadable("has something in its reserved field")
    if digest not in _HASHES:
        raise Unreadable(f"is over a hash {digest[:64]!r}; sha256 and sha512 are taken")
    return SshSignature(key, namespace, digest, made)


def _dearmored(armored: bytes) -> bytes:
    if len(armored) > _LARGEST:
        raise Unreadable(f"is larger than {_LARGEST} bytes")
    first, *lines, last = armored.split(b"\n") if armored.count(b"\n") > 1 else (b"", b"")
    if first != _BEGIN or last != _END:
        raise Unreadable("does not begin and end as an SSH signature")
    widths = {len(line) for line in lines[:-1]} or {_WIDEST}
    if len(widths) > 1 or not 1 <= len(lines[-1]) <= max(widths) <= _WIDEST:
        raise Unreadable("is broken into lines of changing length")
    text = b"".join(lines)
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Unreadable("is not base64") from None
    if base64.b64encode(raw) != text:
        raise Unreadable("is base64 with loose bits")
    return raw
