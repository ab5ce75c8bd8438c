"""What is remembered of a request that may be asked again: its receipt, bound to its key.

The requests database is an aid that the chain does not cover. Each value therefore carries a MAC under a key derived
from the identity key, and the receipt in it must be the entry's own: a file that somebody edited is not believed.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import note
from sidecar.chain.head import Head
from sidecar.errors import LedgerDamaged, Malformed

_MAC_BYTES = 32


class Memory:
    """Binds receipts to repeat keys (16 bytes each)."""

    def __init__(self, identity: Ed25519PrivateKey) -> None:
        self._key = hmac.digest(identity.private_bytes_raw(), b"sidecar/v1/requests\0", "sha256")

    def bind(self, repeat_key: bytes, receipt: bytes) -> bytes:
        """The value to store."""
        return self._mac(repeat_key, receipt) + receipt

    def recall(self, repeat_key: bytes, value: bytes, seq: int, leaf: bytes) -> bytes:
        """The receipt in a stored value, which must be about the entry with this seq and leaf.

        Raises:
            LedgerDamaged: the value or the entry is not what was written.
        """
        mac, receipt = value[:_MAC_BYTES], value[_MAC_BYTES:]
        try:
            head = Head.parse(note.parse(receipt).text)
        except Malformed:
            raise _damaged() from None
        if not hmac.compare_digest(mac, self._mac(repeat_key, receipt)) or (head.seq, head.leaf) != (seq, leaf):
            raise _damaged()
        return receipt

    def _mac(self, repeat_key: bytes, receipt: bytes) -> bytes:
        return hmac.digest(self._key, b"sidecar/v1/request-memory\0" + repeat_key + receipt, "sha256")


def _damaged() -> LedgerDamaged:
    return LedgerDamaged("what is remembered of a request is not what was recorded; run `sidecar verify`")
