"""The doors that the configuration asks for, built and listening. Belongs to `main.py`, as `parts.py` does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Final

from sidecar.api import DecisionLog, Health, Server, Transports, peer_of
from sidecar.config import Config, host_and_port
from sidecar.decide import DecisionPath
from sidecar.enforce.envoy import ACCESS_LOG, AUTHORIZATION, EnvoyDoor, EnvoySettings
from sidecar.errors import UsageError
from sidecar.ledger import Ledger
from sidecar.parts import tls_of

log = logging.getLogger("sidecar.doors")

STOP_GRACE: Final = 5.0  # seconds for calls under way
_PREFIX: Final = "doors_envoy_"


def envoy_of(config: Config) -> EnvoySettings | None:
    """How the door for Envoy is set up, if there is one.

    Raises:
        UsageError: a setting without effect, or one by which somebody else could be taken for Envoy, or for us.
    """
    if not config.doors_envoy_gateway:
        _check_idle(config)
        return None
    unix = _address(config).startswith("unix:")
    _check_files(config, unix=unix)
    if unix:
        _check_socket(config)
    else:
        host_and_port("doors.envoy.listen", config.doors_envoy_listen)
    return EnvoySettings(
        config.doors_envoy_gateway,
        "socket" if unix else "mtls",
        config.doors_envoy_agent,
        config.doors_envoy_headers,
        config.doors_envoy_body_bytes,
    )


@contextlib.asynccontextmanager
async def envoy_listening(
    config: Config, settings: EnvoySettings, path: DecisionPath, ledger: Ledger, told: DecisionLog, health: Health
) -> AsyncIterator[Server]:
    """The door for Envoy, on a listener of its own. Raises UsageError where it cannot be had."""

    def trouble(cause: str) -> None:
        log.error("doors.envoy: %s", cause)

    tls = await asyncio.to_thread(tls_of, config.doors_envoy_spiffe_socket, _files(config), trouble, lambda: None)
    transports = Transports(tls.bundles) if tls else Transports()
    server = Server(
        EnvoyDoor(path, ledger, settings, transports.of, peer_of, told).handlers(),
        (AUTHORIZATION, ACCESS_LOG),
        _address(config),
        health,
        max_request_bytes=config.max_request_bytes,
        socket_mode=int(config.doors_envoy_socket_mode, 8),
        credentials=tls.credentials if tls else None,
    )
    try:
        log.info("Envoy is answered on %s", await server.start())
        try:
            yield server
        finally:
            await server.stop(STOP_GRACE)
    finally:
        if tls:
            tls.close()


def _address(config: Config) -> str:
    return config.doors_envoy_listen or f"unix:{Path(config.data_dir).absolute()}/envoy.sock"


def _files(config: Config) -> tuple[str, str, str]:
    return config.doors_envoy_tls_cert_file, config.doors_envoy_tls_key_file, config.doors_envoy_tls_client_ca_file


def _check_idle(config: Config) -> None:
    idle = [f.name for f in fields(config) if f.name.startswith(_PREFIX) and getattr(config, f.name) != f.default]
    if idle:
        raise UsageError(f"{idle[0]} is set, but doors.envoy.gateway is not: name the executor that Envoy is")


def _check_files(config: Config, *, unix: bool) -> None:
    files, workload = _files(config), bool(config.doors_envoy_spiffe_socket)
    if unix and (any(files) or workload):
        raise UsageError("doors.envoy: TLS is for listen on host:port, not on a unix socket; leave one of the two out")
    if not unix and (any(files) != all(files) or any(files) == workload):
        raise UsageError(
            "doors.envoy.listen is a port: set doors.envoy.spiffe_socket, or doors.envoy.tls_cert_file, tls_key_file "
            "and tls_client_ca_file, so that nobody else is taken for Envoy"
        )


def _check_socket(config: Config) -> None:
    if not re.fullmatch("0?[0-7][0-7]0", config.doors_envoy_socket_mode):
        raise UsageError(
            "doors.envoy.socket_mode must shut others out, as 0660 does: whoever opens the socket is Envoy"
        )
    directory = Path(_address(config).removeprefix("unix:")).parent
    try:
        mode = directory.stat().st_mode
    except OSError:
        return  # which the server says better
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise UsageError(
            f"doors.envoy.listen: anybody can write to {directory} and answer Envoy in the sidecar's place"
        )
