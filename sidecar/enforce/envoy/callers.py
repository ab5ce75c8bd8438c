"""Who is behind the gateway: the one agent of the configuration, or whose certificate the caller showed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.enforce.envoy.settings import EnvoySettings
from sidecar.enforce.envoy.v3 import ext_authz_pb2 as pb
from sidecar.errors import CallerUnproved, Malformed
from sidecar.identity import SpiffeId, Voucher

_MAX_CERTIFICATE = 32 * 1024  # characters, URL-encoded


def named(
    source: pb.AttributeContext.Peer, settings: EnvoySettings, holder: Callable[[str], str]
) -> tuple[str, Voucher]:
    """The agent, and what the gateway says of it. ``holder``: whose SPIFFE id it is.

    Raises:
        CallerUnproved: nobody can be named.
    """
    if settings.agent:
        return settings.agent, Voucher(settings.gateway, settings.proof)
    try:
        spiffe_id = str(SpiffeId.parse(source.principal))
    except Malformed:
        raise CallerUnproved(
            "source.principal: is no SPIFFE id; callers show Envoy a certificate with one", "no certificate"
        ) from None
    certificate = _fingerprint(source.certificate, spiffe_id) if source.certificate else ""
    return holder(spiffe_id), Voucher(settings.gateway, settings.proof, certificate, spiffe_id)


@lru_cache(maxsize=256)
def _fingerprint(certificate: str, spiffe_id: str) -> str:
    """SHA-256 of the leaf's DER, hex, if it has this SPIFFE id alone. Raises CallerUnproved."""
    try:
        if len(certificate) > _MAX_CERTIFICATE:
            raise ValueError("too long")
        leaf = x509.load_pem_x509_certificate(unquote_to_bytes(certificate))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except Exception:
        raise CallerUnproved("source.certificate: cannot be read", "certificate") from None
    if uris != [spiffe_id]:
        raise CallerUnproved("source.certificate: is of another principal than source.principal", "certificate")
    return sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
