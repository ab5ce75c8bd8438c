"""Certificate authorities of a test's own: what they issue is as wrong as the test wants it to be."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
HOUR = datetime.timedelta(hours=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, its key, and the certificates between it and the root."""

    certificate: x509.Certificate
    key: Any
    between: tuple[x509.Certificate, ...] = ()

    @property
    def leaf(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def intermediates(self) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.between)

    @property
    def chain(self) -> bytes:
        return self.leaf + self.intermediates

    @property
    def key_pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: a root, or one under another."""

    name: str
    key: Any = field(default_factory=p256)
    under: Authority | None = None
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        issuer = self.under or self
        made = _builder(self.name, issuer, self.key, NOW - HOUR, NOW + 24 * HOUR)
        made = made.add_extension(x509.BasicConstraints(True, None), critical=True)
        object.__setattr__(self, "certificate", _sign(made, issuer.key))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def issue(
        self,
        *uris: str,
        dns: Sequence[str] = (),
        key: Any = None,
        purposes: Sequence[x509.ObjectIdentifier] = (CLIENT,),
        start: datetime.datetime = NOW - HOUR,
        end: datetime.datetime = NOW + HOUR,
        ca: bool = False,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Issued:
        key = key or p256()
        made = _builder("somebody", self, key, start, end)
        made = made.add_extension(x509.BasicConstraints(ca, None), critical=True)
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        more = [*([x509.SubjectAlternativeName(names)] if names else []), *extensions]
        for extension in [*more, *([x509.ExtendedKeyUsage(purposes)] if purposes else [])]:
            made = made.add_extension(extension, critical=False)
        return Issued(_sign(made, self.key), key, self._between())

    def _between(self) -> tuple[x509.Certificate, ...]:
        return () if self.under is None else (self.certificate, *self.under._between())


def _builder(
    name: str, issuer: Authority, key: Any, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    called = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer.name)]
    made = x509.CertificateBuilder().subject_name(called[0]).issuer_name(called[1]).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return made.add_extension(by, critical=False)  # by which one CA is told from another of the same name


def _sign(made: x509.CertificateBuilder, key: Any) -> x509.Certificate:
    return made.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
