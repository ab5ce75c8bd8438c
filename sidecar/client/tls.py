"""TLS towards a sidecar: what the guard shows, and how it knows the sidecar.

gRPC for Python compares the server's certificate with a DNS name or an address, never with a URI SAN. So a sidecar is
known by two things: its chain leads to the roots given here, or to those of its one trust domain, and its certificate
has the name `server_name`. A SPIRE entry gives that name with `-dns`; only who registers entries can give it away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from sidecar.client.material import NO_DOMAIN, FileSource, Material, Source, pem_of
from sidecar.client.workload import WorkloadSource
from sidecar.errors import UsageError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files, read again when they change: the agent's certificate and key ("" for none), the sidecar's CA.

    ``server_name`` is the DNS name the sidecar's certificate must have; "" is the host of its address.
    """

    cert: str
    key: str
    ca: str
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class TlsSpiffe:
    """The agent's SVID from the Workload API at ``socket``; the sidecar is of ``trust_domain`` and has ``server_name``.

    Each new SVID is taken at once: new calls go over a new connection. The first call waits for the first SVID.
    """

    socket: str
    trust_domain: str
    server_name: str


Tls = TlsFiles | TlsSpiffe


def check_tls(tls: Tls, address: str) -> None:
    """Raises UsageError for settings that cannot be meant."""
    if address.startswith("unix:"):
        raise UsageError("tls is for host:port; on a unix socket the file's mode says who may call")
    if isinstance(tls, TlsFiles) and not (tls.ca and bool(tls.cert) == bool(tls.key)):
        raise UsageError("TlsFiles needs ca, and cert and key together or neither")
    if isinstance(tls, TlsSpiffe) and not (tls.trust_domain and tls.server_name):
        raise UsageError("TlsSpiffe needs the sidecar's trust_domain and server_name, else any workload could be it")


def open_source(tls: Tls) -> Source[grpc.ChannelCredentials]:
    """Credentials that follow the material, once there is any: `wait` for it. Raises UsageError."""
    if isinstance(tls, TlsFiles):
        return FileSource((tls.cert, tls.key, tls.ca), _credentials(NO_DOMAIN))
    return WorkloadSource(tls.socket, _credentials(tls.trust_domain))


def _credentials(domain: str) -> Callable[[Material], grpc.ChannelCredentials]:
    def make(material: Material) -> grpc.ChannelCredentials:
        roots = material.roots.get(domain)
        if not roots:
            raise UsageError(f"there is no bundle of the sidecar's trust domain {domain!r}; federate with it")
        return grpc.ssl_channel_credentials(pem_of(roots), material.key or None, material.chain or None)

    return make
