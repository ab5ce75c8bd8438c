"""Live and ready, as the server tells it, and as `sidecar.probe` and gRPC's own client hear it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUnixStreamServer
from typing import Any

import grpc.aio
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sidecar.api import Health, scraped
from sidecar.api.health import FORGOTTEN
from sidecar.config import Config
from sidecar.errors import UsageError
from sidecar.probe import Word, ask
from sidecar.readiness import Readiness
from tests.api.running import running

SERVING, NOT_SERVING = 1, 2
READY = ["", "readiness", "sidecar.v1.DecisionService", "sidecar.v1.ApprovalService", "sidecar.v1.LedgerService"]


async def heard(address: str, *, live: bool = False) -> Word:
    return await asyncio.to_thread(ask, address, live=live, timeout=60.0)


async def checked(address: str, name: str) -> tuple[int, list[str]]:
    """What gRPC's own client is told: the status, and the causes."""
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
        return answer.status, [f.data.decode() for f in UnknownFieldSet(answer) if f.field_number == 1000]


def test_each_name_says_whether_and_why_not(tmp_path: Path) -> None:
    async def main() -> None:
        health = Health()
        async with running(tmp_path, health=health) as run:
            assert await heard(run.address) == Word(False, "it starts")
            for cause in ("the disk is nearly full\nmake \x00room", "ä" * 500):
                health.found(cause)
                said = (await heard(run.address)).cause
                assert said in ("the disk is nearly full make  room", "ä" * 256)
                for name in READY:
                    assert await checked(run.address, name) == (NOT_SERVING, [said])
                assert await heard(run.address, live=True) == Word(True)
                assert await checked(run.address, "liveness") == (SERVING, [])
            health.found("")
            assert await heard(run.address) == Word(True)
            for name in READY:
                assert await checked(run.address, name) == (SERVING, [])
            with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
                await checked(run.address, "another")

    asyncio.run(main())


def test_who_watches_is_told_of_the_change(tmp_path: Path) -> None:
    async def main() -> None:
        health = Health()
        async with running(tmp_path, health=health) as run:
            watch = health_pb2_grpc.HealthStub(run.channel).Watch(health_pb2.HealthCheckRequest(service="readiness"))
            assert (await watch.read()).status == NOT_SERVING
            health.found("")
            await run.server.show_health()
            assert (await watch.read()).status == SERVING
            watch.cancel()

    asyncio.run(main())


def test_a_look_that_is_long_ago_counts_no_more() -> None:
    now = [100.0]
    health = Health(lambda: now[0])
    now[0] += 10 * FORGOTTEN
    assert health.cause == "it starts"
    health.found("")
    now[0] += FORGOTTEN
    assert health.cause == ""
    now[0] += 1.0
    assert "nobody has looked for 16 s" in health.cause
    assert health.page("/readyz") == (503, f"not ready: {health.cause}\n".encode())
    assert health.page("/healthz") == (200, b"live\n")
    health.found("")
    assert health.page("/readyz") == (200, b"ready\n")


def test_a_cause_is_logged_when_it_is_new_and_once_a_minute() -> None:
    now = [100.0]
    health = Health(lambda: now[0])
    said = []
    for second, cause in enumerate(["", "a", "a", "b", "b", "", "b", *["b"] * 61]):
        now[0] = 100.0 + second
        if health.found(cause):
            said.append((second, cause))
    assert said == [(1, "a"), (3, "b"), (6, "b"), (66, "b")]


class Hung:
    """A policy engine that never says whether it is ready."""

    async def ready(self) -> None:
        await asyncio.Event().wait()


class Well:
    """Engine, policies and ledger of which all is well; no registry is in force."""

    version, registry = None, None

    async def ready(self) -> None: ...

    async def observe(self, _: object) -> None: ...

    def check_fresh(self) -> None: ...

    def check_writable(self) -> None: ...


@pytest.mark.parametrize(
    ("settings", "more", "cause"),
    [
        ({"dev": True}, {}, ""),
        ({"dev": True}, {"switch": Hung(), "within": 0.05}, "took longer than 0.05 s"),
        ({}, {}, "no registry is in force"),
        ({"dev": True, "registry": "r.json"}, {}, "no registry is in force"),
        ({"dev": True}, {"not_after": lambda: 100.0, "wall": lambda: 99.0}, ""),
        ({"dev": True}, {"not_after": lambda: 100.0, "wall": lambda: 100.0}, "certificate has ended"),
    ],
)
def test_what_else_makes_it_unready(settings: dict[str, Any], more: dict[str, Any], cause: str) -> None:
    well: Any = Well()
    given = {"switch": well, "in_force": well, "ledger": well, "not_after": None, **more}
    said = asyncio.run(Readiness(Config(data_dir="d", **settings), **given).look())
    assert cause in said and bool(cause) == bool(said)


def test_the_listener_for_metrics_says_it_too() -> None:
    async def main() -> None:
        health = Health()
        async with scraped(lambda: b"", health, "127.0.0.1", 0) as url:
            at = url.removesuffix("/metrics")
            assert await heard(at) == Word(False, "it starts")
            assert await heard(at, live=True) == Word(True)
            health.found("")
            assert await heard(at) == Word(True)

    asyncio.run(main())


@contextlib.contextmanager
def answering(place: Path, answer: Callable[[BaseRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

    with ThreadingUnixStreamServer(str(place), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"unix:{place}"
        finally:
            server.shutdown()


def frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def grpc_message(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (frame(0, grpc_message(b"\x08\x01")), Word(True)),
        (frame(0, grpc_message(b"\x08\x01")[:6]) + frame(0, b"\x01"), Word(True)),
        (frame(0, b"\x02" + grpc_message(b"\x08\x01") + b"\x00\x00", flags=8), Word(True)),
        (frame(0, grpc_message(b"\x08\x02")), Word(False, "status 2")),
        (frame(0, grpc_message(b"")), Word(False, "status 0")),
        (frame(0, grpc_message(b"\x08\x01"), stream=3), "closed"),
        (frame(0, grpc_message(b"\x08")), "cut short"),
        (frame(0, grpc_message(b"\x0d\x01")), "is not one"),
        (frame(1, b"", flags=5), "no word on its health"),
        (frame(3, bytes(4)), "breaks off"),
        (frame(7, bytes(8), stream=0), "breaks off"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no end"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "closed"),
        (b"", "closed"),
    ],
)
def test_what_is_no_answer_is_none(tmp_path: Path, sent: bytes, word: Word | str) -> None:
    def answer(handler: BaseRequestHandler) -> None:
        handler.request.recv(1 << 16)
        handler.request.sendall(sent + (bytes(70_000) if b"HTTP" in sent else b""))

    with answering(tmp_path / "s", answer) as address:
        found = ask(address, live=False, timeout=60.0)
    assert found == word if isinstance(word, Word) else (not found.well and word in found.cause), found


def test_noise_is_no_answer(tmp_path: Path) -> None:
    chance = random.Random(3)

    def answer(handler: BaseRequestHandler) -> None:
        handler.request.recv(1 << 16)
        handler.request.sendall(chance.randbytes(chance.randrange(64)))

    with answering(tmp_path / "s", answer) as address:
        for _ in range(100):
            assert not ask(address, live=False, timeout=60.0).well


def test_who_is_silent_or_absent_is_told_in_time(tmp_path: Path) -> None:
    done = threading.Event()
    with answering(tmp_path / "s", lambda _: done.wait(60) and None) as address:
        assert ask(address, live=True, timeout=0.05) == Word(False, "no answer within 0.05 s")
        done.set()
    gone = ask(f"unix:{tmp_path}/none", live=False, timeout=1.0)
    assert gone == Word(False, f"nobody answers on unix:{tmp_path}/none: No such file or directory")


@pytest.mark.parametrize("address", ["", "x", "host", "host:x", "host:65536", "unix:", "http://host", ":"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is not unix:/path"):
        ask(address, live=False, timeout=1.0)
