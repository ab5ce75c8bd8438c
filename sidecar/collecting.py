"""Putting a collector together, and running it. Belongs to `main.py`: see there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sidecar import __version__
from sidecar.anchor import Chaser, Door
from sidecar.anchoring import Anchors, ask_first
from sidecar.api import Health, ServerTls, Transports, half
from sidecar.chain import note
from sidecar.client import FileSource, WorkloadSource
from sidecar.collector import FleetLog, published
from sidecar.collector.alarms import Alarms
from sidecar.collector.grpc import Server, Service
from sidecar.collector.index import open_sqlite
from sidecar.collector.index.sql import SqlIndex
from sidecar.collector.ingest import Ingest, Rules
from sidecar.collector.proofs import Proofs
from sidecar.collector.pruning import kept_longer
from sidecar.collector.readiness import Readiness, follow
from sidecar.collector.runs import Runs
from sidecar.collector.sequencer import Sequencer
from sidecar.collector.storage import FileStorage, Storage
from sidecar.collector.store_format import of_this_format
from sidecar.collector.watch import METRICS_TYPE, Around, find_silent, metrics
from sidecar.collector_config import Collecting
from sidecar.config import host_and_port, read_file, write_secret
from sidecar.ending import Stopped, first
from sidecar.errors import LogRefused, SidecarError, StorageError, UsageError
from sidecar.files import allow_many
from sidecar.web import TEXT, Found, browsed

log = logging.getLogger("sidecar.collector")

LOG_KEY_FILE = "log.vkey"  # the log's verifier key, for those who pin it
_TICK = 1.0  # seconds between two looks for silence
_BROWSERS = 64


# --- parts


def log_key(config: Collecting) -> Ed25519PrivateKey:
    """The log's key; made in the data directory where none is named and none is there. Raises UsageError."""
    path = Path(config.key_file) if config.key_file else Path(config.data_dir) / "log-key.pem"
    if not config.key_file and not path.exists():
        if (path.parent / LOG_KEY_FILE).exists():
            raise UsageError(f"{path} is gone, and there is a log signed by it: put it back")
        key = Ed25519PrivateKey.generate()
        write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return key
    try:
        found = load_pem_private_key(read_file(path, "the log's key"), None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, Ed25519PrivateKey):
        raise UsageError(f"{path} holds no Ed25519 private key in PEM")
    return found


def open_storage(config: Collecting, *, alone: bool = False) -> Storage:
    """Where objects come to rest. ``alone``: no other process writes there. Raises UsageError, StorageError."""
    if config.storage == "files":
        return of_this_format(FileStorage(Path(config.data_dir) / "store", alone=alone), mark=alone)
    try:
        from sidecar.collector.storage.s3 import Bucket, S3Storage
    except ImportError:
        raise UsageError("storage s3 needs the extra s3: pip install 'decision-sidecar[s3]'") from None
    where = Bucket(config.s3_bucket, config.s3_endpoint or None, config.s3_region or None, config.s3_prefix)
    return of_this_format(S3Storage(where), mark=alone)


def open_index(config: Collecting) -> SqlIndex:
    """The index. Raises UsageError, StorageError."""
    if config.index == "sqlite":
        return open_sqlite(Path(config.data_dir) / "index.db")
    try:
        from sidecar.collector.index.postgres import open_postgres
    except ImportError:
        raise UsageError("index postgres needs the extra postgres: pip install 'decision-sidecar[postgres]'") from None
    try:
        address = read_file(Path(config.postgres_file), "the connection string").decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"postgres_file {config.postgres_file} is not text: it holds libpq's connection string"
        ) from None
    return open_postgres(address.strip())


def keep_until(config: Collecting) -> int | None:
    """Until when what is stored now cannot be removed; None: it can."""
    return int(time.time()) + config.retention_days * 86_400 if config.retention_days else None


def verifier_key(config: Collecting) -> str:
    """The log's public key as a verifier pins it."""
    return str(note.VerifierKey(config.name, log_key(config).public_key().public_bytes_raw()))


# --- running


class Collector:
    """A running collector. ``address`` and ``url`` are where it listens; ``failure`` why it had to stop."""

    def __init__(self, config: Collecting) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._health = Health()
        self._parts: _Parts | None = None
        self._tls: ServerTls | None = None
        self.address = self.url = ""
        self.failure: SidecarError | None = None

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stop.set()

    async def run(self, started: Callable[[Collector], None]) -> None:
        """Serve until stopped. Raises SidecarError."""
        with contextlib.suppress(Stopped):
            await self._serve(started)
        if self.failure is not None:
            raise self.failure

    async def _serve(self, started: Callable[[Collector], None]) -> None:
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            host, port = host_and_port("web", self._config.web)
            self.url = await stack.enter_async_context(browsed(self._look, host, port, "the log", _BROWSERS))
            self._health.starts("index, objects and log are being opened")
            parts = await asyncio.to_thread(self._build, loop, stack)
            stack.callback(parts.close)
            self._parts = parts
            self._health.starts("its certificate is waited for")
            self._tls = tls = await _tls(self._config, self._stop)
            if tls is not None:
                stack.callback(tls.close)
                parts.readiness.ends = tls.not_after
            transports = Transports(tls.bundles, ends=tls.not_after) if tls is not None else None
            server = Server(
                Service(parts.ingest, parts.proofs, functools.partial(_who, transports)),
                self._config.listen,
                tls.credentials if tls is not None else None,
            )
            self.address = await server.start()
            stack.push_async_callback(server.stop)
            opening = asyncio.create_task(asyncio.to_thread(parts.open_all))
            started(self)
            looking = asyncio.create_task(follow(parts.readiness, self._health.found))
            try:
                await self._watch(parts)
            finally:
                looking.cancel()
            self._health.found("it stops")
            await opening

    async def _look(self, path: str) -> Found | None:
        """What is shown over HTTP: health, and once there is something of it the log and its metrics."""
        told = self._health.page(path)
        if told is not None:
            return Found(told[1], TEXT, told[0])
        if self._parts is None:
            return None
        return self._metrics(self._parts) if path == "/metrics" else await self._parts.look(path)

    def _metrics(self, parts: _Parts) -> Found:
        disk = os.statvfs(self._config.data_dir)
        end = None if self._tls is None else self._tls.not_after()
        around = Around(__version__, not self._health.cause, disk.f_bavail * disk.f_frsize, end)
        page = metrics(parts.ingest, parts.sequencer, parts.alarms, parts.chasers, around, time.time_ns())
        return Found(page, METRICS_TYPE)

    async def _watch(self, parts: _Parts) -> None:
        silence = int(self._config.silence_seconds * 1e9)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_TICK, self._config.silence_seconds)):
                    await self._stop.wait()
            await asyncio.to_thread(find_silent, parts.ingest, parts.alarms, time.time_ns(), silence)

    def _failed(self, loop: asyncio.AbstractEventLoop, error: LogRefused) -> None:
        self.failure = error
        loop.call_soon_threadsafe(self._stop.set)

    def _build(self, loop: asyncio.AbstractEventLoop, stack: contextlib.AsyncExitStack) -> _Parts:
        config = self._config
        Path(config.data_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        key = log_key(config)
        storage, index = open_storage(config, alone=True), open_index(config)
        (Path(config.data_dir) / LOG_KEY_FILE).write_text(f"{verifier_key(config)}\n")
        stack.callback(index.close)
        kept = functools.partial(keep_until, config)
        fleet = FleetLog(storage, index, config.name, key, keep_until=kept)
        ask_first(config, fleet, key)
        anchors: list[Anchors] = []

        def offer(signed: bytes) -> None:
            for each in anchors:
                each.offer(signed)

        sequencer = Sequencer(
            fleet,
            storage,
            index,
            roll_seconds=config.roll_call_seconds,
            now=time.time_ns,
            on_refused=functools.partial(self._failed, loop),
            on_signed=offer,
        )
        proofs = Proofs(sequencer, index, len(config.witnesses))

        def behind(error: LogRefused) -> None:
            sequencer.refuse(error)
            self._failed(loop, error)

        anchors.append(Anchors(config, fleet, proofs, behind))
        if fleet.signed:
            offer(fleet.signed)
        webhook = Door(config.webhook) if config.webhook else None
        alarms = Alarms(index, config.name, key, webhook, time.time_ns)
        rules = Rules(config.enrol_spiffe, config.dev)
        runs = Runs(storage, kept, lambda chain: kept_longer(chain, int(time.time()), kept()))
        ingest = Ingest(runs, index, sequencer, alarms, rules, config.name, key, time.time_ns)
        readiness = Readiness(index, storage, sequencer)
        return _Parts(storage, sequencer, proofs, alarms, ingest, anchors[0].all, readiness)


@dataclass(frozen=True, slots=True)
class _Parts:
    storage: Storage
    sequencer: Sequencer
    proofs: Proofs
    alarms: Alarms
    ingest: Ingest
    chasers: list[Chaser[Any]]
    readiness: Readiness

    async def look(self, path: str) -> Found | None:
        """What is shown of the log over HTTP, as tlog-tiles says."""
        signed = self.sequencer.fleet.signed
        with contextlib.suppress(StorageError):
            found = await asyncio.to_thread(published, self.storage, signed, path.removeprefix("/"))
            return None if found is None else Found(*found)
        return None

    def open_all(self) -> None:
        """See `Ingest.open_all`; what cannot be read is said, and read again when its sidecar calls."""
        try:
            self.ingest.open_all()
        except SidecarError as error:
            log.error("cannot look at every chain: %s", error)
        self.readiness.opened = True

    def close(self) -> None:
        """Log what waits, then let go."""
        self.sequencer.close()
        for chaser in self.chasers:
            chaser.close()
        self.alarms.close()


async def _tls(config: Collecting, stopping: asyncio.Event) -> ServerTls | None:
    def trouble(cause: str) -> None:
        log.error("%s", cause)

    if config.spiffe_socket:
        return ServerTls(await first(WorkloadSource(config.spiffe_socket, half(mutual=True), trouble), stopping))
    if config.tls_cert_file:
        files = (config.tls_cert_file, config.tls_key_file, config.tls_client_ca_file)
        return ServerTls(FileSource(files, half(mutual=bool(config.tls_client_ca_file)), trouble))
    return None


def _who(transports: Transports | None, context: Any) -> str:
    if transports is None:
        return ""
    certificate = transports.of(context).certificate
    return certificate.spiffe_id if certificate is not None else ""


def collect(config: Collecting, started: Callable[[Collector], None]) -> None:
    """Run a collector until SIGTERM or SIGINT. Raises SidecarError."""
    allow_many()
    asyncio.run(_run(config, started))


async def _run(config: Collecting, started: Callable[[Collector], None]) -> None:
    collector = Collector(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, collector.stop)
    await collector.run(started)
