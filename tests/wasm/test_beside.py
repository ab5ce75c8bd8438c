"""The process beside this one: what it answers, and that whatever becomes of it a question comes back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from sidecar.policy import STARTER_BUNDLE, open_bundle
from sidecar.policy.engine import READY_PROBE
from sidecar.wasm import frames
from sidecar.wasm.beside import LONGEST, Beside, _Link
from sidecar.wasm.instance import Instance, Program
from sidecar.wasm.machine_code import MACHINE_CODE, new_engine
from tests.policy.processes import kill, stop
from tests.wasm.processes import beside

PATIENCE = 60.0
INPUT = json.dumps(READY_PROBE).encode()
SECRET = "hunter22"

Body = Callable[[Beside], Awaitable[None]]


@pytest.fixture(scope="module")
def program() -> Program:
    """The starter policy."""
    bundle, engine = open_bundle(STARTER_BUNDLE.read_bytes()), new_engine()
    module = MACHINE_CODE.module(engine, bundle.wasm)
    return Program(engine, module, bundle.data, len(bundle.wasm), 64 << 20, 1 << 20)


def with_process(program: Program, body: Body, times: Callable[[float], None] = lambda _: None) -> None:
    """``body`` has one that is ready. Afterwards no process is left."""

    async def run() -> None:
        asked = Beside(program, 0, times, again=0.0)
        try:
            await begun(asked)
            await body(asked)
        finally:
            await asked.close()
        assert beside() == []
        assert not asked.ready()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


async def begun(asked: Beside) -> None:
    for _ in iter(asked.ready, True):
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def here(program: Program, document: bytes) -> bytes:
    """What an instance in this process answers."""
    instance = Instance(program, 1 << 30)
    try:
        return instance.evaluate(0, document)
    finally:
        instance.close()


def about(number: int) -> bytes:
    return json.dumps({**READY_PROBE, "purpose": str(number)}).encode()


def test_it_answers_as_this_process_does_and_says_what_it_took(program: Program) -> None:
    times: list[float] = []

    async def body(asked: Beside) -> None:
        documents = [about(number) for number in range(200)] + [about(7) + b" " * (LONGEST - len(about(7)))]
        answers = await asyncio.gather(*map(asked.ask, documents))
        assert answers == [here(program, document) for document in documents]
        assert len(beside()) == 1

    with_process(program, body, times.append)
    assert 4 <= len(times) < 200  # of many at once
    assert all(0 < seconds < PATIENCE for seconds in times)


def test_what_it_cannot_evaluate_comes_back_and_it_goes_on(program: Program) -> None:
    async def body(asked: Beside) -> None:
        for _ in range(3):
            first, second, third = await asyncio.gather(asked.ask(INPUT), asked.ask(too_long), asked.ask(INPUT))
            assert (first, second) == (here(program, INPUT), None)
            assert third in (None, first)  # it may have come with the one before, or alone
            assert await asked.ask(INPUT) == first
        assert len(beside()) == 1

    too_long = b'"%b"' % (b"x" * (8 << 20))
    with_process(dataclasses.replace(program, memory_limit=8 << 20), body)


@pytest.mark.parametrize("end", [kill, stop], ids=["killed", "stopped"])
def test_one_that_breaks_or_hangs_answers_nobody_and_another_comes(
    program: Program, end: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(asked: Beside) -> None:
        (first,) = beside()
        end(first)
        assert await asyncio.gather(*(asked.ask(INPUT) for _ in range(70))) == [None] * 70
        assert "until there is another" in caplog.text
        await begun(asked)
        assert await asked.ask(INPUT) == here(program, INPUT)
        assert first not in beside()

    with_process(program, body)


def test_who_is_gone_is_not_answered_and_in_nobodys_way(program: Program) -> None:
    async def body(asked: Beside) -> None:
        waiting = [asyncio.ensure_future(asked.ask(about(number))) for number in range(130)]
        await asyncio.sleep(0)  # each has asked
        for number in range(0, 130, 3):
            waiting[number].cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 3:
                assert answer == here(program, about(number))
            else:
                assert isinstance(answer, asyncio.CancelledError)

    with_process(program, body)


def test_closing_tells_those_who_wait(program: Program) -> None:
    async def body(asked: Beside) -> None:
        (pid,) = beside()
        stop(pid)
        waiting = [asyncio.ensure_future(asked.ask(INPUT)) for _ in range(70)]
        await asyncio.sleep(0)  # each has asked
        await asked.close()
        assert await asyncio.gather(*waiting) == [None] * 70

    with_process(program, body)


def test_closing_one_that_is_not_ready(program: Program) -> None:
    async def run() -> None:
        asked = Beside(program, 0, lambda _: None)
        assert not asked.ready()
        assert await asked.ask(INPUT) is None
        await asked.close()
        assert beside() == []

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


def test_without_a_descriptor_there_is_none(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        asked = Beside(program, 0, lambda _: None, again=0.0)
        with no_descriptor_left():
            assert await asked.ask(INPUT) is None
        assert "no process to evaluate the policy in" in caplog.text
        await begun(asked)
        assert await asked.ask(INPUT) == here(program, INPUT)
        await asked.close()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


def test_it_has_nothing_of_ours(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither environment nor descriptors but the one socket, and no core dump to hold inputs."""
    monkeypatch.setenv("SIDECAR_OPA_TOKEN", SECRET)

    async def body(asked: Beside) -> None:
        await asked.ask(INPUT)
        (pid,) = beside()
        place = Path(f"/proc/{pid}")
        names = {line.partition(b"=")[0] for line in (place / "environ").read_bytes().split(b"\0") if line}
        assert names <= {b"PYTHONPATH"}
        assert SECRET.encode() not in (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
        opened = sorted(str(one.readlink()).partition(":")[0] for one in (place / "fd").iterdir())
        assert opened == ["/dev/null"] * 3 + ["socket"]
        assert "Max core file size        0" in (place / "limits").read_text()
        assert os.getsid(pid) == pid
        assert int((place / "oom_score_adj").read_text()) == 500

    with_process(program, body)


def asleep() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


def test_one_that_answers_something_else_answers_nobody() -> None:
    """Played by a socket, since the real one does not."""

    async def run(said: bytes) -> list[bytes | None]:
        ours, theirs = socket.socketpair()
        link = _Link(asleep(), b"first", 1 << 20, lambda _: None)
        with theirs:
            await link.connect(ours)
            theirs.setblocking(False)
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(theirs, 100) == b"first"
            await loop.sock_sendall(theirs, frames.pack([]) * 2)
            for _ in iter(lambda: link.ready, True):
                await asyncio.sleep(0.01)
            waiting = [link.ask(INPUT), link.ask(INPUT)]
            assert await loop.sock_recv(theirs, 1 << 16) == frames.pack([INPUT, INPUT])
            await loop.sock_sendall(theirs, said)
            answers = await asyncio.gather(*waiting)
        for _ in iter(lambda: link.ended, True):  # at the latest by the end of the socket
            await asyncio.sleep(0.01)
        await asyncio.to_thread(link.process.wait)
        return answers

    for said in (frames.pack([b"1"]), frames.pack([]), b"\xff" * 8, frames.pack([b"1", b"2", b"3"])):
        assert asyncio.run(asyncio.wait_for(run(said), PATIENCE)) == [None, None]
    good = frames.pack([b"1", None])
    for said in (good, good + frames.pack([b"3"])):
        assert asyncio.run(asyncio.wait_for(run(said), PATIENCE)) == [b"1", None]


KILLED = """
import asyncio, sys
from sidecar.policy import STARTER_BUNDLE, STARTER_ENTRYPOINT, WasmEngine
from sidecar.policy.engine import READY_PROBE

async def main():
    engine = WasmEngine(STARTER_BUNDLE.read_bytes(), STARTER_ENTRYPOINT)
    while not engine._beside.ready():
        await asyncio.gather(*(engine.evaluate(READY_PROBE, 5.0) for _ in range(64)))
    print("ready", flush=True)
    while True:
        await asyncio.gather(*(engine.evaluate(READY_PROBE, 5.0) for _ in range(64)))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("number", "stopped"), [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGINT, False)]
)
def test_it_ends_with_the_one_it_works_for(number: int, stopped: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        (pid,) = beside(one.pid)
        descriptor = os.pidfd_open(pid)
        try:
            if stopped:
                stop(pid)
            one.send_signal(number)
            assert select.select([descriptor], [], [], PATIENCE)[0]
        finally:
            os.close(descriptor)
            one.kill()
