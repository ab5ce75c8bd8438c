"""The doors that the configuration asks for, built and listening; none is imported that it does not ask for.

Belongs to `main.py`, as `parts.py` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sidecar.api import DecisionLog, FailedHandshakes, Health, Metrics, Server, Transports, bound_unix, peer_of
from sidecar.config import Config, host_and_port
from sidecar.decide import DecisionPath
from sidecar.errors import UsageError
from sidecar.ledger import Ledger
from sidecar.parts import material_of, tls_of

if TYPE_CHECKING:
    from sidecar.enforce.authzen import AuthZenSettings
    from sidecar.enforce.envoy import EnvoySettings

log = logging.getLogger("sidecar.doors")

STOP_GRACE: Final = 5.0  # seconds for calls under way


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a door listens, as ``[doors.NAME]`` says it. ``who``: who comes through it, for messages."""

    config: Config
    name: str
    who: str

    def of(self, setting: str) -> Any:
        """A setting; "" where this door has none of the name."""
        return getattr(self.config, f"doors_{self.name}_{setting}", "")

    @property
    def address(self) -> str:
        """As gRPC has it: ``unix:PATH`` or ``host:port``."""
        return self.of("listen") or f"unix:{Path(self.config.data_dir).absolute()}/{self.name}.sock"

    @property
    def unix(self) -> bool:
        """Whether that is a unix socket: whoever opens it is the gateway."""
        return self.address.startswith("unix:")

    @property
    def path(self) -> Path:
        """Of the unix socket."""
        return Path(self.address.removeprefix("unix:"))

    @property
    def proof(self) -> str:
        """How the gateway is proved: ``gateway_proof`` of an entry."""
        return "socket" if self.unix else "mtls"

    @property
    def workload(self) -> str:
        """The SPIFFE Workload API's socket; "": none."""
        return str(self.of("spiffe_socket"))

    @property
    def files(self) -> tuple[str, str, str]:
        """PEM files of certificate, key and CA; "" where there is none."""
        return self.of("tls_cert_file"), self.of("tls_key_file"), self.of("tls_client_ca_file")

    def set_up(self) -> bool:
        """Whether there is such a door. Raises UsageError for a setting without effect, or one that lets others in."""
        if not self.of("gateway"):
            self._check_idle()
            return False
        self._check_files()
        if self.unix:
            self._check_socket()
        else:
            host_and_port(f"doors.{self.name}.listen", self.of("listen"))
        return True

    def changed(self) -> list[str]:
        """This door's settings that are not as they would be without a word."""
        ours = [field for field in fields(self.config) if field.name.startswith(f"doors_{self.name}_")]
        return [field.name for field in ours if getattr(self.config, field.name) != field.default]

    def _check_idle(self) -> None:
        if idle := self.changed():
            gateway = f"doors.{self.name}.gateway"
            raise UsageError(f"{idle[0]} is set, but {gateway} is not: name the executor that {self.who} is")

    def _check_files(self) -> None:
        files, workload, door = self.files, bool(self.workload), f"doors.{self.name}"
        if self.unix and (any(files) or workload):
            raise UsageError(f"{door}: TLS is for listen on host:port, not on a unix socket; leave one of the two out")
        if not self.unix and (any(files) != all(files) or any(files) == workload):
            raise UsageError(
                f"{door}.listen is a port: set {door}.spiffe_socket, or {door}.tls_cert_file, tls_key_file and "
                f"tls_client_ca_file, so that nobody else is taken for {self.who}"
            )

    def _check_socket(self) -> None:
        if not re.fullmatch("0?[0-7][0-7]0", self.of("socket_mode")):
            raise UsageError(
                f"doors.{self.name}.socket_mode must shut others out, as 0660 does: whoever opens the socket is "
                f"{self.who}"
            )
        directory = self.path.parent
        try:
            mode = directory.stat().st_mode
        except OSError:
            return  # which the server says better
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UsageError(
                f"doors.{self.name}.listen: anybody can write to {directory} and answer {self.who} in the sidecar's "
                "place"
            )


def _envoy(config: Config) -> Listener:
    return Listener(config, "envoy", "Envoy")


def _authzen(config: Config) -> Listener:
    return Listener(config, "authzen", "the PEP")


def listeners(config: Config) -> list[Listener]:
    """Those of the doors that are configured, whether they listen or not."""
    return [each for each in (_envoy(config), _authzen(config)) if each.of("gateway")]


def envoy_of(config: Config) -> EnvoySettings | None:
    """How the door for Envoy is set up, if there is one.

    Raises:
        UsageError: a setting without effect, or one by which somebody else could be taken for Envoy, or for us.
    """
    listener = _envoy(config)
    if not listener.set_up():
        return None
    from sidecar.enforce.envoy import EnvoySettings

    if listener.unix and "doors_envoy_connection_seconds" in listener.changed():
        raise UsageError("doors.envoy.connection_seconds is for listen on host:port; leave it out on a unix socket")
    return EnvoySettings(
        config.doors_envoy_gateway,
        listener.proof,
        config.doors_envoy_agent,
        config.doors_envoy_headers,
        config.doors_envoy_body_bytes,
        config.doors_envoy_connection_seconds,
    )


def authzen_of(config: Config) -> AuthZenSettings | None:
    """How the door for AuthZEN is set up, if there is one. Raises UsageError as `envoy_of`, or without aiohttp."""
    listener = _authzen(config)
    if not listener.set_up():
        return None
    try:
        import sidecar.enforce.authzen.http  # noqa: F401  # before anything is made
    except ImportError:
        raise UsageError("doors.authzen needs the extra authzen: pip install 'decision-sidecar[authzen]'") from None
    from sidecar.enforce.authzen import AuthZenSettings

    return AuthZenSettings(
        config.doors_authzen_gateway,
        listener.proof,
        config.doors_authzen_agent,
        config.doors_authzen_url,
        config.max_request_bytes,
        config.doors_authzen_context,
    )


@dataclass(frozen=True, slots=True)
class Behind:
    """What a door needs of the sidecar. ``handshakes``: those that failed at any port; ``shown``: told of each
    door that shows a certificate, and when that ends; ``stopping``: set where the end is asked for."""

    path: DecisionPath
    ledger: Ledger
    told: DecisionLog
    metrics: Metrics
    handshakes: FailedHandshakes
    shown: Callable[[str, Callable[[], float]], None]
    stopping: asyncio.Event

    def watch(self, door: str, ends: Callable[[], float]) -> None:
        """A door shows a certificate that ends then, in seconds since 1970."""
        self.metrics.watch_tls(ends, door)
        self.shown(door, ends)


@contextlib.asynccontextmanager
async def envoy_listening(
    config: Config, settings: EnvoySettings, behind: Behind, health: Health
) -> AsyncIterator[Server]:
    """The door for Envoy, on a listener of its own. Raises UsageError where it cannot be had."""
    from sidecar.enforce.envoy import ACCESS_LOG, AUTHORIZATION, EnvoyDoor

    listener = _envoy(config)
    _make_directory(listener)
    begun, stopping = behind.handshakes.begun, behind.stopping
    tls = await tls_of(listener.workload, listener.files, behind.metrics, begun, stopping, listener.name)
    if tls:
        behind.watch(listener.name, tls.not_after)
    transports = Transports(tls.bundles, ends=tls.not_after) if tls else Transports()
    server = Server(
        EnvoyDoor(behind.path, behind.ledger, settings, transports.of, peer_of, behind.told).handlers(),
        (AUTHORIZATION, ACCESS_LOG),
        listener.address,
        health,
        max_request_bytes=config.max_request_bytes,
        socket_mode=int(config.doors_envoy_socket_mode, 8),
        credentials=tls.credentials if tls else None,
        connection_seconds=settings.connection_seconds if tls else 0,
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


@contextlib.asynccontextmanager
async def authzen_listening(config: Config, settings: AuthZenSettings, behind: Behind) -> AsyncIterator[None]:
    """The door for AuthZEN, on a listener of its own. Raises UsageError where it cannot be had."""
    from sidecar.enforce.authzen import AuthZenDoor
    from sidecar.enforce.authzen.http import served
    from sidecar.enforce.authzen.tls import http_half, listening

    listener = _authzen(config)
    async with contextlib.AsyncExitStack() as stack:
        transports, tls = Transports(), None
        if not listener.unix:
            source = await material_of(
                listener.workload, listener.files, http_half, behind.metrics, behind.stopping, listener.name
            )
            stack.callback(source.close)
            behind.watch(listener.name, lambda: source.current().not_after)
            transports = Transports(lambda: source.current().bundles, ends=lambda: source.current().not_after)
            tls = listening(source)
        bound = stack.enter_context(_bound(listener))
        if listener.unix:
            stack.callback(listener.path.unlink, missing_ok=True)
        door = AuthZenDoor(behind.path, settings, transports.of, peer_of, behind.told)
        begun, failed = behind.metrics.tls_handshake, behind.handshakes.failed
        await stack.enter_async_context(served(door, bound, tls, begun=begun, failed=failed))
        at = listener.address if listener.unix else f"port {bound.getsockname()[1]}"
        log.info("AuthZEN is answered on %s", at)
        yield


def _make_directory(listener: Listener) -> None:
    """The one that the socket is to be in, where it is not there. Others may write a pod's volume, and not this."""
    if listener.unix:
        with contextlib.suppress(OSError):  # which the server says better
            listener.path.parent.mkdir(0o750)


def _bound(listener: Listener) -> socket.socket:
    """Raises UsageError where the address cannot be had."""
    if listener.unix:
        _make_directory(listener)
        return bound_unix(listener.path, int(listener.of("socket_mode"), 8))
    host, port = host_and_port(f"doors.{listener.name}.listen", listener.address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise UsageError(f"cannot listen on {listener.address}: {error.strerror or 'no such address'}") from None
