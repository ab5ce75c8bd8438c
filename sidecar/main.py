"""Putting the parts together: the only place, with `config.py`, that builds concrete parts and hands them down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from sidecar import __version__, erasing
from sidecar.api import (
    NAMES,
    DecisionLog,
    FailedHandshakes,
    Health,
    Metrics,
    Server,
    ServerTls,
    Services,
    Transports,
    scraped,
)
from sidecar.config import Config, host_and_port
from sidecar.decide import DecisionPath, InForce, Limits, RegistryFollower, Settings, new_decision_id
from sidecar.doors import Behind, authzen_listening, authzen_of, envoy_listening, envoy_of
from sidecar.ending import Stopped, ended, unless
from sidecar.errors import LedgerError, SidecarError
from sidecar.files import allow_many
from sidecar.founding import found_ledger, options_of, wrap_seed
from sidecar.ledger import Ledger, SystemClock, has_ledger
from sidecar.parts import Policies, check_provable, in_force_of, opa_room_of, registry_follower, server_tls
from sidecar.policy import Switch
from sidecar.readiness import Readiness
from sidecar.shipping import Shipping
from sidecar.telemetry import Telemetry

log = logging.getLogger("sidecar")

Overhear = Callable[[Callable[[bytes], None]], None]

READY_EVERY = 1.0  # seconds between two looks at engine and ledger
STOP_GRACE = 5.0  # seconds for calls under way when asked to stop


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
        self._metrics, self._health = Metrics(__version__), Health()
        self._metrics.watch_ready(lambda: not self._health.cause)
        self._log = DecisionLog(self._metrics)
        self._erasing: erasing.Erasing | None = None
        self._registry: RegistryFollower | None = None
        self._envoy, self._authzen = envoy_of(config), authzen_of(config)

    def stop(self) -> None:
        """Ask for an orderly end: drain, CLOSE, seal."""
        self._stop.set()

    async def run(self, started: Callable[[str], None]) -> None:
        """Serve until stopped; ``started`` is told the address once decisions are answered.

        Raises:
            SidecarError: it could not start, or the ledger failed.
        """
        with contextlib.suppress(Stopped):
            await self._serve(started)
        if self.failure is not None:
            raise self.failure

    async def _serve(self, started: Callable[[str], None]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            tracing = await self._trace(stack)
            await self._show_metrics(stack)
            self._health.starts("the ledger is being opened")
            shipping = await asyncio.to_thread(Shipping, self._config)
            opening = asyncio.to_thread(self._open_ledger, asyncio.get_running_loop(), shipping)
            ledger = await unless(self._stop, opening, shipping.break_off)
            stack.callback(ledger.close)
            self._erasing = await asyncio.to_thread(erasing.of, self._config, ledger)
            self._ship(stack, ledger, shipping)
            room = opa_room_of(self._config)
            if room is not None:
                stack.callback(room.close)
            switch = Switch(self._config.engine, self._config.entrypoint)
            stack.push_async_callback(switch.close)
            self._metrics.attach(ledger, switch)
            self._health.starts("registry and policy are being read")
            in_force = in_force_of(self._config, switch, ledger, shipping.check)
            await self._know_principals(stack, in_force)
            policies = Policies(self._config, switch, in_force, ledger, self._metrics, room)
            following = await unless(self._stop, policies.begin())
            if following is not None:
                stack.push_async_callback(ended, following)
            path = DecisionPath(
                switch, in_force, ledger, self._settings(), new_id=new_decision_id, observer=self._log, tracing=tracing
            )
            self._metrics.watch_approvals(path.approvals.__len__)
            stack.push_async_callback(self._last_words, path)  # after the server took its last call
            self._health.starts("its certificate is waited for")
            failed = FailedHandshakes(path, self._metrics.handshake_failed)
            if self._overhear is not None:
                self._overhear(failed.told)
            stack.push_async_callback(failed.settled)  # after every port was closed
            server, tls = await stack.enter_async_context(self._listening(path, ledger, tracing, failed.begun))
            servers = [server]
            doors: dict[str, Callable[[], float]] = {}
            behind = Behind(path, ledger, self._log, self._metrics, failed, doors.__setitem__, self._stop)
            if self._envoy is not None:
                door = envoy_listening(self._config, self._envoy, behind, self._health)
                servers.append(await stack.enter_async_context(door))
            if self._authzen is not None:
                await stack.enter_async_context(authzen_listening(self._config, self._authzen, behind))
            readiness = Readiness(
                self._config, switch, in_force, ledger, tls.not_after if tls else None, doors=doors,
                registry_broken=lambda: self._registry is not None and self._registry.broken,
            )  # fmt: skip
            await self._watch(servers, readiness, path, started)

    def _ship(self, stack: contextlib.AsyncExitStack, ledger: Ledger, shipping: Shipping) -> None:
        loop = asyncio.get_running_loop()

        def on_failure(error: LedgerError) -> None:
            loop.call_soon_threadsafe(self._failed, error)

        shipping.begin(ledger, on_failure)
        stack.callback(lambda: shipping.end(ledger, failed=self.failure is not None))
        if shipping.watched:
            self._metrics.watch_shipping(shipping)
        if self._config.collector_tls_cert_file:
            self._metrics.watch_link(lambda: shipping.certificate_end)

    async def _trace(self, stack: contextlib.AsyncExitStack) -> Telemetry | None:
        if not self._config.otel_endpoint:
            return None
        telemetry = await asyncio.to_thread(Telemetry, self._config.otel_endpoint)
        stack.push_async_callback(asyncio.to_thread, telemetry.close)
        self._log.trace_id = telemetry.trace_id
        self._metrics.watch_spans(telemetry.spans)
        return telemetry

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
            listening = scraped(self._metrics.page, self._health, host, port)
            log.info("metrics are on %s", await stack.enter_async_context(listening))

    async def _know_principals(self, stack: contextlib.AsyncExitStack, in_force: InForce) -> None:
        """Before any policy decides: who may ask at all, where a file says it."""
        follower = registry_follower(self._config, in_force, self._metrics)
        if follower is not None:
            await follower.first()
            self._registry = follower
            self._metrics.watch_registry(lambda: follower.broken)
            stack.push_async_callback(ended, asyncio.create_task(follower.follow()))

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
    async def _listening(
        self, path: DecisionPath, ledger: Ledger, tracing: Telemetry | None, begun: Callable[[], None]
    ) -> AsyncIterator[tuple[Server, ServerTls | None]]:
        tls = await server_tls(self._config, self._metrics, begun, self._stop)
        server = Server(
            Services(
                path, ledger, self._log, Transports(tls.bundles, ends=tls.not_after) if tls else None, tracing
            ).handlers(),
            NAMES,
            self._config.listen,
            self._health,
            max_request_bytes=self._config.max_request_bytes,
            socket_mode=int(self._config.socket_mode, 8),
            credentials=tls.credentials if tls else None,
        )
        try:
            self.address = await server.start()
            try:
                yield server, tls
            finally:
                path.approvals.end_watches()
                await server.stop(STOP_GRACE)
        finally:
            if tls:
                tls.close()

    async def _watch(
        self,
        servers: Sequence[Server],
        readiness: Readiness,
        path: DecisionPath,
        started: Callable[[str], None],
    ) -> None:
        told, in_force = False, readiness.in_force
        while not self._stop.is_set():
            trouble = await readiness.look()
            besides = readiness.besides()
            news = self._health.found(trouble, besides)
            for server in servers:
                await server.show_health()
            if in_force.stale:
                log.warning("the policy is stale: its source was last asked with success %.0f s ago", in_force.age)
            if news:
                log.warning("%s", f"not ready: {trouble}" if trouble else f"ready, but {besides}")
            if not trouble and not told:
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
        self._health.found("it stops")
        for server in servers:
            await server.show_health()

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


def serve(config: Config, *, init: bool, started: Callable[[str], None], overhear: Overhear | None = None) -> None:
    """Run a sidecar until SIGTERM or SIGINT. ``overhear``: as `Sidecar`'s.

    Raises:
        SidecarError: it could not start, or had to stop.
    """
    import uvloop

    allow_many()
    check_provable(config)
    envoy_of(config)
    authzen_of(config)
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
