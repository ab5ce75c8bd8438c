"""The AuthZEN working group's own test runners, as they are, against the door.

They are fetched by git from the working group's repository (openid/authzen), at one commit, and compiled as they say
themselves; nothing of theirs is kept here. SIDECAR_AUTHZEN_REPO names another copy of it. A runner knows no client
certificates, so it speaks to a port of this process, and its bytes go on over TLS as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.enforce.pep import HOST, Pep, pep
from tests.languages.building import node_modules
from tests.needs import cannot_run, needs_program
from tests.soak.figures import tell

pytestmark = pytest.mark.soak

REPOSITORY: Final = os.environ.get("SIDECAR_AUTHZEN_REPO", "https://github.com/openid/authzen.git")
COMMIT: Final = "e287920eed842b227e38531c1735b712337ca44d"
TODO, GATEWAYS, SEARCH = (
    "interop/authzen-todo-backend",
    "interop/authzen-api-gateways/test-harness",
    "interop/authzen-search-demo/test-harness",
)
_SECONDS: Final = 600


@pytest.fixture(scope="module")
def theirs() -> Iterator[Path]:
    """Their runners, compiled."""
    git, node = needs_program("git"), needs_program("node")
    modules = node_modules(Path(__file__).parent / "authzen" / "package.json")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for command in (
            ["init", "--quiet", "."],
            ["fetch", "--quiet", "--depth", "1", REPOSITORY, COMMIT],
            ["checkout", "--quiet", "FETCH_HEAD", "--", TODO, GATEWAYS, SEARCH],
        ):
            done = subprocess.run([git, *command], cwd=place, capture_output=True, text=True, timeout=_SECONDS)
            if done.returncode:
                cannot_run(f"git could not bring {REPOSITORY}: {done.stderr.strip()[-200:]}")
        for runner in (TODO, GATEWAYS, SEARCH):
            (place / runner / "node_modules").symlink_to(modules, target_is_directory=True)
            tsc = [node, "node_modules/typescript/bin/tsc"]
            if runner == TODO:  # its application beside needs more than the runner
                tsc += ["--outDir", "build", "--module", "commonjs", "--target", "esnext", "--esModuleInterop"]
                tsc += ["--resolveJsonModule", "--skipLibCheck", "test/runner.ts"]
            subprocess.run(tsc, cwd=place / runner, capture_output=True, timeout=_SECONDS)
            for each in (place / TODO / "test").glob("*.json"):
                (place / TODO / "build" / each.name).write_bytes(each.read_bytes())
        yield place


@pytest.fixture(scope="module")
def it() -> Iterator[Pep]:
    with tempfile.TemporaryDirectory() as place, pep(Path(place), more="context = false\n") as running:
        yield running


@contextlib.contextmanager
def reached(it: Pep) -> Iterator[str]:
    """An address without TLS whose bytes go to the door, over a connection of the PEP's for each."""
    found: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []
    ready = threading.Event()

    async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(65_536):
                writer.write(part)
                await writer.drain()
        writer.close()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", it.port, ssl=it.tls, server_hostname=HOST)
        await asyncio.gather(copied(reader, ours), copied(theirs, writer))

    async def serve() -> None:
        over = asyncio.Event()
        async with await asyncio.start_server(one, "127.0.0.1", 0) as server:
            found.append((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(60)
    port, loop, over = found[0]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(60)


def results(theirs: Path, it: Pep, runner: str, *arguments: str) -> Counter[str]:
    """How often it said PASS, FAIL and ERROR."""
    environment = {**os.environ, "AUTHZEN_PDP_API_KEY": "none is asked for"}
    with reached(it) as url:
        done = subprocess.run(
            [needs_program("node"), "build/runner.js", url, *arguments, "console"],
            cwd=theirs / runner, env=environment, capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = re.findall(r"^\W*(?:\[\d+m)?(PASS|FAIL|ERROR)", done.stdout, re.MULTILINE)
    return Counter(words)


@pytest.mark.parametrize(
    ("runner", "arguments", "expected"),
    [
        (TODO, ("authorization-api-1_0-02",), 43),
        (TODO, ("authorization-api-1_0-01",), 40),
        (GATEWAYS, (), 25),
    ],
)
def test_their_runner_says_pass(
    theirs: Path, it: Pep, request: pytest.FixtureRequest, runner: str, arguments: tuple[str, ...], expected: int
) -> None:
    before = len(it.of("DECISION"))
    said = results(theirs, it, runner, *arguments)
    assert said == {"PASS": expected}
    assert len(it.of("DECISION")) - before >= expected
    tell(request.config, f"AuthZEN, {runner} {' '.join(arguments)}: {expected} of {expected} PASS")


def test_search_is_not_served(theirs: Path, it: Pep) -> None:
    """Nothing is decided; what their runner passes is an empty list, for which it takes any answer without one."""
    before = len(it.of("DECISION"))
    assert results(theirs, it, SEARCH)["FAIL"] > 0
    assert len(it.of("DECISION")) == before
