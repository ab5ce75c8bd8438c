"""`sidecar collector check`: what somebody who holds no key of it sees of a collector. `helm test` asks it."""

from __future__ import annotations

import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from sidecar.chain import checkpoint, note
from sidecar.chain.printable import number_of
from sidecar.config import host_and_port
from sidecar.errors import Malformed, SignatureInvalid, UsageError
from sidecar.probe import ask

_SECONDS: Final = 5.0  # for each thing that is looked at
_CHECKPOINT_BYTES: Final = 65_536
_DAY: Final = 86_400


class _Wrong(Exception):
    """Something is not as it should be; the message says what."""


@click.command("check")
@click.argument("url")
@click.option("--origin", help="The log's name that is expected.")
@click.option("--log-key", metavar="VKEY", help="The log's key that is expected; it must have signed the checkpoint.")
@click.option("--address", metavar="HOST:PORT", help="Where sidecars ship to: look at the certificate shown there.")
@click.option("--tls-ca-file", type=click.Path(path_type=Path), help="Its CA. Default: those this machine knows.")
def check(url: str, origin: str | None, log_key: str | None, address: str | None, tls_ca_file: Path | None) -> None:
    """Look at a collector from outside: ready, the log that is expected, a good certificate.

    URL is http://host:port of its listener `web`. Exit: 0 all good; 1 something is not, and what; 2 usage.

    \b
    Example:
      sidecar collector check http://collector.audit.svc:7474 --origin log.example.org/fleet
    """
    if not url.startswith("http://"):
        raise UsageError(f"{url!r} is not http://host:port")
    if tls_ca_file is not None and address is None:
        raise UsageError("--tls-ca-file is for --address: name where sidecars ship to")
    expected = _key(log_key)
    looks: list[tuple[str, Callable[[], str]]] = [
        ("ready", lambda: _ready(url)),
        ("log", lambda: _log(url.rstrip("/") + "/checkpoint", origin, expected)),
    ]
    if address is not None:
        host, port = host_and_port("--address", address)
        looks.append(("certificate", lambda: _certificate(host, port, tls_ca_file)))
    failed = False
    for what, look in looks:
        try:
            mark, told = "✓", look()
        except _Wrong as wrong:
            mark, told, failed = "✗", str(wrong), True
        click.echo(f"{mark} {what:<12} {told}")
    sys.exit(failed)


def _key(vkey: str | None) -> note.VerifierKey | None:
    try:
        return None if vkey is None else note.parse_vkey(vkey)
    except Malformed as error:
        raise UsageError(f"--log-key: {error}") from None


def _ready(url: str) -> str:
    word = ask(url.rstrip("/"), live=False, timeout=_SECONDS)
    if not word.well:
        raise _Wrong(word.cause)
    return "what is shipped now is taken and logged"


def _log(url: str, origin: str | None, key: note.VerifierKey | None) -> str:
    data = _fetched(url)
    if data is None:
        return "nothing is in it yet"
    try:
        found = checkpoint.Checkpoint.parse(note.parse(data, max_size=_CHECKPOINT_BYTES).text)
        if key is not None:
            checkpoint.verify(data, key)
    except (Malformed, SignatureInvalid) as error:
        raise _Wrong(f"{url} is no checkpoint of that log: {error}") from None
    if origin is not None and found.origin != origin:
        raise _Wrong(f"it is the log {found.origin}, not {origin}")
    signed = "signed by the key given" if key is not None else "signature not checked: no --log-key"
    return f"{found.origin}, {number_of(found.size, 'entry', 'entries')}, {signed}"


def _fetched(url: str) -> bytes | None:
    """None: there is none."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310  # it begins with http://
            data: bytes = answer.read(_CHECKPOINT_BYTES)
            return data
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            return None
        raise _Wrong(f"{url} answers with status {error.code}") from None
    except OSError as error:
        raise _Wrong(f"{url}: {getattr(error, 'reason', error)}") from None


def _certificate(host: str, port: int, ca: Path | None) -> str:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot use the CA {ca}: {getattr(error, 'strerror', None) or error}") from None
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), _SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host) as shown,
        ):
            certificate = shown.getpeercert()
    except OSError as error:
        raise _Wrong(f"{host}:{port}: {getattr(error, 'verify_message', '') or error}") from None
    assert certificate is not None
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / _DAY
    return f"of {host}, good for {days:.1f} days"
