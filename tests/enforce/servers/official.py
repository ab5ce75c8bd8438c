"""An MCP server of the official SDK, for both protocol generations. Its tools write files: a test sees the deed.

`official.py DIRECTORY` on standard streams; with `TOKEN` besides over HTTP, on a port that it prints; a file `token` in
DIRECTORY has a newer one.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult
from pydantic import BaseModel, Field

PLACE = Path(sys.argv[1])
server = MCPServer("official")


class Sure(BaseModel):
    sure: bool


@server.tool()
def write_file(name: Annotated[str, Field(json_schema_extra={"x-mcp-header": "File"})], text: str = "") -> str:
    """Write a file."""
    (PLACE / name).write_text(text)
    return f"wrote {len(text)} characters"


@server.tool()
def fail(name: str) -> str:
    """Write a file, then fail."""
    (PLACE / name).write_text("failed")
    raise ValueError("it went wrong")


@server.tool()
def big(megabytes: int) -> str:
    """A large result."""
    return "x" * (megabytes << 20)


@server.tool()
async def steps(name: str, context: Context) -> str:
    """Tell progress, then write a file."""
    for step in (1, 2, 3):
        await context.report_progress(step, 3, f"step {step}")
    (PLACE / name).write_text("done")
    return "three steps"


@server.tool()
async def hold(name: str) -> str:
    """Say that it began, then wait for the file `go`."""
    (PLACE / f"{name}.began").write_text("")
    try:
        while not (PLACE / "go").exists():  # noqa: ASYNC110  # another process makes it
            await anyio.sleep(0.01)
    except anyio.get_cancelled_exc_class():
        (PLACE / f"{name}.cancelled").write_text("")
        raise
    (PLACE / name).write_text("done")
    return "held"


@server.tool()
async def ask(name: str, context: Context) -> str | InputRequiredResult:
    """Ask the user first."""
    if context.request_context.protocol_version < "2026":
        answer = await context.elicit("sure?", Sure)
        sure = answer.action == "accept"
    elif context.input_responses is None:
        form = ElicitRequestFormParams(message="sure?", requested_schema=Sure.model_json_schema())
        return InputRequiredResult(input_requests={"sure": ElicitRequest(params=form)})
    else:
        sure = True
    if sure:
        (PLACE / name).write_text("sure")
    return "asked"


@server.resource("note://one")
def note() -> str:
    """A resource."""
    return "a note"


@server.prompt()
def greet(name: str) -> str:
    """A prompt."""
    return f"Hello {name}"


if len(sys.argv) == 2:
    server.run()
else:
    app = server.streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        """Without the credentials that the gateway holds there is nothing to be had."""
        newer = PLACE / "token"
        token = newer.read_text() if newer.exists() else sys.argv[2]
        if scope["type"] == "http" and (b"authorization", f"Bearer {token}".encode()) not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(guarded, log_level="error")).run(sockets=[listening])
