"""Putting the parts together: the only place, with `config.py`, that builds concrete parts and hands them down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar import __version__
from sidecar.api import DecisionLog, Metrics, Server, Services, scraped
from sidecar.chain.entry import EntryType
from sidecar.chain.seeds import Custodian, Custody, SealedShare
from sidecar.config import MIB, Config, host_and_port
from sidecar.custody import generate_custodian, load_authority, load_custodian, seal_shares
from sidecar.decide import DecisionPath, Limits, Settings, new_decision_id, policy_loaded
from sidecar.errors import LedgerError, SidecarError, UsageError
from sidecar.ledger import Draft, Ledger, Options, SystemClock, create, has_ledger
from sidecar.policy import STARTER_BUNDLE, Engine, OpaEngine, PolicyVersion, SupervisedOpa, WasmEngine, find_opa

log = logging.getLogger("sidecar")

READY_EVERY = 1.0  # seconds between two looks at engine and ledger
STOP_GRACE = 5.0  # seconds for calls under way when asked to stop


def wrap_seed(custody: Custody, chain_id: bytes, epoch: int, seed: bytes) -> list[SealedShare]:
    """A fresh epoch's seed, sealed for the chain's custodians."""
    return seal_shares(custody, chain_id, epoch, seed, os.urandom)


def read_file(path: Path, what: str) -> bytes:
    """A file named by the operator. Raises UsageError naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}") from None


def write_secret(path: Path, data: bytes) -> None:
    """A new file with mode 0600. Raises UsageError where one is already there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    parent = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(parent)  # a key that a power cut takes away cannot be had again
    finally:
        os.close(parent)


@dataclass(frozen=True, slots=True)
class Founded:
    """A new ledger: its chain id, and the custodian key that was made for want of one."""

    chain_id: bytes
    made_key: Path | None


def options_of(config: Config) -> Options:
    """The ledger's settings in a configuration."""
    return Options(
        segment_entries=config.segment_entries,
        segment_ns=int(config.segment_seconds * 1e9),
        max_bytes=config.ledger_max_mib * MIB,
        remember_ns=config.idempotency_seconds * 1_000_000_000,
        software=f"decision-sidecar {__version__}",
        development=config.dev,
        config=config.digest(),
    )


def found_ledger(config: Config) -> Founded:
    """Make a new ledger for the configured custodians, or, where none is named, for a key made beside it.

    Raises:
        UsageError: a key file that is not one, or a directory that cannot be used.
    """
    directory = Path(config.data_dir)
    custodians, made = _custodians(config), None
    if not custodians:
        made = directory.with_name(directory.name + ".custodian.pem")
        private, public = generate_custodian("x25519")
        write_secret(made, private)
        custodians = (load_custodian(public, "made-by-init"),)
    authority = load_authority(read_file(Path(config.authority), "authority key")) if config.authority else None
    try:
        chain_id = create(
            directory,
            identity=Ed25519PrivateKey.generate(),
            custody=Custody(config.custody_mode, custodians),
            authority=authority,
            log=None,
            retention=config.retention,
            wrap=wrap_seed,
            options=options_of(config),
            clock=SystemClock(),
        )
    except BaseException:
        if made is not None:
            made.unlink(missing_ok=True)
        raise
    return Founded(chain_id, made)


def _custodians(config: Config) -> tuple[Custodian, ...]:
    paths = [Path(p) for p in config.custodians]
    return tuple(load_custodian(read_file(p, "custodian key"), p.stem) for p in paths)


def build_engine(config: Config) -> Engine:
    """The configured policy engine. Raises UsageError or PolicyLoadError."""
    if config.engine == "opa" and config.opa:
        return OpaEngine(config.opa, config.entrypoint)
    if config.engine == "opa":
        if not config.policy:
            raise UsageError("engine opa needs --policy, to start OPA with, or --opa, where one runs; it has neither")
        return SupervisedOpa(find_opa(), Path(config.policy), config.entrypoint)
    return WasmEngine(_bundle(config), config.entrypoint)


def _bundle(config: Config) -> bytes:
    if not config.policy:
        return STARTER_BUNDLE.read_bytes()
    path = Path(config.policy)
    return _built(path, config.entrypoint) if path.is_dir() else read_file(path, "policy bundle")


def _built(directory: Path, entrypoint: str) -> bytes:
    """A directory of Rego, built into a bundle by the `opa` program."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "bundle.tar.gz")
        command = ["opa", "build", "-t", "wasm", "-e", entrypoint, "--ignore", "*_test.rego", "-o", str(out)]
        try:
            done = subprocess.run([*command, str(directory)], capture_output=True, text=True, timeout=120)
        except FileNotFoundError:
            raise UsageError(
                f"policy {directory} is a directory, which takes the opa program to build: install it, or give a bundle"
            ) from None
        except subprocess.TimeoutExpired:
            raise UsageError(f"policy {directory}: opa build did not finish in 120 s") from None
        if done.returncode != 0:
            first = (done.stderr.strip() or done.stdout.strip() or "opa build failed").splitlines()[0]
            raise UsageError(f"policy {directory} does not build: {first}")
        return out.read_bytes()


def settle_memory() -> None:
    """Take what start-up made out of the garbage collector's sight: it lives as long as the process.

    Otherwise each full collection walks all of it again, in the middle of decisions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class Sidecar:
    """A running sidecar. ``address`` is where it listens; ``failure`` why it had to stop, if it had to."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self.address = ""
        self.failure: LedgerError | None = None
        self._metrics = Metrics(__version__)
        self._log = DecisionLog(self._metrics)
        self._announced: PolicyVersion | None = None

    def stop(self) -> None:
        """Ask for an orderly end: drain, CLOSE, seal."""
        self._stop.set()

    async def run(self, started: Callable[[str], None]) -> None:
        """Serve until stopped; ``started`` is told the address once decisions are answered.

        Raises:
            SidecarError: it could not start, or the ledger failed.
        """
        async with contextlib.AsyncExitStack() as stack:
            engine = build_engine(self._config)
            stack.push_async_callback(engine.close)
            ledger = self._open_ledger()
            stack.callback(ledger.close)
            self._metrics.attach(ledger, engine)
            await self._show_metrics(stack)
            await _trouble(engine, ledger)  # a running OPA tells its version with its first answer
            await self._announce(engine, ledger)
            path = DecisionPath(engine, ledger, self._settings(), new_id=new_decision_id, observer=self._log)
            stack.push_async_callback(self._last_words, path)  # after the server took its last call
            server = await stack.enter_async_context(self._listening(path, ledger))
            await self._watch(server, engine, ledger, path, started)
        if self.failure is not None:
            raise self.failure

    async def _announce(self, engine: Engine, ledger: Ledger) -> None:
        """A POLICY entry whenever another policy than before is in force."""
        if engine.version != self._announced:
            await ledger.record(Draft(EntryType.POLICY, policy_loaded(engine.version)))
            self._announced = engine.version

    def _open_ledger(self) -> Ledger:
        loop = asyncio.get_running_loop()

        def on_failure(error: LedgerError) -> None:
            loop.call_soon_threadsafe(self._failed, error)

        return Ledger.open(
            Path(self._config.data_dir),
            wrap=wrap_seed,
            options=options_of(self._config),
            clock=SystemClock(),
            on_failure=on_failure,
            on_commit=self._metrics.committed,
        )

    async def _show_metrics(self, stack: contextlib.AsyncExitStack) -> None:
        if self._config.metrics:
            host, port = host_and_port("metrics", self._config.metrics)
            log.info("metrics are on %s", await stack.enter_async_context(scraped(self._metrics.page, host, port)))

    def _failed(self, error: LedgerError) -> None:
        log.critical("the ledger failed, no more answers: %s", error)
        self.failure = error
        self._stop.set()

    def _settings(self) -> Settings:
        return Settings(
            development=self._config.dev,
            evaluate_timeout=self._config.evaluate_timeout,
            limits=Limits(self._config.max_request_bytes),
        )

    @contextlib.asynccontextmanager
    async def _listening(self, path: DecisionPath, ledger: Ledger) -> AsyncIterator[Server]:
        server = Server(
            Services(path, ledger, self._log),
            self._config.listen,
            max_request_bytes=self._config.max_request_bytes,
            socket_mode=int(self._config.socket_mode, 8),
        )
        self.address = await server.start()
        try:
            yield server
        finally:
            await server.stop(STOP_GRACE)

    async def _watch(
        self, server: Server, engine: Engine, ledger: Ledger, path: DecisionPath, started: Callable[[str], None]
    ) -> None:
        told = False
        while not self._stop.is_set():
            trouble = await _trouble(engine, ledger)
            await server.set_ready(trouble is None)
            self._metrics.set_ready(trouble is None)
            with contextlib.suppress(SidecarError):
                await self._announce(engine, ledger)
            if trouble is not None:
                log.warning("not ready: %s", trouble)
            elif not told:
                told = True
                settle_memory()
                started(self.address)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READY_EVERY):
                    await self._stop.wait()
            with contextlib.suppress(SidecarError):
                await path.record_remainder()
            self._log.settle()
        self._metrics.set_ready(False)

    async def _last_words(self, path: DecisionPath) -> None:
        with contextlib.suppress(SidecarError):
            await path.record_remainder(everything=True)
        self._log.settle(everything=True)


async def _trouble(engine: Engine, ledger: Ledger) -> SidecarError | None:
    """Why no decision can be made now, or None."""
    try:
        await engine.ready()
        ledger.check_writable()
    except SidecarError as error:
        return error
    return None


def serve(config: Config, *, init: bool, started: Callable[[str], None]) -> None:
    """Run a sidecar until SIGTERM or SIGINT.

    Raises:
        SidecarError: it could not start, or had to stop.
    """
    import uvloop

    if init and not has_ledger(Path(config.data_dir)):
        made = found_ledger(config).made_key
        if made is not None:
            log.warning("no custodian was named, so one was made: %s; move it off this host", made)
    uvloop.run(_run(config, started))


async def _run(config: Config, started: Callable[[str], None]) -> None:
    sidecar = Sidecar(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sidecar.stop)
    await sidecar.run(started)
