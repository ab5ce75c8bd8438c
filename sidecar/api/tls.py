"""The sidecar's half of TLS: what it shows, whose certificates it takes, and both while they change.

gRPC asks for what is new at each handshake; a connection that stands is judged again by `Transports` at each call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import grpc
from cryptography import x509

from sidecar.client import Material, Source, pem_of
from sidecar.errors import UsageError
from sidecar.identity import Bundles


@dataclass(frozen=True, slots=True)
class Half:
    """Made of one material. ``bundles``: None where callers show no certificate; ``not_after``: of the server's own."""

    configuration: grpc.ServerCertificateConfiguration
    bundles: Bundles | None
    not_after: datetime


def half(*, mutual: bool) -> Callable[[Material], Half]:
    """What makes a half of material. ``mutual``: callers show certificates, so there must be roots to judge them by."""

    def make(material: Material) -> Half:
        if not material.chain or not material.key:
            raise UsageError("a server shows a certificate: it and its key are needed")
        roots = tuple(der for ders in material.roots.values() for der in ders) if mutual else ()
        if mutual and not roots:
            raise UsageError("there are no roots to judge callers' certificates by")
        configuration = grpc.ssl_server_certificate_configuration(
            [(material.key, material.chain)], root_certificates=pem_of(roots) or None
        )
        leaf = x509.load_pem_x509_certificate(material.chain)
        return Half(configuration, Bundles(material.roots) if mutual else None, leaf.not_valid_after_utc)

    return make


class ServerTls:
    """TLS 1.2 and 1.3, as gRPC has them. ``on_handshake`` is called on threads of gRPC's."""

    def __init__(self, source: Source[Half], on_handshake: Callable[[], object] = lambda: None) -> None:
        self._source, self._on_handshake = source, on_handshake
        self._lock = threading.Lock()
        self._given = first = source.current()
        self.credentials: Final = grpc.dynamic_ssl_server_credentials(
            first.configuration,
            self._newer,  # type: ignore[arg-type]  # None is "nothing new", which the stubs do not know
            require_client_authentication=first.bundles is not None,
        )

    def bundles(self) -> Bundles | None:
        """Who vouches for callers now; None where they show no certificate."""
        return self._source.current().bundles

    def not_after(self) -> float:
        """When the certificate that is shown ends, in seconds since 1970."""
        return self._source.current().not_after.timestamp()

    def close(self) -> None:
        """No more news."""
        self._source.close()

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """At each handshake, on a thread of gRPC's: what is new since the last, or None."""
        self._on_handshake()
        newest = self._source.current()
        with self._lock:
            if newest is self._given:
                return None
            self._given = newest
        return newest.configuration
