"""Too little memory, too many connections, too many questions at once: the real sidecar fails closed or holds."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from sidecar.client import Effect, NoDecision
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as grpc_stubs
from tests.api.running import request
from tests.faults.load import LATE, OWN_CONNECTION, Load, Told, assert_kept, plain
from tests.needs import cannot_run
from tests.people import person, registry_text
from tests.program import BIN, Serving, made, serving

MIB = 1 << 20
CONNECTIONS = 1_000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and empty SETTINGS (RFC 9113)


def memory(server: Serving, name: str) -> int:
    """A figure of /proc/PID/status, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def huge(number: int) -> pb.DecideRequest:
    return request(arguments=b'{"a": "' + b"x" * 900_000 + b'"}')


@pytest.mark.parametrize("spare", [1, 8], ids=["1 MiB", "8 MiB"])
def test_a_sidecar_without_memory_fails_closed(tmp_path: Path, spare: int) -> None:
    ledger, key = made(tmp_path)
    told = Told()

    async def main(server: Serving) -> None:
        async with Load(server.address, told).running(unary=4):
            await told.more(20)
            limit = memory(server, "VmData") + spare * MIB
            resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (limit, limit))
            async with Load(server.address, told, huge).running(unary=24, batches=8, streams=8):
                await told.any_refusal()
                await asyncio.to_thread(server.stop)

    with serving(ledger) as server:
        asyncio.run(main(server))
    assert told.refused.total()
    assert_kept(ledger, key, told)
    with serving(ledger) as server:
        assert server.stop() == 0
    assert_kept(ledger, key, told)


@contextlib.contextmanager
def idle_connections(path: Path, count: int) -> Iterator[None]:
    """Connections that say nothing, or say hello and then nothing."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 200:
        cannot_run(f"needs {count + 200} open files, and {soft} are allowed: raise ulimit -n")
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(path))
            if number % 2:
                connection.sendall(PREFACE)
        yield


def test_a_thousand_idle_connections(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    told = Told()

    async def main(server: Serving) -> None:
        async with Load(server.address, told).running(unary=4):
            await told.more(100)
            before = memory(server, "RssAnon")
            with idle_connections(server.socket, CONNECTIONS):
                await told.more(200)
                async with Load(server.address, told).running(unary=4):  # and callers that come only now
                    await told.more(100)
                    grown = memory(server, "RssAnon") - before
                    assert grown < 100 * MIB, f"{CONNECTIONS} connections took {grown >> 20} MiB"
                    assert await asyncio.to_thread(server.stop) == 0

    with serving(ledger) as server:
        asyncio.run(main(server))
    assert_kept(ledger, key, told)


def test_a_flood_with_little_time(tmp_path: Path) -> None:
    """Far more at once than can be answered within the deadline: late ones get none, none is lost, it recovers."""
    ledger, key = made(tmp_path)
    told = Told()

    async def flood(server: Serving) -> None:
        async with contextlib.AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=OWN_CONNECTION))
                for _ in range(4)
            ]
            stubs = [grpc_stubs.DecisionServiceStub(channel) for channel in channels]
            calls = [stubs[n % 4].Decide(plain(n), timeout=0.25 if n % 4 else 0.001) for n in range(1_500)]
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(answer, pb.DecideResponse):
                    told.take(answer)
                else:
                    assert isinstance(answer, grpc.aio.AioRpcError)
                    told.refuse(answer.code().name)
            told.take(await stubs[0].Decide(plain(1), timeout=30))

    with serving(ledger) as server:
        asyncio.run(flood(server))
        assert server.stop() == 0
    assert told.refused.keys() <= {*LATE, "UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    assert sum(told.refused[status] for status in LATE)
    assert_kept(ledger, key, told)


def test_connections_do_not_keep_a_registry_from_being_read(tmp_path: Path) -> None:
    """An agent that is to be suspended takes all the files that the sidecar may open, if it can."""
    ledger, _ = made(tmp_path)
    registry = tmp_path / "registry.json"
    registry.write_bytes(registry_text(person("billing-agent", "agent", "billing")))
    few = ("sh", "-c", 'ulimit -n 200; exec "$@"', "sh", BIN / "sidecar")
    with serving(ledger, program=few, SIDECAR_REGISTRY=str(registry)) as server, server.guard() as guard:
        assert guard.ask("crm.read", ("customer", "c")).effect is Effect.ALLOW
        with contextlib.ExitStack() as idle:
            for _ in range(250):
                idle.enter_context(socket.socket(socket.AF_UNIX)).connect(str(server.socket))
            new = tmp_path / "new"
            new.write_bytes(registry_text(person("billing-agent", "agent", "billing", status="suspended")))
            new.rename(registry)
            assert server.process.stderr is not None
            said = next(line for line in server.process.stderr if "registry" in line)
            assert "a registry of 1 principals is in force" in said
            with pytest.raises(NoDecision, match="suspended"):
                guard.ask("crm.read", ("customer", "c"))
        assert server.stop() == 0
