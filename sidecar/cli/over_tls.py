"""The options of commands that call a sidecar over TLS."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from sidecar.cli.options import together
from sidecar.client import TlsFiles
from sidecar.errors import UsageError


def over_tls(command: Callable[..., None]) -> Callable[..., None]:
    """The options that make ``tls`` of a command."""

    @functools.wraps(command)
    def run(tls_ca: str, tls_cert: str, tls_key: str, tls_server_name: str, **rest: Any) -> None:
        if not tls_ca and (tls_cert or tls_key or tls_server_name):
            raise UsageError("--tls-ca is missing: name the CA under which the sidecar's certificate is")
        command(tls=TlsFiles(tls_cert, tls_key, tls_ca, tls_server_name) if tls_ca else None, **rest)

    return _options(run)


_options = together(
    click.option(
        "--tls-ca", metavar="FILE", default="", help="Call over TLS; the sidecar's certificate is under this CA."
    ),
    click.option("--tls-cert", metavar="FILE", default="", help="Certificate to show."),
    click.option("--tls-key", metavar="FILE", default="", help="Its private key."),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        default="",
        help="What the sidecar's certificate must be for. Default: the host in ADDR.",
    ),
)
