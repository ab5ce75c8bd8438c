"""SIGTERM while a policy goes through the gate, at the start and behind a sidecar that serves, while a collector is
asked, and while a SPIFFE agent is: the sidecar ends in order and at once, and leaves nothing behind.

`opa` is a program that, asked to check a policy, says so and goes on making files in the gate's scratch directory until
it is killed: whoever takes that directory away meanwhile fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from sidecar.ending import ended
from sidecar.policy import check_policy, find_opa
from tests.cli.test_policy_in_force import write
from tests.collector.test_shipping import until
from tests.needs import needs_program
from tests.program import BIN, Process, made, serving, sidecar, start

KEYS = Path(__file__).parent.parent / "vectors" / "shipping"
BUSY = """#!/bin/sh
test "$1" = check || exec {opa} "$@"
echo at work > {mark}
make() {{ n=0; while :; do n=$((n + 1)); : > "$HOME/$1-$n"; done; }}
make a & make b & make c & make d
"""


class Busy:
    """Where the `opa` that never ends is. ``mark`` is there once it is at work."""

    def __init__(self, place: Path) -> None:
        self.scratch, self.mark, self.program = place / "scratch", place / "mark", place / "bin" / "opa"
        self.scratch.mkdir()
        self.program.parent.mkdir()
        self.program.write_text(BUSY.format(opa=needs_program("opa"), mark=self.mark))
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        self.path = f"{self.program.parent}{os.pathsep}{os.environ['PATH']}"

    @property
    def settings(self) -> dict[str, str]:
        return {"PATH": self.path, "TMPDIR": str(self.scratch)}

    def stop(self, process: Process) -> int:
        """SIGTERM, once it is at work; its exit code."""
        until(self.mark.exists)
        process.send_signal(signal.SIGTERM)
        return process.wait(60.0)

    def left(self) -> list[Path]:
        return list(self.scratch.glob("sidecar-gate-*"))


@pytest.fixture
def busy(tmp_path: Path) -> Busy:
    return Busy(tmp_path)


def test_a_start_is_broken_off_at_the_gate(busy: Busy, tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    where = ("--data-dir", ledger, "--listen", f"unix:{tmp_path}/s.sock", "--dev")
    command = [BIN / "sidecar", "serve", *where, "--policy", write(tmp_path / "policy")]
    with start(command, **busy.settings) as process:
        try:
            assert busy.stop(process) == 0
            assert process.stderr is not None
            assert "is ready" not in process.stderr.read()
        finally:
            process.kill()
    assert busy.left() == []
    assert sidecar("verify", ledger, "--custodian-key", key).stdout.startswith("UNANCHORED\n")
    last = sidecar("show", ledger, "--json").stdout.splitlines()[-1]
    assert '"CLOSE"' in last, last


def test_a_look_at_the_source_is_broken_off_behind_a_sidecar_that_serves(busy: Busy, tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    policy = write(tmp_path / "policy")
    with serving(ledger, "--policy", policy) as server:
        assert server.stop() == 0
    with serving(ledger, "--policy", policy, **busy.settings) as server:  # resumed, and looked at again at once
        assert busy.stop(server.process) == 0
    assert busy.left() == []


def test_a_gate_that_is_cancelled_has_ended(busy: Busy, tmp_path: Path) -> None:
    policy = write(tmp_path / "policy")

    async def cancelled() -> None:
        gate = asyncio.create_task(check_policy(find_opa(str(busy.program)), policy))
        await asyncio.to_thread(until, busy.mark.exists)
        gate.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gate

    asyncio.run(cancelled())


def test_a_task_that_forgets_that_it_was_cancelled_is_cancelled_again() -> None:
    """As one that follows a source does, which takes every fault for one of its looks."""

    async def looks_until_the_end() -> int:
        begun, looks = asyncio.Event(), 0

        async def follow() -> None:
            nonlocal looks
            while True:
                looks += 1
                begun.set()
                with contextlib.suppress(OSError):
                    try:
                        await asyncio.Event().wait()
                    finally:
                        if looks == 1:
                            raise OSError

        task = asyncio.create_task(follow())
        await begun.wait()
        await ended(task)
        assert task.cancelled()
        return looks

    assert asyncio.run(looks_until_the_end()) == 2


@pytest.mark.parametrize("how", ["says nothing", "holds each call"])
def test_a_start_that_a_collector_does_not_answer_is_broken_off(how: str, tmp_path: Path) -> None:
    """At once, and no epoch has begun: least of all one that nobody confirmed."""
    ledger, _ = made(tmp_path)
    before = sidecar("show", ledger, "--json").stdout
    key = json.loads((KEYS / "keys.json").read_text())["log"]
    with silent(how) as (port, asked):
        collector = {"COLLECTOR_ADDRESS": f"127.0.0.1:{port}", "COLLECTOR_LOG_KEY": key}
        settings = {f"SIDECAR_{name}": value for name, value in collector.items()}
        command = [BIN / "sidecar", "serve", "--data-dir", ledger, "--listen", f"unix:{tmp_path}/s.sock", "--dev"]
        with start(command, **settings, SIDECAR_COLLECTOR_UNCONFIRMED_START="true") as process:
            try:
                assert asked.wait(60)
                process.send_signal(signal.SIGTERM)
                assert process.wait(20.0) == 0  # it would ask for a minute
                assert process.stderr is not None
                said = process.stderr.read()
                assert "is ready" not in said and "unconfirmed" not in said
            finally:
                process.kill()
    assert sidecar("show", ledger, "--json").stdout == before


def waits_for(what: str, socket: Path) -> dict[str, str]:
    """Settings by which a start waits for its first SVID: for its port, a door's, or the link to a collector."""
    if what == "the collector's link":
        key = json.loads((KEYS / "keys.json").read_text())["log"]
        link = {"ADDRESS": "127.0.0.1:1", "LOG_KEY": key}
        shows = {"SPIFFE_SOCKET": str(socket), "SPIFFE_TRUST_DOMAIN": "example.org", "SERVER_NAME": "collector"}
        return {f"SIDECAR_COLLECTOR_{name}": value for name, value in {**link, **shows}.items()}
    if what == "its port":
        return {"SIDECAR_SPIFFE_SOCKET": str(socket), "SIDECAR_LISTEN": "127.0.0.1:0"}
    door = {"GATEWAY": "edge", "LISTEN": "127.0.0.1:0", "SPIFFE_SOCKET": str(socket)}
    return {f"SIDECAR_DOORS_{what}_{name}": value for name, value in door.items()}


DOORS = [pytest.param(door, marks=pytest.mark.soak) for door in ("ENVOY", "AUTHZEN")]


@pytest.mark.parametrize("what", ["its port", "the collector's link", *DOORS])
def test_a_start_that_waits_for_its_first_svid_is_broken_off(what: str, tmp_path: Path) -> None:
    """At once, and in order: the ledger is closed. Where the link waits no epoch has begun."""
    ledger, _ = made(tmp_path)
    before = sidecar("show", ledger, "--json").stdout
    agent = tmp_path / "agent.sock"
    with unanswering(socket.AF_UNIX, str(agent)) as (_, asked):
        settings = {"SIDECAR_LISTEN": f"unix:{tmp_path}/s.sock", **waits_for(what, agent)}
        with start([BIN / "sidecar", "serve", "--data-dir", ledger, "--dev"], **settings) as process:
            ends_at_once(process, asked)
    entries = sidecar("show", ledger, "--json").stdout
    assert (entries == before) is (what == "the collector's link")
    assert '"CLOSE"' in entries.splitlines()[-1], entries


def test_a_collector_that_waits_for_its_first_svid_is_broken_off(tmp_path: Path) -> None:
    agent, place = tmp_path / "agent.sock", tmp_path / "collector"
    with unanswering(socket.AF_UNIX, str(agent)) as (_, asked):
        where = ["--data-dir", place, "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", "--dev"]
        with start([BIN / "sidecar", "collector", "serve", *where], COLLECTOR_SPIFFE_SOCKET=str(agent)) as process:
            ends_at_once(process, asked)


def ends_at_once(process: Process, asked: threading.Event) -> None:
    """By SIGTERM, once somebody ``asked``, whom nobody answers."""
    try:
        assert asked.wait(60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(8.0) == 0  # it would ask for ten seconds at least, and fail
        assert process.stderr is not None
        said = process.stderr.read()
        assert "is ready" not in said and "SVID" not in said
    finally:
        process.kill()


@contextlib.contextmanager
def silent(how: str) -> Iterator[tuple[int, threading.Event]]:
    """A collector that was asked, as the event says, and does not answer: no word of HTTP/2, or none to a call."""
    asked, over = threading.Event(), threading.Event()

    class Holds(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def held(_request: bytes, _context: grpc.ServicerContext) -> bytes:
                asked.set()
                over.wait()
                return b""

            return grpc.unary_unary_rpc_method_handler(held)

    if how == "holds each call":
        server = grpc.server(ThreadPoolExecutor(4), handlers=[Holds()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port, asked
        finally:
            over.set()
            server.stop(0).wait()
        return
    with unanswering(socket.AF_INET, ("127.0.0.1", 0)) as (bound, asked):
        yield bound.getsockname()[1], asked


@contextlib.contextmanager
def unanswering(
    family: socket.AddressFamily, address: str | tuple[str, int]
) -> Iterator[tuple[socket.socket, threading.Event]]:
    """A listener that takes connections, as the event says, and never says a word."""
    asked = threading.Event()
    with socket.socket(family) as bound:
        bound.bind(address)
        bound.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(bound.accept()[0])
                    asked.set()

        kept: list[socket.socket] = []
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield bound, asked
        finally:
            bound.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in kept:
                each.close()
