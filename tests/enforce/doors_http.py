"""The gateway's HTTP side in this process, before servers in memory: for what real clients do not send on command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from sidecar.client import AgentKey, AsyncGuard
from sidecar.enforce.mcp import Catalog, Client, Deciding, Gateway, Limits, Pinning, Pins
from sidecar.enforce.mcp.heads import reached
from sidecar.enforce.mcp.listen import Patience, served
from sidecar.enforce.mcp.sessions import Sessions
from tests.enforce.gates import Gate
from tests.enforce.listeners import TOKEN
from tests.enforce.sides import PATIENCE, TOOL, ServerSide, pins_of

MODERN = "2026-07-28"
_ENVELOPE = "io.modelcontextprotocol/"
BOTH = "application/json, text/event-stream"


@dataclass
class Web:
    """``servers``: one for each gateway that was opened."""

    port: int
    http: aiohttp.ClientSession
    servers: list[ServerSide] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def post(self, message: Any, session: str = "", **fields: str) -> Any:
        """A POST of one message, or of bytes."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.http.post(
            self.url, data=body, headers={**self.head(session), "Content-Type": "application/json", **fields}
        )

    def get(self, session: str = "", **fields: str) -> Any:
        return self.http.get(self.url, headers={**self.head(session), **fields})

    def head(self, session: str) -> dict[str, str]:
        named = {"Mcp-Session-Id": session} if session else {}
        return {"Authorization": f"Bearer {TOKEN}", "Accept": BOTH, **named}

    async def begin(self) -> str:
        """A session of 2025-11-25."""
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        async with self.post(request(0, "initialize", **hello)) as answer:
            assert answer.status == 200, await answer.text()
            return str(answer.headers["Mcp-Session-Id"])

    def alone(self, id_: Any, method: str, *, meta: dict[str, Any] | None = None, **params: Any) -> Any:
        """A POST of one request of 2026-07-28, with the fields that repeat it."""
        own = {f"{_ENVELOPE}protocolVersion": MODERN, f"{_ENVELOPE}clientCapabilities": {}}
        named = params.get("name") or params.get("uri")
        fields = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, **({"Mcp-Name": named} if named else {})}
        return self.post(request(id_, method, **params, _meta={**own, **(meta or {})}), **fields)


def request(id_: Any, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def call(id_: Any, **arguments: Any) -> dict[str, Any]:
    return request(id_, "tools/call", name="write", arguments=arguments)


async def event(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next message of a stream."""
    async with asyncio.timeout(PATIENCE):
        while line := await answer.content.readline():
            if line.startswith(b"data: "):
                return dict(json.loads(line[6:]))
    raise EOFError


@contextlib.asynccontextmanager
async def web(
    g: Gate, make: Callable[[], ServerSide], *, pins: Pins | None = None, most: int = 8, idle: float = 1800.0,
    wait: float = 0.0, patience: Patience | None = None, token: Callable[[], str] = lambda: TOKEN,
    ended: Callable[[], bool] | None = None,
) -> AsyncIterator[Web]:  # fmt: skip
    guard = AsyncGuard(g.desk.up.address, agent="billing-agent", key=AgentKey.from_file(str(g.key)), timeout=20.0)
    deciding = Deciding(guard, "files", wait, g.note)
    pinning = Pinning("files", pins or pins_of(tools=[TOOL]), None, g.note)
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    async with aiohttp.ClientSession() as http:
        w = Web(port, http)

        async def opened(client: Client) -> Gateway:
            w.servers.append(make())
            catalog = Catalog("files", pinning, deciding, g.note)
            return Gateway("files", client, w.servers[-1], deciding, catalog, Limits(), g.note)

        at = reached("127.0.0.1", port, token=token, ended=ended)
        with contextlib.closing(bound):
            all_of = Sessions(opened, most, g.note, idle)
            async with served(all_of, bound, None, at, pinning.pins.schema, patience or Patience()):
                yield w
    await deciding.finish(PATIENCE)
