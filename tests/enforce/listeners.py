"""`sidecar mcp --listen` as a process, and real clients of it over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.enforce.gates import Gate
from tests.program import environment

TOKEN = "a-token-of-these-tests"


@dataclass
class Listener:
    """``address``: host:port, or a socket's path."""

    address: str
    process: asyncio.subprocess.Process
    token: str = TOKEN
    ca: str = ""

    @property
    def url(self) -> str:
        scheme = "https" if self.ca else "http"
        return f"{scheme}://{'localhost' if self.address.startswith('/') else self.address}/mcp"

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def http(self) -> httpx2.AsyncClient:
        transport = httpx2.AsyncHTTPTransport(uds=self.address) if self.address.startswith("/") else None
        timeout = httpx2.Timeout(60.0)
        knows = ssl.create_default_context(cafile=self.ca) if self.ca else False
        return httpx2.AsyncClient(
            headers=self.bearer, transport=transport, timeout=timeout, trust_env=False, verify=knows
        )

    @contextlib.asynccontextmanager
    async def client(self, **how: Any) -> AsyncIterator[Client]:
        """The official SDK's client."""
        async with (
            self.http() as http,
            Client(streamable_http_client(self.url, http_client=http, max_sse_event_size=None), **how) as client,
        ):
            yield client

    def children(self) -> list[int]:
        """The servers that it has started and that run."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(each) for each in listed]


@contextlib.asynccontextmanager
async def listening(
    g: Gate,
    *more: str,
    program: Sequence[str] | None = None,
    upstream: str | None = None,
    address: str = "127.0.0.1:0",
) -> AsyncIterator[Listener]:
    """The process, until the test is done with it; then it ends as it should."""
    where = [*listens(g.key.parent, address), *more]
    command = g.command(*where, program=program)
    if upstream is not None:
        command = [command[0], *g.options("--upstream", upstream, *where)[:-1]]
    async with launched(command, g.note) as at:
        yield at


def listens(place: Path, address: str = "127.0.0.1:0") -> list[str]:
    """The options."""
    token = place / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    return ["--listen", address, *([] if address.startswith("unix:") else ["--token-file", str(token)])]


@contextlib.asynccontextmanager
async def launched(command: Sequence[str], note: Callable[[str], object]) -> AsyncIterator[Listener]:
    """A gateway that listens, by its whole command; ``note`` is told each line of its standard error."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment())
    assert process.stderr is not None
    reading = None
    try:
        async with asyncio.timeout(60):
            while b"listens on " not in (line := await process.stderr.readline()):
                assert line, "the gateway ended"
                note(line.decode().rstrip())
        reading = asyncio.create_task(_kept(note, process.stderr))
        yield Listener(line.decode().split("listens on ")[1].strip().removeprefix("unix:"), process)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def _kept(note: Callable[[str], object], stream: asyncio.StreamReader) -> None:
    while line := await stream.readline():
        note(line.decode().rstrip())
