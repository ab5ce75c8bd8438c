"""The door's half of TLS: what it shows, and whose certificates PEPs must show; of files that may change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any, Final

from sidecar.client import Material, Source, pem_of
from sidecar.enforce.shown import newest, to_show
from sidecar.errors import UsageError
from sidecar.identity import Bundles

_DER: Final = 2  # _ssl.ENCODING_DER


@dataclass(frozen=True, slots=True)
class HttpHalf:
    """Made of one material."""

    context: ssl.SSLContext
    bundles: Bundles
    not_after: float  # of the certificate that it shows, seconds since 1970


def http_half(material: Material) -> HttpHalf:
    """TLS 1.2 and 1.3 with client certificates, without tickets: of a session that 1.2 resumes the whole chain is still
    here, and is judged as any.

    Raises:
        UsageError: there is no certificate, key or root.
    """
    roots = tuple(der for ders in material.roots.values() for der in ders)
    if not material.chain or not material.key or not roots:
        raise UsageError("doors.authzen: certificate, key and the roots of PEPs' certificates are needed")
    shows = to_show(material)
    context = shows.context
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=pem_of(roots).decode())
    except ssl.SSLError as error:
        raise UsageError(f"doors.authzen: OpenSSL does not take the certificates ({error.reason})") from None
    return HttpHalf(context, Bundles(material.roots), shows.not_after)


def listening(source: Source[HttpHalf]) -> ssl.SSLContext:
    """What a listener is given: each handshake is made with the newest."""
    return newest(lambda: source.current().context)


def shown(connection: Any) -> tuple[bytes, bytes]:
    """The peer's leaf, and the certificates it sent, in PEM; empty without any. ``connection``: an SSLObject."""
    leaf = connection.getpeercert(binary_form=True)
    if not leaf:
        return b"", b""
    public = getattr(connection, "get_unverified_chain", None)  # since Python 3.13
    if public is not None:
        return pem_of((leaf,)), pem_of(tuple(public()))
    sent = connection._sslobj.get_unverified_chain() or ()
    return pem_of((leaf,)), pem_of(tuple(each.public_bytes(_DER) for each in sent))
