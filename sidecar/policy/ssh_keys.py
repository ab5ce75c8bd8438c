"""SSH public keys and what they sign (RFC 4253 6.6, RFC 5656, RFC 8332, RFC 8709; OpenSSH's PROTOCOL.u2f).

Only one encoding of each thing is taken: minimal numbers, no bytes left over. So keys are equal when their bytes are.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_ED25519: Final = "ssh-ed25519"
_SK_ED25519: Final = "sk-ssh-ed25519@openssh.com"
_RSA: Final = "ssh-rsa"
_CURVES: Final[dict[str, tuple[str, ec.EllipticCurve, hashes.HashAlgorithm]]] = {
    "ecdsa-sha2-nistp256": ("nistp256", ec.SECP256R1(), hashes.SHA256()),
    "ecdsa-sha2-nistp384": ("nistp384", ec.SECP384R1(), hashes.SHA384()),
}
_RSA_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
}
KINDS: Final = (_ED25519, *_CURVES, _SK_ED25519, _RSA)
_RSA_BITS: Final = (2048, 16384)
_LONGEST: Final = 16 << 10  # bytes of one string
_TOUCHED: Final = 1  # of a security key's flags: its owner was there


class Unreadable(ValueError):
    """Bytes that are not what they should be, or in more bytes than needed; says what, never quotes."""


class Reader:
    """Reads SSH's binary encoding (RFC 4251, 5) to the end. All raise `Unreadable`."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, count: int) -> bytes:
        """So many bytes."""
        if count > len(self._raw) - self._at:
            raise Unreadable("is cut short")
        self._at += count
        return self._raw[self._at - count : self._at]

    def number(self) -> int:
        """A uint32."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """A string: its length in 4 bytes, then itself."""
        if (count := self.number()) > _LONGEST:
            raise Unreadable("holds something too long")
        return self.take(count)

    def word(self) -> str:
        """A string that is printable ASCII."""
        raw = self.string()
        if not (raw.isascii() and (text := raw.decode()).isprintable()):
            raise Unreadable("holds a name that is not printable")
        return text

    def mpint(self) -> int:
        """A positive number in as few bytes as it needs."""
        raw = self.string()
        if not raw or raw[0] > 127 or (raw[0] == 0 and (len(raw) == 1 or raw[1] < 128)):
            raise Unreadable("holds a number that is not positive or has zeros before it")
        return int.from_bytes(raw, "big")

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._raw):
            raise Unreadable("is followed by more bytes")


class PublicKey(Protocol):
    """A key that can tell whether it made a signature."""

    def verify(self, signature: Reader, algorithm: str, message: bytes) -> None:
        """Check what follows the algorithm's name in a signature. Raises `Unreadable`, `InvalidSignature`."""
        ...


@dataclass(frozen=True, slots=True)
class SshKey:
    """``kind`` as SSH names it; ``blob``: its bytes, by which keys are compared; ``public`` does the verifying."""

    kind: str
    blob: bytes
    public: PublicKey

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` prints it."""
        return fingerprint(self.blob)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises `Unreadable` when it is no signature by such a key, `InvalidSignature` when it does not verify."""
        reader = Reader(signature)
        self.public.verify(reader, reader.word(), message)


def fingerprint(blob: bytes) -> str:
    """``SHA256:`` and the digest of a key's bytes in base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def kind_of(blob: bytes) -> str:
    """The kind that a key's bytes name, supported or not. Raises `Unreadable`."""
    return Reader(blob).word()


def read_key(blob: bytes) -> SshKey:
    """Raises `Unreadable` for what is no key of a kind in `KINDS`, or a weak one."""
    reader = Reader(blob)
    kind = reader.word()
    if kind not in KINDS:
        raise Unreadable(
            f"is a key of the kind {kind[:64]!r}, which is not supported; supported are {', '.join(KINDS)}"
        )
    try:
        public = _public(kind, reader)
    except Unreadable:
        raise
    except ValueError:
        raise Unreadable(f"is no point or number that a key of the kind {kind} has") from None
    reader.end()
    return SshKey(kind, blob, public)


def _public(kind: str, reader: Reader) -> PublicKey:
    if kind == _ED25519:
        return _Ed25519(ed25519.Ed25519PublicKey.from_public_bytes(reader.string()))
    if kind == _SK_ED25519:
        key = ed25519.Ed25519PublicKey.from_public_bytes(reader.string())
        return _SecurityKey(key, hashlib.sha256(reader.string()).digest())
    if kind == _RSA:
        exponent, modulus = reader.mpint(), reader.mpint()
        return _Rsa(_rsa(exponent, modulus))
    name, curve, digest = _CURVES[kind]
    if reader.word() != name:
        raise Unreadable("names one curve and then another")
    point = reader.string()
    if point[:1] != b"\4":
        raise Unreadable("holds a compressed point")
    return _Ecdsa(kind, ec.EllipticCurvePublicKey.from_encoded_point(curve, point), digest)


def _rsa(exponent: int, modulus: int) -> rsa.RSAPublicKey:
    least, most = _RSA_BITS
    if not least <= modulus.bit_length() <= most:
        raise Unreadable(f"is an RSA key of {modulus.bit_length()} bits; at least {least} are needed, {most} the most")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _same(algorithm: str, kind: str) -> None:
    if algorithm != kind:
        raise Unreadable(f"was made as {algorithm[:64]!r}, which a key of the kind {kind} does not do")


@dataclass(frozen=True, slots=True)
class _Ed25519:
    key: ed25519.Ed25519PublicKey

    def verify(self, signature: Reader, algorithm: str, message: bytes) -> None:
        _same(algorithm, _ED25519)
        made = signature.string()
        signature.end()
        self.key.verify(made, message)


@dataclass(frozen=True, slots=True)
class _SecurityKey:
    """Ed25519 in hardware, over the application's hash, flags, a counter and the message's hash."""

    key: ed25519.Ed25519PublicKey
    application: bytes

    def verify(self, signature: Reader, algorithm: str, message: bytes) -> None:
        _same(algorithm, _SK_ED25519)
        made, said = signature.string(), signature.take(5)
        signature.end()
        self.key.verify(made, self.application + said + hashlib.sha256(message).digest())
        if not said[0] & _TOUCHED:
            raise Unreadable("was made by a security key that nobody touched")


@dataclass(frozen=True, slots=True)
class _Ecdsa:
    kind: str
    key: ec.EllipticCurvePublicKey
    digest: hashes.HashAlgorithm

    def verify(self, signature: Reader, algorithm: str, message: bytes) -> None:
        _same(algorithm, self.kind)
        numbers = Reader(signature.string())
        signature.end()
        r, s = numbers.mpint(), numbers.mpint()
        numbers.end()
        self.key.verify(encode_dss_signature(r, s), message, ec.ECDSA(self.digest))


@dataclass(frozen=True, slots=True)
class _Rsa:
    key: rsa.RSAPublicKey

    def verify(self, signature: Reader, algorithm: str, message: bytes) -> None:
        if algorithm not in _RSA_HASHES:
            raise Unreadable(f"was made as {algorithm[:64]!r}; RSA keys sign as {' or '.join(_RSA_HASHES)}")
        made = signature.string()
        signature.end()
        if len(made) != (self.key.key_size + 7) // 8:
            raise InvalidSignature
        self.key.verify(made, message, padding.PKCS1v15(), _RSA_HASHES[algorithm])
