"""The two sides of a gateway in memory: a client that a test writes as, and a server that does what a test tells it.

For what a real server does not do on command. The gateway, its guard and the sidecar behind it are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from sidecar.client import AgentKey, AsyncGuard
from sidecar.enforce.mcp import Catalog, Deciding, Gateway, Limits, Pinning, Pins, pinned
from sidecar.enforce.mcp.frame import Frame
from sidecar.enforce.mcp.kinds import KINDS, Kind
from sidecar.enforce.mcp.kinds import TOOL as TOOLS
from sidecar.enforce.mcp.lines import Overlong, lines
from tests.enforce.gates import Gate

TOOL = {"name": "write", "description": "Writes.", "inputSchema": {"type": "object"}}
PATIENCE = 30.0


class Side:
    """What it sends is put into ``sending``; None is its end. What it gets is in ``got``."""

    def __init__(self) -> None:
        self.sending: asyncio.Queue[bytes | Overlong | None] = asyncio.Queue()
        self.got: list[bytes] = []
        self._news = asyncio.Condition()

    async def messages(self) -> AsyncIterator[bytes | Overlong]:
        while (message := await self.sending.get()) is not None:
            yield message

    async def take(self, message: bytes) -> None:
        async with self._news:
            self.got.append(message)
            self._news.notify_all()

    async def until(self, seen: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """What it got, once that is so."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: seen(self.read()))
        return self.read()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(message) for message in self.got]

    def put(self, message: Any) -> None:
        self.sending.put_nowait(
            message if isinstance(message, bytes | Overlong | None) else json.dumps(message).encode()
        )


class ClientSide(Side):
    async def send(self, message: bytes, about: Any = None) -> None:
        await self.take(message)

    async def respond(self, key: Any, message: bytes) -> None:
        await self.take(message)

    def ask(self, id: Any, method: str, **params: Any) -> None:
        self.put({"jsonrpc": "2.0", "id": id, "method": method, "params": params})

    def call(self, id: Any, **arguments: Any) -> None:
        self.ask(id, "tools/call", name="write", arguments=arguments)

    async def answer(self, id: Any) -> dict[str, Any]:
        """The response with this id, type and all."""

        def found(got: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [m for m in got if "method" not in m and m.get("id") == id and type(m.get("id")) is type(id)]

        return found(await self.until(lambda got: bool(found(got))))[0]


class ServerSide(Side):
    """``act`` is called with each request or notification, and gives what is sent back, if anything."""

    def __init__(self, act: Callable[[dict[str, Any]], Any] | None = None, tools: list[Any] | None = None) -> None:
        super().__init__()
        self.tools = [TOOL] if tools is None else tools
        self.act = act or (lambda message: answer(message, {"content": [], "isError": False}))
        self.offered: dict[str, Any] = {"capabilities": {"prompts": {}, "resources": {}}}
        self.more: dict[Kind, list[Any]] = {kind: [] for kind in KINDS}
        self.gone = False

    async def send(self, frame: Frame) -> None:
        if self.gone:
            raise BrokenPipeError
        message = json.loads(frame.raw)
        if str(message.get("id")).startswith("sidecar-"):
            self.put(answer(message, self.told(message["method"])))
            return
        await self.take(frame.raw)
        if "method" in message:
            said = self.act(message)
            for each in said if isinstance(said, list) else [] if said is None else [said]:
                self.put(each)

    def told(self, method: str) -> dict[str, Any]:
        """What the gateway hears that asks for itself."""
        if method == "server/discover":
            return self.offered
        return {
            kind.listed: self.tools if kind is TOOLS else self.more[kind] for kind in KINDS if kind.method == method
        }

    async def forget(self, frame: Frame) -> None:
        pass

    async def end(self) -> str:
        self.gone = True
        self.put(None)
        return "it ended with status 3"

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [message for message in self.read() if message.get("method") == "tools/call"]


def answer(message: dict[str, Any], result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def pins_of(about: Mapping[str, Any] | None = None, **listed: list[Any]) -> Pins:
    """Pins of the server `files`: of what it says of itself, and by the lists' names."""
    return pinned("files", about or {}, {kind: listed.get(kind.listed, []) for kind in KINDS})


@contextlib.asynccontextmanager
async def between(
    g: Gate,
    server: ServerSide | None = None,
    *,
    pins: Pins | None = None,
    first: Path | None = None,
    limits: Limits | None = None,
    timeout: float = 20.0,
    wait: float = 0.0,
    address: str | None = None,
) -> AsyncIterator[tuple[ClientSide, ServerSide]]:
    """The gateway between the two, until the test is done with it; then everything is told."""
    client, server = ClientSide(), server or ServerSide()
    say = g.note
    key = AgentKey.from_file(str(g.key))
    guard = AsyncGuard(address or g.desk.up.address, agent="billing-agent", key=key, timeout=timeout)
    deciding = Deciding(guard, "files", wait, say)
    known = pins or (None if first else pins_of(tools=[TOOL]))
    catalog = Catalog("files", Pinning("files", known, first, say), deciding, say)
    gateway = Gateway("files", client, server, deciding, catalog, limits or Limits(), say)
    running = asyncio.create_task(gateway.run(asyncio.Event()))
    try:
        yield client, server
    finally:
        client.put(None)
        async with asyncio.timeout(PATIENCE):
            await running
        await deciding.finish(PATIENCE)


async def whole(stream: bytes, most: int, piece: int = 7) -> list[bytes | Overlong]:
    """The lines of a stream that comes in pieces."""
    left = [stream[at : at + piece] for at in range(0, len(stream), piece)]

    class Pieces:
        async def read(self, n: int = -1, /) -> bytes:
            return left.pop(0) if left else b""

    return [line async for line in lines(Pieces(), most)]
