"""Client certificates: whose they are, once the chain leads to the bundle of their own trust domain.

TLS has proved before that the peer holds the leaf's key, and that some root of ours vouches for it. That is not enough:
gRPC takes the roots of all trust domains at once, so the CA of one could mint the ids of another. Here the chain is
verified again (RFC 5280; X509-SVID specification, section 5) against one trust domain's bundle alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.errors import CallerUnproved, Malformed, UsageError
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.identity.transport import Certificate

MAX_LEAF = 8 * 1024  # bytes of PEM
MAX_INTERMEDIATES = 24 * 1024  # bytes of PEM, all together
MAX_DEPTH = 3  # certificates between leaf and root
PRIVATE: Final = ""
"""In place of a trust domain's name: a private CA, which vouches for whatever id it signs."""

Kind = TypeVar("Kind", bound=x509.ExtensionType)

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_ANY = verification.ExtensionPolicy.permit_all()
_CA = _ANY.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)


class Bundles:
    """The roots of each trust domain, or those of a private CA under `PRIVATE`; several roots where a CA is rotated."""

    def __init__(self, roots: Mapping[str, Iterable[bytes]]) -> None:
        """``roots``: certificates in DER. Raises UsageError for one that is none or may not sign others."""
        read = {domain: [_root(der) for der in ders] for domain, ders in roots.items()}
        self._stores = {domain: verification.Store(found) for domain, found in read.items() if found}

    def store_for(self, spiffe_id: SpiffeId | None) -> verification.Store:
        """The only roots that may vouch for this id. Raises CallerUnproved."""
        domain = spiffe_id.trust_domain if spiffe_id and PRIVATE not in self._stores else PRIVATE
        store = self._stores.get(domain)
        if store is None:
            raise _refused("is of no trust domain whose bundle is here; federate with it, or show another certificate")
        return store


@dataclass(frozen=True, slots=True)
class Verified:
    """``not_after``: when the first certificate of the chain ends."""

    certificate: Certificate
    not_after: datetime


def verify_chain(leaf: bytes, intermediates: bytes, bundles: Bundles, now: datetime) -> Verified:
    """What a peer's chain proves. ``leaf``, ``intermediates``: PEM, the latter in any order, maybe with the leaf.

    Raises:
        CallerUnproved: it proves nothing; says why, with nothing of the certificate's content.
    """
    shown = _parse(leaf, intermediates)
    subject = shown[0]
    try:
        spiffe_id = _checked(subject, now)
    except _UNREADABLE:
        raise _refused("has extensions that cannot be read; have it issued anew") from None
    chain = _chain(subject, shown[1:], bundles.store_for(spiffe_id), now)
    spki = subject.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    certificate = Certificate(subject.fingerprint(hashes.SHA256()), spki, str(spiffe_id or ""))
    return Verified(certificate, min(each.not_valid_after_utc for each in chain))


def _refused(why: str) -> CallerUnproved:
    return CallerUnproved(f"certificate: the client certificate {why}", "certificate")


def _parse(leaf: bytes, intermediates: bytes) -> list[x509.Certificate]:
    if len(leaf) > MAX_LEAF or len(intermediates) > MAX_INTERMEDIATES:
        raise _refused(f"chain is too long; {MAX_LEAF} bytes of leaf and {MAX_INTERMEDIATES} of the rest are allowed")
    if intermediates.count(_BEGIN) > MAX_DEPTH + 1:
        raise _refused(f"chain has too many certificates; {MAX_DEPTH} between leaf and root are allowed")
    try:
        first = x509.load_pem_x509_certificate(leaf)
        others = x509.load_pem_x509_certificates(intermediates) if intermediates else []
    except (*_UNREADABLE, x509.InvalidVersion):
        raise _refused("cannot be read; have it issued anew") from None
    return [first, *(each for each in others if each != first)]


def _checked(leaf: x509.Certificate, now: datetime) -> SpiffeId | None:
    """The leaf's id, once it is one that may be shown by a client now."""
    if now < leaf.not_valid_before_utc:
        raise _refused("is not valid yet; compare the clocks")
    if now >= leaf.not_valid_after_utc:
        raise _refused("has expired; show the renewed one")
    if not _usable(leaf.public_key()):
        raise _refused("has a key that is not RSA of 2048 to 8192 bits, NIST P-256 or P-384, or Ed25519")
    extensions = leaf.extensions
    _check_purpose(extensions)
    return _spiffe_id(extensions)


def _usable(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return 2048 <= key.key_size <= 8192
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _check_purpose(extensions: x509.Extensions) -> None:
    basic = _value(extensions, x509.BasicConstraints)
    usage = _value(extensions, x509.KeyUsage)
    if (basic and basic.ca) or (usage and (usage.key_cert_sign or usage.crl_sign)):
        raise _refused("is a CA's; show one that was issued to the client")
    if usage and not usage.digital_signature:
        raise _refused("may not sign; have it issued with the key usage digitalSignature")
    purposes = _value(extensions, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise _refused("is not for clients; have it issued with the extended key usage clientAuth")


def _spiffe_id(extensions: x509.Extensions) -> SpiffeId | None:
    names = _value(extensions, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if len(uris) > 1:
        raise _refused("has several URI SANs; a certificate names one workload")
    if not uris:
        return None
    try:
        found = SpiffeId.parse(uris[0])
    except Malformed as error:
        raise _refused(f"has a URI SAN that is no SPIFFE id: {error}") from None
    if not found.path:
        raise _refused("names a whole trust domain; a workload's SPIFFE id has a path")
    return found


def _value(extensions: x509.Extensions, kind: type[Kind]) -> Kind | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _chain(
    leaf: x509.Certificate, between: Sequence[x509.Certificate], store: verification.Store, now: datetime
) -> list[x509.Certificate]:
    builder = verification.PolicyBuilder().store(store).time(now).max_chain_depth(MAX_DEPTH)
    verifier = builder.extension_policies(ca_policy=_CA, ee_policy=_ANY).build_client_verifier()
    try:
        return verifier.verify(leaf, list(between)).chain
    except verification.VerificationError:
        raise _refused("does not lead to a root of its own trust domain, by certificates that are valid now") from None


def _root(der: bytes) -> x509.Certificate:
    try:
        root = x509.load_der_x509_certificate(der)
        basic = _value(root.extensions, x509.BasicConstraints)
    except (*_UNREADABLE, x509.InvalidVersion):
        raise UsageError("a CA certificate cannot be read") from None
    if basic is None or not basic.ca:
        raise UsageError("a certificate among the CA's is no CA's (basicConstraints); leave it out")
    return root
