"""What a listener of HTTP/1.1 shows on TLS: the newest certificate and key of files that may change, and until when."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from sidecar.client import Material
from sidecar.errors import UsageError

ONLY: Final = "http/1.1"


@dataclass(frozen=True, slots=True)
class Shown:
    """Made of one material: what a handshake is made with. ``not_after``: when its certificate ends, in seconds since
    1970."""

    context: ssl.SSLContext
    not_after: float


def to_show(material: Material) -> Shown:
    """TLS 1.2 and 1.3 without tickets, and without asking for a certificate. Raises UsageError: OpenSSL takes neither
    the certificate nor its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([ONLY])
    try:
        _load(context, material)
    except ssl.SSLError as error:
        raise UsageError(f"OpenSSL does not take the certificate and its key ({error.reason})") from None
    leaf = x509.load_pem_x509_certificate(material.chain)
    return Shown(context, leaf.not_valid_after_utc.timestamp())


def newest(current: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """What a listener is given: each handshake is made with what ``current`` gives then."""

    def take(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = current()

    first = current()
    first.sni_callback = take  # called for peers that name no server, too
    return first


def _load(context: ssl.SSLContext, material: Material) -> None:
    """The key comes from memory: files may have changed since they were read, and were held against each other."""
    descriptor = os.memfd_create("key")
    try:
        for part in (material.key, b"\n", material.chain):
            os.write(descriptor, part)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
