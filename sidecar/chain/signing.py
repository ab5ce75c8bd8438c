"""Keys of principals and their signatures: Ed25519 and ECDSA on P-256, one spelling each (proto/SIGNING.md, "Keys")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from sidecar.chain import note
from sidecar.chain.statement import key_id
from sidecar.errors import Malformed, SignatureInvalid

SIGNATURE_SIZE: Final = 64
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # FIPS 186-5, SP 800-186
_ED25519_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")  # RFC 8410 section 4
_P256_PREFIX: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")  # RFC 5480, uncompressed

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A principal's key. ``spki``: DER SubjectPublicKeyInfo, in its one spelling; ``id``: hex of its SHA-256."""

    spki: bytes
    id: str = field(init=False)
    _key: Ed25519PublicKey | ec.EllipticCurvePublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises Malformed for another algorithm, curve or spelling, and for a key that no honest holder has."""
        object.__setattr__(self, "_key", _load(self.spki))
        object.__setattr__(self, "id", key_id(self.spki))

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if this key's holder signed ``message``.

        Raises:
            SignatureInvalid: it did not, or the signature is spelt otherwise than proto/SIGNING.md says.
        """
        try:
            if len(signature) != SIGNATURE_SIZE:
                raise SignatureInvalid(f"signature: it has {SIGNATURE_SIZE} bytes, not {len(signature)}")
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                self._key.verify(_der(signature), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise SignatureInvalid("signature: it does not verify") from None


def public_spki(private: PrivateKey) -> bytes:
    """The SPKI of a private key's public half. Raises Malformed for another curve than P-256."""
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    PublicKey(spki)
    return spki


def sign(private: PrivateKey, message: bytes) -> bytes:
    """64 bytes. The same arguments give the same bytes: RFC 8032, or RFC 6979 for P-256."""
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(message)
    r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _load(spki: bytes) -> Ed25519PublicKey | ec.EllipticCurvePublicKey:
    if len(spki) == 44 and spki.startswith(_ED25519_PREFIX):
        return _ed25519(spki[12:])
    if len(spki) == 91 and spki.startswith(_P256_PREFIX):
        return _p256(spki)
    raise Malformed("key: neither Ed25519 (RFC 8410) nor P-256 with an uncompressed point (RFC 5480)")


def _ed25519(raw: bytes) -> Ed25519PublicKey:
    if not note.binds(raw):
        raise Malformed("key: an Ed25519 point of small order, or not in its one spelling")
    return Ed25519PublicKey.from_public_bytes(raw)


def _p256(spki: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("key: not a point of P-256") from None
    assert isinstance(key, ec.EllipticCurvePublicKey)  # the prefix says so
    return key


def _der(signature: bytes) -> bytes:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < P256_ORDER and 0 < s < P256_ORDER):
        raise SignatureInvalid("signature: r or s is zero or not below the group order")
    return encode_dss_signature(r, s)
