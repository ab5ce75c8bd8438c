"""The two ways a share is sealed, and the keys that open it (proto/LEDGER.md, "Wrapped seeds").

A private key is whatever knows its public half and opens what was sealed to it: kept in a file here, in a token in
`custody.pkcs11`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from sidecar.chain.seeds import Custodian

PublicKey = x25519.X25519PublicKey | rsa.RSAPublicKey

# RFC 9180 base mode; `encrypt` gives enc[32] ‖ ciphertext.
_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class PrivateKey(Protocol):
    """A custodian's private key, wherever it is kept."""

    @property
    def kem(self) -> str:
        """What it opens: ``hpke`` or ``rsa-oaep``."""

    @property
    def spki(self) -> bytes:
        """The public half, DER SubjectPublicKeyInfo (RFC 5280)."""

    def open(self, sealed: bytes, ctx: bytes) -> bytes | None:
        """The plaintext, or None where ``sealed`` is not a ciphertext for this key (and, with ``hpke``, for ``ctx``).

        Raises:
            UsageError: the key could not be used at all; that says nothing about ``sealed``.
        """


@dataclass(frozen=True, slots=True)
class X25519Key:
    """A private key in memory for ``hpke``."""

    private: x25519.X25519PrivateKey

    @property
    def kem(self) -> str:
        return "hpke"

    @property
    def spki(self) -> bytes:
        return spki_of(self.private.public_key())

    def open(self, sealed: bytes, ctx: bytes) -> bytes | None:
        try:
            return _HPKE.decrypt(sealed, self.private, ctx)
        except (InvalidTag, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class RsaKey:
    """A private key in memory for ``rsa-oaep``."""

    private: rsa.RSAPrivateKey

    @property
    def kem(self) -> str:
        return "rsa-oaep"

    @property
    def spki(self) -> bytes:
        return spki_of(self.private.public_key())

    def open(self, sealed: bytes, ctx: bytes) -> bytes | None:
        try:
            return self.private.decrypt(sealed, _oaep())
        except ValueError:
            return None


def seal(custodian: Custodian, plain: bytes, ctx: bytes) -> bytes | None:
    """``plain`` sealed to the custodian's key, or None where nothing can be encrypted to it."""
    try:
        key = load_der_public_key(custodian.spki)
        if custodian.kem == "hpke" and isinstance(key, x25519.X25519PublicKey):
            return _HPKE.encrypt(plain, key, ctx)
        if custodian.kem == "rsa-oaep" and isinstance(key, rsa.RSAPublicKey):
            return key.encrypt(plain, _oaep())
    except ValueError:
        pass
    return None


def spki_of(key: PublicKey) -> bytes:
    """The key's DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
