"""The last step of RSA-OAEP decryption, for tokens that do only the RSA operation itself.

RFC 8017 section 7.1.2 step 3 with SHA-256, MGF1 with SHA-256 and the empty label, which `rsa-oaep` of
proto/LEDGER.md fixes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

_HASH_BYTES: Final = 32
_NO_LABEL: Final = sha256(b"").digest()


def unpad(encoded: bytes) -> bytes | None:
    """The message in ``encoded`` (EM: as many bytes as the modulus), or None.

    All of EM is looked at before anything is decided, so that neither the answer nor (as far as Python allows) the time
    tells which of the checks failed: RFC 8017 warns of Manger's attack.
    """
    if len(encoded) < 2 * _HASH_BYTES + 2:
        return None
    masked_seed, masked_block = encoded[1 : 1 + _HASH_BYTES], encoded[1 + _HASH_BYTES :]
    seed = _xor(masked_seed, _mgf1(masked_block, _HASH_BYTES))
    block = _xor(masked_block, _mgf1(seed, len(masked_block)))
    wrong = encoded[0]
    for found, due in zip(block, _NO_LABEL, strict=False):
        wrong |= found ^ due
    start, stray = _separator(block)
    return None if wrong | stray else block[start:]


def _separator(block: bytes) -> tuple[int, int]:
    """Where the message starts after the padding's 0x01, and a number that is 0 only if the padding is right."""
    searching, at, stray = 1, 0, 0
    for place in range(_HASH_BYTES, len(block)):
        value = block[place]
        one = searching & (value == 1)
        stray |= searching & (value > 1)
        at |= one * (place + 1)
        searching ^= one
    return at, stray | searching


def _mgf1(seed: bytes, length: int) -> bytes:
    """RFC 8017 appendix B.2.1."""
    blocks = -(-length // _HASH_BYTES)
    return b"".join(sha256(seed + counter.to_bytes(4, "big")).digest() for counter in range(blocks))[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
