"""Keys in files: PEM for custodians (X25519, RSA) and for the authority (Ed25519).

PEM is RFC 7468; private keys are PKCS #8 (RFC 5958), public ones SubjectPublicKeyInfo (RFC 5280), unencrypted.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from sidecar.chain.seeds import Custodian
from sidecar.custody.kems import PrivateKey, RsaKey, X25519Key, spki_of
from sidecar.errors import UsageError

LEAST_RSA_BITS: Final = 2048
_NEW_RSA_BITS: Final = 3072
_MAX_NAME: Final = 64
_MAX_PEM: Final = 64 * 1024
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]+")


def load_custodian(pem: bytes, name: str) -> Custodian:
    """The custodian whose public key this PEM holds: X25519 (kem ``hpke``) or RSA of 2,048 bits or more (``rsa-oaep``).

    ``name`` is for people: 1 to 64 characters, no control characters.

    Raises:
        UsageError: a private key, another kind of key, a weak one, or no PEM at all.
    """
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME or not _encodable(name):
        raise UsageError(f"a custodian's name must be 1 to {_MAX_NAME} characters without control characters")
    key = _load_public(pem, f"custodian {name}")
    if isinstance(key, x25519.X25519PublicKey):
        _refuse_low_order(key, name)
        return Custodian(name, "hpke", spki_of(key))
    if isinstance(key, rsa.RSAPublicKey):
        refuse_weak(key, f"custodian {name}")
        return Custodian(name, "rsa-oaep", spki_of(key))
    raise UsageError(f"custodian {name}: the key is neither X25519 nor RSA; make one with `sidecar keys custodian`")


def load_authority(pem: bytes) -> bytes:
    """The authority's public key, 32 bytes, from an Ed25519 public PEM.

    Raises:
        UsageError: a private key, another kind of key, or no PEM at all.
    """
    key = _load_public(pem, "authority")
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError("authority: the key is not Ed25519; make one with `sidecar keys authority`")
    return key.public_bytes_raw()


def load_authority_private(pem: bytes) -> ed25519.Ed25519PrivateKey:
    """The authority's private key from an unencrypted Ed25519 PEM.

    Raises:
        UsageError: a public key, an encrypted one, another kind of key, or no PEM at all.
    """
    key = _load_private(pem, "authority key")
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError("authority key: it is not Ed25519; make one with `sidecar keys authority`")
    return key


def load_private(pem: bytes) -> PrivateKey:
    """A custodian's private key from an unencrypted PEM.

    Raises:
        UsageError: a public key, an encrypted one, another kind of key, or no PEM at all.
    """
    key = _load_private(pem, "custodian key")
    if isinstance(key, rsa.RSAPrivateKey):
        refuse_weak(key.public_key(), "custodian key")
        return RsaKey(key)
    if isinstance(key, x25519.X25519PrivateKey):
        return X25519Key(key)
    raise UsageError("custodian key: the key is neither X25519 nor RSA")


def generate_custodian(kind: str) -> tuple[bytes, bytes]:
    """A new key pair (private PEM, public PEM). ``kind``: ``x25519`` or ``rsa`` (3,072 bits).

    Raises:
        UsageError: another kind.
    """
    if kind == "x25519":
        return _pair(x25519.X25519PrivateKey.generate())
    if kind == "rsa":
        return _pair(rsa.generate_private_key(public_exponent=65537, key_size=_NEW_RSA_BITS))
    raise UsageError("a custodian's key is of kind x25519 or rsa")


def generate_authority() -> tuple[bytes, bytes]:
    """A new Ed25519 key pair for an authority (private PEM, public PEM)."""
    return _pair(ed25519.Ed25519PrivateKey.generate())


def generate_exporter() -> tuple[bytes, bytes]:
    """A new Ed25519 key pair for an exporter of evidence (private PEM, public PEM)."""
    return _pair(ed25519.Ed25519PrivateKey.generate())


def generate_agent(kind: str) -> tuple[bytes, bytes]:
    """A new key pair for a principal that signs (private PEM, public PEM). ``kind``: ``ed25519`` or ``p256``.

    Raises:
        UsageError: another kind.
    """
    if kind == "ed25519":
        return _pair(ed25519.Ed25519PrivateKey.generate())
    if kind == "p256":
        return _pair(ec.generate_private_key(ec.SECP256R1()))
    raise UsageError("an agent's key is of kind ed25519 or p256")


def public_pem(key: PrivateKey) -> bytes:
    """The key's public half as PEM, for `sidecar init --custodian`."""
    return load_der_public_key(key.spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def refuse_weak(key: rsa.RSAPublicKey, whose: str) -> None:
    """Raises UsageError for an RSA key of fewer than 2,048 bits."""
    if key.key_size < LEAST_RSA_BITS:
        raise UsageError(f"{whose}: the RSA key has {key.key_size} bits; {LEAST_RSA_BITS} or more are required")


def _pair(
    key: x25519.X25519PrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> tuple[bytes, bytes]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _load_private(pem: bytes, whose: str) -> object:
    if len(pem) > _MAX_PEM or b"PRIVATE KEY-----" not in pem:
        raise UsageError(f"{whose}: no private key in this PEM; give the private half")
    try:
        return load_pem_private_key(pem, None)
    except TypeError:
        raise UsageError(f"{whose}: the PEM is encrypted; decrypt it first (`openssl pkey`)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{whose}: the PEM cannot be read; give an unencrypted PKCS #8 PEM") from None


def _load_public(pem: bytes, whose: str) -> object:
    if b"PRIVATE KEY-----" in pem:
        raise UsageError(f"{whose}: this is a private key; give its public key and keep the private one off this host")
    try:
        if len(pem) > _MAX_PEM:
            raise ValueError
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{whose}: no public key in this PEM; it must start with BEGIN PUBLIC KEY") from None


def _refuse_low_order(key: x25519.X25519PublicKey, name: str) -> None:
    # A point of low order makes every shared secret zero: whatever is sealed to it, anybody opens.
    try:
        x25519.X25519PrivateKey.generate().exchange(key)
    except ValueError:
        raise UsageError(f"custodian {name}: not a usable X25519 key; make one with `sidecar keys custodian`") from None


def _encodable(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)
