"""Ports of loopback that nobody takes before the server that they are meant for, or while it is down.

They lie below those that the kernel hands out itself (ip(7), `ip_local_port_range`) and come from a block that is this
process's as long as it lives: another process of tests that begins finds the block's name taken.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

_FIRST, _BLOCK = 10_000, 100


def free_port() -> int:
    """One that nobody listens at now."""
    for port in itertools.islice(_block(), _BLOCK):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what is over does not count
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("all ports of the block are listened at")


def free_address() -> str:
    """Such a port as ``host:port``."""
    return f"127.0.0.1:{free_port()}"


@functools.cache
def _block() -> Iterator[int]:
    """The ports of this process's block, over and over."""
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for first in range(_FIRST, kernels - _BLOCK + 1, _BLOCK):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0decision-sidecar-tests/ports/{first}")
        except OSError:
            name.close()
        else:
            name.detach()  # it stays bound until the process ends
            return itertools.cycle(range(first, first + _BLOCK))
    raise AssertionError("every block of ports is another's")
