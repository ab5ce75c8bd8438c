"""SIGTERM while the collector is slow or gone: the end comes within the grace; what was not shipped is, next time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.collecting import Collecting, collecting
from tests.faults.load import Load, Told, assert_kept
from tests.policy.processes import stop
from tests.ports import free_address
from tests.program import made, serving, sidecar

CALLS, LINGER, GRACE = 5.0, 1.0, 30.0  # seconds: for calls under way; as configured below; Kubernetes' default


class Between(grpc.GenericRpcHandler):
    """Hands every call on to a collector, byte for byte; ``held``: it takes them and gives no answer."""

    def __init__(self, collector: str) -> None:
        self._channel = grpc.insecure_channel(collector)
        self._held, self._over = threading.Event(), threading.Event()
        self.waiting = threading.Event()

    def service(self, details: Any) -> Any:
        ask = self._channel.unary_unary(details.method)

        def answer(request: bytes, context: Any) -> Any:
            if self._held.is_set():
                self.waiting.set()
                self._over.wait()
                context.abort(grpc.StatusCode.ABORTED, "the test is over")
            return ask(request)

        return grpc.unary_unary_rpc_method_handler(answer)

    def hold(self) -> None:
        self._held.set()

    def close(self) -> None:
        self._over.set()
        self._channel.close()


@contextlib.contextmanager
def between(collector: str) -> Iterator[tuple[str, Between]]:
    """Its address, and itself."""
    middle, pool = Between(collector), ThreadPoolExecutor(4)
    server = grpc.server(pool, handlers=[middle])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", middle
    finally:
        middle.close()
        server.stop(None).wait()
        pool.shutdown()


def gone(collector: Collecting, middle: Between) -> None:
    collector.stop(signal.SIGKILL)


def hung(collector: Collecting, middle: Between) -> None:
    """It takes connections, and says nothing on them."""
    stop(collector.process.pid)


def slow(collector: Collecting, middle: Between) -> None:
    """All is well with its connections; its answers take for ever."""
    middle.hold()
    assert middle.waiting.wait(60)


@pytest.mark.parametrize("befalls", [slow, *(pytest.param(each, marks=pytest.mark.soak) for each in (gone, hung))])
def test_the_end_comes_within_the_grace(tmp_path: Path, befalls: Callable[[Collecting, Between], None]) -> None:
    ledger, key = made(tmp_path)
    address, told, config = free_address(), Told(), tmp_path / "c.toml"

    async def until_stopped(collector: Collecting, middle: Between) -> tuple[int, float]:
        with serving(ledger, "--config", config) as server:
            async with Load(server.address, told).running(unary=2, streams=1):
                await told.more(20)
                befalls(collector, middle)
                await told.more(20)
                began = time.monotonic()
                code = await asyncio.to_thread(server.stop)
                return code, time.monotonic() - began

    with collecting(tmp_path / "collector", listen=address) as collector, between(address) as (way, middle):
        here = way if befalls is slow else address
        config.write_text(collector.settings(f"linger = {LINGER}").replace(address, here))
        code, seconds = asyncio.run(until_stopped(collector, middle))
        collector.process.kill()
    assert code == 0 and seconds < CALLS + LINGER + 5 < GRACE
    assert_kept(ledger, key, told)
    with collecting(tmp_path / "collector", listen=address) as collector:
        config.write_text(collector.settings())
        with serving(ledger, "--config", config) as server:
            assert server.stop() == 0
        trust = collector.trust(tmp_path / "trust.json")
        verified = sidecar("verify", ledger, "--custodian-key", key, "--trust", trust)
        assert (verified.returncode, verified.stdout.split()[0]) == (0, "OK"), verified.stdout
