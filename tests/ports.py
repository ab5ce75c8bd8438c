"""Ports of loopback."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_address() -> str:
    """Such a port as ``host:port``."""
    return f"127.0.0.1:{free_port()}"
