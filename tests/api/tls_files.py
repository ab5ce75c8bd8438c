"""Certificates in files as an operator has them, the server's half of TLS made of those, and clients of it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from sidecar.api import Metrics, ServerTls, half
from sidecar.client import FileSource
from tests.authorities import CLIENT, SERVER, Authority, Issued

NAME = "sidecar.internal"


def server_certificate(authority: Authority, name: str = NAME) -> Issued:
    return authority.issue("spiffe://a/sidecar", dns=[name], purposes=[SERVER, CLIENT])


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files of one place."""

    place: Path
    said: list[str] = field(default_factory=list)

    @property
    def paths(self) -> tuple[str, str, str]:
        return tuple(str(self.place / name) for name in ("tls.crt", "tls.key", "ca.crt"))  # type: ignore[return-value]

    def write(self, shown: Issued, *roots: Authority) -> Files:
        chain, key, ca = map(Path, self.paths)
        chain.write_bytes(shown.chain)
        key.write_bytes(shown.key_pem)
        ca.write_bytes(b"".join(root.pem for root in roots))
        return self

    def spoil(self, which: int, content: bytes) -> None:
        Path(self.paths[which]).write_bytes(content)

    def server(self, metrics: Metrics | None = None) -> ServerTls:
        metrics = metrics or Metrics("test")

        def trouble(cause: str) -> None:
            self.said.append(cause)
            metrics.tls_fault()

        return ServerTls(FileSource(self.paths, half(mutual=True), trouble), metrics.tls_handshake)


def channel(address: str, authority: Authority, shown: Issued | None, name: str = NAME) -> grpc.aio.Channel:
    key, chain = (shown.key_pem, shown.chain) if shown else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
    options = [("grpc.ssl_target_name_override", name), ("grpc.enable_retries", 0)]
    return grpc.aio.secure_channel(address, credentials, options=options)


def handshake(
    address: str,
    place: Path,
    shown: Issued,
    *,
    version: ssl.TLSVersion | None = None,
    settle: Callable[[ssl.SSLContext], object] = lambda context: None,
) -> tuple[bytes, str | None]:
    """The certificate that a server shows now, in DER, and the version agreed on. Blocks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    settle(context)
    (place / "probe.pem").write_bytes(shown.chain + shown.key_pem)
    context.load_cert_chain(place / "probe.pem")
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain, context.wrap_socket(plain) as secured:
        return secured.getpeercert(binary_form=True) or b"", secured.version()
