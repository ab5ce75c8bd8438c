"""Where the sidecar is, and how a channel to it behaves."""

from __future__ import annotations

import math
import os
import re
from urllib.parse import quote

from sidecar.errors import UsageError

# `unix:/path` (or a relative path), `name:port`, `1.2.3.4:port`, `[v6]:port`
_ADDRESS = re.compile(r"unix:[^\x00-\x1f\x7f]+|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.enable_retries", 0),  # the guard itself asks again, with the same bytes
    ("grpc.enable_http_proxy", 0),  # a proxy named in the environment must not stand between agent and sidecar
    ("grpc.service_config_disable_resolution", 1),  # nor may a name server set how calls behave
    ("grpc.initial_reconnect_backoff_ms", 100),  # a restarted sidecar is found again soon
    ("grpc.min_reconnect_backoff_ms", 2_000),  # what one try to connect may take: a busy machine needs more than 100
    ("grpc.max_reconnect_backoff_ms", 250),
]


def check_address(address: str) -> str:
    """The address, or UsageError when it is neither `unix:/path` nor `host:port`."""
    found = _ADDRESS.fullmatch(address)
    if not found or (found[2] is not None and not 0 < int(found[2]) < 65536):
        raise UsageError(f"sidecar address {address!r} is neither unix:/path nor host:port")
    return address


def dialled(address: str) -> str:
    """As gRPC takes it, to call or to listen at: a URI (RFC 3986), whose path has no space, `%`, `#` or `?` as such."""
    if not address.startswith("unix:"):
        return address
    return "unix:" + quote(os.fsencode(address.removeprefix("unix:")))


def check_timeout(seconds: float) -> float:
    """The timeout, or UsageError when it is not a finite number of seconds above 0."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"timeout {seconds!r} must be a finite number of seconds above 0")
    return seconds
