"""An OPA of our own is kept running through every way of ending, and ends with its sidecar."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import EngineError, EngineTimeout, EngineUnavailable
from sidecar.policy import OpaProgram, Pace, SupervisedOpa, find_opa

from .processes import stop
from .supervision import (
    ENTRYPOINT,
    PATIENT,
    address_space,
    built,
    eventually,
    gone,
    run,
    running,
    socket_of,
    supervised,
)


def test_killed_under_load_every_question_ends_in_time_and_decisions_come_again(
    program: OpaProgram, policy: Path, request_document: dict[str, Any]
) -> None:
    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            first = running(engine)
            outcomes: list[object] = []

            async def caller(number: int) -> None:
                while first is engine.process or len(outcomes) < 200:
                    asked = {**request_document, "purpose": f"{number}"}
                    try:
                        answer = await engine.evaluate(asked, 30)
                        assert answer.result["echo"] == f"{number}"  # type: ignore[index]
                        outcomes.append("decided")
                    except EngineError as error:
                        outcomes.append(error)
                        await asyncio.sleep(0)
                    if len(outcomes) == 100:
                        os.kill(first.pid, signal.SIGKILL)

            await asyncio.gather(*(caller(number) for number in range(16)))
            errors = [o for o in outcomes if o != "decided"]
            assert len(outcomes) - len(errors) >= 84  # of the first 100 at most those under way
            assert errors
            assert {type(o) for o in errors} <= {EngineUnavailable, EngineError}
            await eventually(engine, request_document)
            assert running(engine).pid != first.pid
            await engine.ready()

    run(main)


def test_while_it_is_stopped_each_question_ends_at_its_deadline(
    program: OpaProgram, policy: Path, request_document: dict[str, Any]
) -> None:
    async def main() -> None:
        async with supervised(program, policy, pace=PATIENT) as engine:
            await engine.ready()
            first = running(engine)
            stop(first.pid)
            began = time.monotonic()
            asked = [engine.evaluate(request_document, 0.2) for _ in range(20)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {EngineTimeout}
            assert time.monotonic() - began < 30
            with pytest.raises(EngineError):
                await engine.ready()
            os.kill(first.pid, signal.SIGCONT)
            assert (await eventually(engine, request_document)).result["effect"] == "ALLOW"
            assert engine.process is first  # it answered again before patience ended: no restart

    run(main)


def test_a_hung_one_is_replaced(program: OpaProgram, policy: Path, request_document: dict[str, Any]) -> None:
    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            first = running(engine)
            stop(first.pid)
            await gone(engine, first)
            assert first.ended.result() == -signal.SIGKILL
            assert (await eventually(engine, request_document)).result["effect"] == "ALLOW"

    run(main)


def test_one_whose_socket_is_taken_away_is_replaced(
    program: OpaProgram, policy: Path, request_document: dict[str, Any]
) -> None:
    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            first = running(engine)
            await asyncio.to_thread(socket_of(first).unlink)
            await gone(engine, first)
            assert (await eventually(engine, request_document)).result["effect"] == "ALLOW"

    run(main)


def test_out_of_memory(
    program: OpaProgram, policy: Path, request_document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with supervised(program, policy, pace=PATIENT) as engine:
            await engine.ready()
            first = running(engine)
            limit = address_space(first) + (64 << 20)
            resource.prlimit(first.pid, resource.RLIMIT_AS, (limit, limit))
            huge = {**request_document, "arguments": {"mode": "allocate", "n": 50_000_000}}
            with pytest.raises(EngineError):
                await engine.evaluate(huge, 60)
            await gone(engine, first)
            assert (await eventually(engine, request_document)).result["effect"] == "ALLOW"

    run(main)
    assert "fatal error: runtime: cannot allocate memory" in caplog.text or "out of memory" in caplog.text


def test_the_program_goes_missing_and_comes_back(
    program: OpaProgram, policy: Path, tmp_path: Path, request_document: dict[str, Any]
) -> None:
    link = tmp_path / "opa"
    link.symlink_to(program.path)
    waited = asyncio.Queue[float]()

    async def sleep(seconds: float) -> None:
        waited.put_nowait(seconds)
        await asyncio.sleep(0)

    async def main() -> None:
        async with supervised(find_opa(str(link)), policy, sleep=sleep) as engine:
            await engine.ready()
            link.unlink()
            os.kill(running(engine).pid, signal.SIGKILL)
            for _ in range(3):
                await waited.get()
            with pytest.raises(EngineUnavailable, match="OPA is not running; the sidecar is starting it"):
                await engine.evaluate(request_document, 30)
            with pytest.raises(EngineUnavailable):
                await engine.ready()
            link.symlink_to(program.path)
            assert (await eventually(engine, request_document)).result["effect"] == "ALLOW"

    run(main)


# Listens where it is told to and says what no OPA says.
GARBAGE = """#!{python}
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[sys.argv.index("--addr") + 1].removeprefix("unix://"))
listening.listen()
while True:
    connection = listening.accept()[0]
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\n" * 2)
    connection.close()
"""


def test_one_that_answers_garbage_is_never_believed_and_replaced(
    program: OpaProgram,
    policy: Path,
    tmp_path: Path,
    request_document: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    garbage, link, again = tmp_path / "garbage", tmp_path / "opa", asyncio.Event()
    garbage.write_text(GARBAGE.format(python=sys.executable))
    garbage.chmod(0o700)
    link.symlink_to(program.path)

    async def sleep(_: float) -> None:
        again.set()
        await asyncio.sleep(0)

    async def main() -> None:
        pace = Pace(probe_every=0.05, hung_after=0.5, start_within=0.5)
        async with supervised(find_opa(str(link)), policy, pace=pace, sleep=sleep) as engine:
            link.unlink()
            link.symlink_to(garbage)
            with pytest.raises(EngineUnavailable):  # the first question starts it
                await engine.evaluate(request_document, 30)
            await again.wait()
            with pytest.raises(EngineUnavailable):
                await engine.evaluate(request_document, 30)
            link.unlink()
            link.symlink_to(program.path)
            assert (await eventually(engine, request_document)).result["effect"] == "ALLOW"

    run(main)
    assert "OPA did not come up in 0.5 s; starting it again" in caplog.text


def test_a_crash_loop_backs_off_with_jitter(
    program: OpaProgram, policy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock and the waiting are the test's own: no time passes but what it says."""
    crashing, link = tmp_path / "crashing", tmp_path / "opa"
    link.symlink_to(program.path)
    crashing.write_text("#!/bin/sh\necho 'no such thing' >&2\nexit 3\n")
    crashing.chmod(0o700)
    now, waits, enough = 1000.0, list[float](), asyncio.Event()

    async def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds
        if len(waits) == 12:
            enough.set()
            await asyncio.Event().wait()

    async def main() -> None:
        engine = SupervisedOpa(
            find_opa(str(link)),
            await built(program, policy),
            ENTRYPOINT,
            sleep=sleep,
            monotonic=lambda: now,
            chance=lambda: 0.5,
        )
        link.unlink()
        link.symlink_to(crashing)
        with pytest.raises(EngineUnavailable):
            await engine.ready()
        await enough.wait()
        await engine.close()

    run(main)
    full = [0.1 * 2**n for n in range(7)] + [10.0] * 5
    assert waits == pytest.approx([0.75 * delay for delay in full])
    assert "no such thing" in caplog.text
    assert "OPA ended with status 3; starting it again in 0.08 s" in caplog.text


def test_a_long_run_makes_failures_forgotten(
    program: OpaProgram, policy: Path, request_document: dict[str, Any]
) -> None:
    now, waits = 1000.0, list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def main() -> None:
        nonlocal now
        async with supervised(
            program, policy, pace=Pace(), sleep=sleep, monotonic=lambda: now, chance=lambda: 0.0
        ) as engine:
            for ran in (1.0, 1.0, 20.0, 1.0):
                await eventually(engine, request_document)
                first = running(engine)
                now += ran
                os.kill(first.pid, signal.SIGKILL)
                await gone(engine, first)
            await eventually(engine, request_document)

    run(main)
    assert waits == pytest.approx([0.1, 0.2, 0.1, 0.2])


def test_jitter_takes_off_up_to_half() -> None:
    pace = Pace(first_delay=0.1, longest_delay=10)
    assert [pace.delay(1, chance) for chance in (0.0, 1.0)] == pytest.approx([0.1, 0.05])
    assert [pace.delay(10_000, chance) for chance in (0.0, 1.0)] == pytest.approx([10, 5])


def test_closing_while_it_starts_and_while_it_waits_leaves_nothing(program: OpaProgram, policy: Path) -> None:
    waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def main() -> None:
        engine = SupervisedOpa(program, await built(program, policy), ENTRYPOINT)
        with pytest.raises(EngineUnavailable):
            await engine.evaluate({}, 1)  # begins the start
        await asyncio.sleep(0)
        await engine.close()
        assert engine.process is None
        async with supervised(program, policy, sleep=sleep) as engine:
            await engine.ready()
            os.kill(running(engine).pid, signal.SIGKILL)
            await waiting.wait()

    run(main)


# --- the sidecar's own end ---

OWNER = """
import asyncio, sys
from pathlib import Path
from sidecar.policy import BuiltPolicy, SupervisedOpa, find_opa

async def main():
    engine = SupervisedOpa(find_opa(sys.argv[1]), BuiltPolicy.of(Path(sys.argv[2]).read_bytes()), "p/decision")
    await engine.ready()
    print(engine.process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def owner(program: OpaProgram, policy: Path, temporary: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process with an OPA of its own, and a descriptor of that OPA; killed at the end."""
    bundle = policy.with_suffix(".tar.gz")
    bundle.write_bytes(asyncio.run(built(program, policy)).packed)
    command = [sys.executable, "-c", OWNER, program.path, str(bundle)]
    own = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own) as process:
        assert process.stdout is not None
        descriptor = os.pidfd_open(int(process.stdout.readline()))
        try:
            yield process, descriptor
        finally:
            os.close(descriptor)
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_the_process_that_started_it(
    program: OpaProgram, policy: Path, tmp_path: Path, number: int
) -> None:
    with owner(program, policy, tmp_path) as (process, opa):
        process.send_signal(number)
        assert select.select([opa], [], [], 60)[0]


def test_what_a_killed_one_left_is_removed_by_the_next_and_nothing_else(
    program: OpaProgram, policy: Path, tmp_path: Path
) -> None:
    def places() -> set[Path]:
        return set(tmp_path.glob("sidecar-opa-*"))

    with owner(program, policy, tmp_path) as (process, _):
        (left,) = places()
        process.kill()
        process.wait()
    assert places() == {left}
    with owner(program, policy, tmp_path):
        (second,) = places()
        with owner(program, policy, tmp_path):
            assert second in places()
            assert len(places()) == 2
    assert left not in places()


def test_sidecars_that_start_at_once_leave_each_other_their_places(tmp_path: Path) -> None:
    code = (
        "from sidecar.policy.opa_process import _private_place\n"
        "for _ in range(300):\n"
        "    with _private_place() as place:\n"
        "        (place / 'opa.sock').touch()\n"
    )
    starting = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}) for _ in range(3)
    ]
    assert [process.wait(120) for process in starting] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []
