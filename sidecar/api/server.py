"""The gRPC server: the services, health and reflection, on a unix socket or a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidecar.api.health import Health, HealthService
from sidecar.client import dialled
from sidecar.errors import UsageError

log = logging.getLogger("sidecar")

_CANCELLING = 5.0  # seconds for calls that did not end in time to hear that they are cancelled
_LONGEST_PATH = 107  # bytes (unix(7), sun_path, without the NUL at its end)
_MOST_CONNECTIONS = 4096
_SEVERAL = 64 * 1024  # bytes: what several questions of a stream may have in one message, whatever the limit of one
_TRANSPORT_FACTOR = 4  # what a little exceeds the limit is refused by us, by field; what grossly exceeds it, by gRPC


class Server:
    """One listening server, of the services ``names``. ``address``: ``unix:/path`` or ``host:port``; ``socket_mode`` as
    for chmod.

    ``told``: whether the sidecar is ready. ``credentials`` are for TLS on a port; without them the port is plain.
    ``connection_seconds``: after so many the peer is asked to make new calls on a new connection, and those under way
    go on; 0: never.
    """

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        names: Sequence[str],
        address: str,
        told: Health,
        *,
        max_request_bytes: int,
        socket_mode: int,
        credentials: grpc.ServerCredentials | None = None,
        connection_seconds: float = 0,
    ) -> None:
        self._credentials = credentials
        self._address = address
        self._socket_mode = socket_mode
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max(_SEVERAL, _TRANSPORT_FACTOR * max_request_bytes)),
                ("grpc.so_reuseport", 0),  # a second sidecar on the port must fail, not share it
                ("grpc.max_concurrent_streams", 1024),
                ("grpc.max_allowed_incoming_connections", _connections()),
                *([("grpc.max_connection_age_ms", int(connection_seconds * 1000))] if connection_seconds else []),
            ],
        )
        self._health = HealthService(told, tuple(names))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._server.add_generic_rpc_handlers(tuple(handlers))

    async def start(self) -> str:
        """Listen; gives the address in use (a port 0 becomes the one that was had).

        Raises:
            UsageError: the address cannot be had.
        """
        unix = _unix_path(self._address)
        if unix is not None:
            claim(unix)
        mask = os.umask(0o177)  # until its mode is set, the socket is the owner's alone
        try:
            port = self._add_port()
        except RuntimeError as error:
            raise UsageError(
                f"cannot listen on {self._address}: it is in use or not an address of this host"
            ) from error
        finally:
            os.umask(mask)
        await self.show_health()
        await self._server.start()
        if unix is None:
            return f"{self._address.rpartition(':')[0]}:{port}"
        unix.chmod(self._socket_mode)
        return self._address

    def _add_port(self) -> int:
        address = dialled(self._address)
        if self._credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self._credentials)

    async def show_health(self) -> None:
        """Tell those who watch its health what was found."""
        await self._health.show()

    async def stop(self, grace: float) -> None:
        """Take no more calls, let those under way finish within ``grace`` seconds, and leave no socket behind."""
        try:
            async with asyncio.timeout(grace + _CANCELLING):
                await self._server.stop(grace)
        except TimeoutError:
            log.error("gRPC does not end its calls; the sidecar ends without it")
        unix = _unix_path(self._address)
        if unix is not None:
            with contextlib.suppress(OSError):  # on a disk that failed it stays, and the next start takes it away
                unix.unlink(missing_ok=True)


def _connections() -> int:
    """How many callers' connections one server takes. Had they all files that may be open, no registry could be read:
    an agent could hold on to what it is about to lose. A quarter for callers, one for a door, half for the process.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, files // 4)


def _unix_path(address: str) -> Path | None:
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None


def claim(path: Path) -> None:
    """Take away a dead socket. Raises UsageError where somebody answers, or something else is in the way."""
    if (length := len(os.fsencode(path))) > _LONGEST_PATH:
        raise UsageError(f"cannot listen on unix:{path}: it has {length} bytes, a unix socket at most {_LONGEST_PATH}")
    if not path.parent.is_dir():
        raise UsageError(f"cannot listen on unix:{path}: its directory does not exist")
    if not path.is_socket():
        if path.exists():
            raise UsageError(f"cannot listen on unix:{path}: a file that is not a socket is in the way")
        return
    if answers(path):
        raise UsageError(f"cannot listen on unix:{path}: another process listens there")
    path.unlink()


def bound_unix(path: Path, mode: int) -> socket.socket:
    """A unix socket at ``path``, with this mode. Raises UsageError where it cannot be had, as `claim` does."""
    claim(path)
    bound = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)  # until its mode is set, the socket is the owner's alone
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise UsageError(f"cannot listen on unix:{path}: {error.strerror or error}") from None
    finally:
        os.umask(mask)
    path.chmod(mode)
    return bound


def answers(path: Path) -> bool:
    """Whether somebody takes connections on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
