"""Putting the parts together: the only place, with `config.py`, that builds concrete parts and hands them down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar import __version__, erasing
from sidecar.api import NAMES, DecisionLog, FailedHandshakes, Metrics, Server, Services, Transports, scraped
from sidecar.chain.acts import AcceptLoss
from sidecar.chain.seeds import Custodian, Custody, SealedShare
from sidecar.config import MIB, Config, host_and_port, read_file, write_secret
from sidecar.custody import generate_custodian, load_authority, load_custodian, seal_shares
from sidecar.decide import DecisionPath, InForce, Limits, Settings, new_decision_id
from sidecar.doors import envoy_listening, envoy_of
from sidecar.errors import LedgerError, SidecarError
from sidecar.ledger import Keep, Ledger, Left, Options, SystemClock, create, has_ledger
from sidecar.parts import Policies, check_provable, in_force_of, registry_follower, server_tls
from sidecar.policy import Switch
from sidecar.shipping import Shipping

log = logging.getLogger("sidecar")

Overhear = Callable[[Callable[[bytes], None]], None]

READY_EVERY = 1.0  # seconds between two looks at engine and ledger
STOP_GRACE = 5.0  # seconds for calls under way when asked to stop


def wrap_seed(custody: Custody, chain_id: bytes, epoch: int, seed: bytes) -> list[SealedShare]:
    """A fresh epoch's seed, sealed for the chain's custodians."""
    return seal_shares(custody, chain_id, epoch, seed, os.urandom)


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
        keep=Keep(int(config.ledger_keep_seconds * 1e9), config.ledger_keep_mib * MIB),
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


class _Looked(Exception):
    """The ledger was looked at, and nothing more is wanted of it."""


def what_was_lost(config: Config, reason: str) -> AcceptLoss:
    """What the authority would have to accept for the configured ledger to go on; nothing is changed.

    Raises:
        UsageError: nothing was lost, or the collector cannot be asked. LedgerError: the ledger cannot be read.
    """
    shipping = Shipping(config)
    found: list[AcceptLoss] = []

    def look(left: Left) -> bool:
        found.append(shipping.lost(left, reason))
        raise _Looked

    with contextlib.suppress(_Looked):
        Ledger.open(
            Path(config.data_dir), wrap=wrap_seed, options=options_of(config), clock=SystemClock(),
            on_failure=lambda _: None, confirm=look,
        )  # fmt: skip
    return found[0]


def _custodians(config: Config) -> tuple[Custodian, ...]:
    paths = [Path(p) for p in config.custodians]
    return tuple(load_custodian(read_file(p, "custodian key"), p.stem) for p in paths)


def settle_memory() -> None:
    """Take what start-up made out of the garbage collector's sight: it lives as long as the process.

    Otherwise each full collection walks all of it again, in the middle of decisions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class Sidecar:
    """A running sidecar. ``address`` is where it listens; ``failure`` why it had to stop, if it had to."""

    def __init__(self, config: Config, overhear: Overhear | None = None) -> None:
        """``overhear``: who says what gRPC says of TLS handshakes that fail; without it they are recorded nowhere."""
        self._config, self._overhear = config, overhear
        self._stop = asyncio.Event()
        self.address = ""
        self.failure: LedgerError | None = None
        self._metrics = Metrics(__version__)
        self._log = DecisionLog(self._metrics)
        self._erasing: erasing.Erasing | None = None
        self._envoy = envoy_of(config)

    def stop(self) -> None:
        """Ask for an orderly end: drain, CLOSE, seal."""
        self._stop.set()

    async def run(self, started: Callable[[str], None]) -> None:
        """Serve until stopped; ``started`` is told the address once decisions are answered.

        Raises:
            SidecarError: it could not start, or the ledger failed.
        """
        async with contextlib.AsyncExitStack() as stack:
            shipping = await asyncio.to_thread(Shipping, self._config)
            ledger = await asyncio.to_thread(self._open_ledger, asyncio.get_running_loop(), shipping)
            stack.callback(ledger.close)
            self._erasing = await asyncio.to_thread(erasing.of, self._config, ledger)
            self._ship(stack, ledger, shipping)
            switch = Switch(self._config.engine, self._config.entrypoint)
            stack.push_async_callback(switch.close)
            self._metrics.attach(ledger, switch)
            await self._show_metrics(stack)
            in_force = in_force_of(self._config, switch, ledger, shipping.check)
            await self._know_principals(stack, in_force)
            following = await Policies(self._config, switch, in_force, ledger, self._metrics).begin()
            if following is not None:
                stack.push_async_callback(_ended, following)
            path = DecisionPath(switch, in_force, ledger, self._settings(), new_id=new_decision_id, observer=self._log)
            self._metrics.watch_approvals(path.approvals.__len__)
            stack.push_async_callback(self._last_words, path)  # after the server took its last call
            servers = [await stack.enter_async_context(self._listening(path, ledger))]
            if self._envoy is not None:
                door = envoy_listening(self._config, self._envoy, path, ledger, self._log)
                servers.append(await stack.enter_async_context(door))
            await self._watch(servers, switch, in_force, ledger, path, started)
        if self.failure is not None:
            raise self.failure

    def _ship(self, stack: contextlib.AsyncExitStack, ledger: Ledger, shipping: Shipping) -> None:
        loop = asyncio.get_running_loop()

        def on_failure(error: LedgerError) -> None:
            loop.call_soon_threadsafe(self._failed, error)

        shipping.begin(ledger, on_failure)
        stack.callback(lambda: shipping.end(ledger, failed=self.failure is not None))
        if shipping.watched:
            self._metrics.watch_shipping(shipping)

    def _open_ledger(self, loop: asyncio.AbstractEventLoop, shipping: Shipping) -> Ledger:
        def on_failure(error: LedgerError) -> None:
            loop.call_soon_threadsafe(self._failed, error)

        return Ledger.open(
            Path(self._config.data_dir),
            wrap=wrap_seed,
            options=options_of(self._config),
            clock=SystemClock(),
            on_failure=on_failure,
            on_commit=self._metrics.committed,
            confirm=shipping.confirm,
        )

    async def _show_metrics(self, stack: contextlib.AsyncExitStack) -> None:
        if self._config.metrics:
            host, port = host_and_port("metrics", self._config.metrics)
            log.info("metrics are on %s", await stack.enter_async_context(scraped(self._metrics.page, host, port)))

    async def _know_principals(self, stack: contextlib.AsyncExitStack, in_force: InForce) -> None:
        """Before any policy decides: who may ask at all, where a file says it."""
        follower = registry_follower(self._config, in_force, self._metrics)
        if follower is not None:
            await follower.first()
            stack.push_async_callback(_ended, asyncio.create_task(follower.follow()))

    def _failed(self, error: LedgerError) -> None:
        log.critical("the ledger failed, no more answers: %s", error)
        self.failure = error
        self._stop.set()

    def _settings(self) -> Settings:
        return Settings(
            development=self._config.dev,
            evaluate_timeout=self._config.evaluate_timeout,
            enforced=self._config.enforcement == "enforce",
            limits=Limits(self._config.max_request_bytes),
            require=self._config.require,
            signature_window=self._config.signature_window,
            permit_seconds=self._config.permit_seconds,
            approval_seconds=self._config.approval_seconds,
        )

    @contextlib.asynccontextmanager
    async def _listening(self, path: DecisionPath, ledger: Ledger) -> AsyncIterator[Server]:
        failed = FailedHandshakes(path, self._metrics.handshake_failed)
        if self._overhear is not None:
            self._overhear(failed.told)
        # The SPIFFE agent may take its time.
        tls = await asyncio.to_thread(server_tls, self._config, self._metrics, failed.begun)
        server = Server(
            Services(path, ledger, self._log, Transports(tls.bundles) if tls else None).handlers(),
            NAMES,
            self._config.listen,
            max_request_bytes=self._config.max_request_bytes,
            socket_mode=int(self._config.socket_mode, 8),
            credentials=tls.credentials if tls else None,
        )
        try:
            self.address = await server.start()
            try:
                yield server
            finally:
                path.approvals.end_watches()
                await server.stop(STOP_GRACE)
                await failed.settled()
        finally:
            if tls:
                tls.close()

    async def _watch(
        self,
        servers: Sequence[Server],
        switch: Switch,
        in_force: InForce,
        ledger: Ledger,
        path: DecisionPath,
        started: Callable[[str], None],
    ) -> None:
        told = False
        while not self._stop.is_set():
            trouble = await _trouble(switch, in_force, ledger)
            for server in servers:
                await server.set_ready(trouble is None)
            self._metrics.set_ready(trouble is None)
            if in_force.stale:
                log.warning("the policy is stale: its source was last asked with success %.0f s ago", in_force.age)
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
            await self._erase(path)
            self._log.settle()
        self._metrics.set_ready(False)

    async def _erase(self, path: DecisionPath) -> None:
        """What was left to be erased is; what failed is tried again."""
        if self._erasing is None:
            return
        erased: list[None] = []
        try:
            await asyncio.to_thread(self._erasing.pick_up, lambda: erased.append(None))
        except (SidecarError, OSError) as error:
            log.error("keys of data subjects: %s; it is tried again", error)
        if erased:
            path.approvals.look_again()

    async def _last_words(self, path: DecisionPath) -> None:
        with contextlib.suppress(SidecarError):
            await path.record_remainder(everything=True)
        self._log.settle(everything=True)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _trouble(switch: Switch, in_force: InForce, ledger: Ledger) -> SidecarError | None:
    """Why no decision can be made now, or None. What a running OPA reports is on record before it decides."""
    try:
        await switch.ready()
        await in_force.observe(switch.version)
        in_force.check_fresh()
        ledger.check_writable()
    except SidecarError as error:
        return error
    return None


def erase_now(config: Config) -> None:
    """Open a ledger that no sidecar has open, do what was left to be erased, ship and close it: an epoch of its own.

    Raises:
        LedgerBusy: a sidecar has it open. SidecarError: it cannot be opened, or not all was done.
    """
    shipping, failures = Shipping(config), list[LedgerError]()
    ledger = Ledger.open(
        Path(config.data_dir), wrap=wrap_seed, options=options_of(config), clock=SystemClock(),
        on_failure=failures.append, confirm=shipping.confirm,
    )  # fmt: skip
    try:
        shipping.begin(ledger, failures.append)
        try:
            done = erasing.of(config, ledger)
            if done is not None:
                done.pick_up()
        finally:
            shipping.end(ledger, failed=bool(failures))
    finally:
        ledger.close()
    if failures:
        raise failures[0]


def serve(config: Config, *, init: bool, started: Callable[[str], None], overhear: Overhear | None = None) -> None:
    """Run a sidecar until SIGTERM or SIGINT. ``overhear``: as `Sidecar`'s.

    Raises:
        SidecarError: it could not start, or had to stop.
    """
    import uvloop

    check_provable(config)
    envoy_of(config)
    erasing.pointers_of(config)  # before anything is made
    if init and not has_ledger(Path(config.data_dir)):
        made = found_ledger(config).made_key
        if made is not None:
            log.warning("no custodian was named, so one was made: %s; move it off this host", made)
    uvloop.run(_run(config, started, overhear))


async def _run(config: Config, started: Callable[[str], None], overhear: Overhear | None) -> None:
    sidecar = Sidecar(config, overhear)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sidecar.stop)
    await sidecar.run(started)
