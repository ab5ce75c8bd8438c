"""A server's tools as they are now, for a person to look at and to pin: asked as a client would."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from sidecar.enforce.mcp.frame import BadFrame, notification, read, request
from sidecar.enforce.mcp.lines import Overlong
from sidecar.enforce.mcp.pages import ListingFailed, all_tools
from sidecar.enforce.mcp.ports import Failed, Server
from sidecar.errors import SidecarError

_SECONDS: Final = 60.0
_MODERN: Final = "2026-07-28"
_HANDSHAKE: Final = "2025-11-25"
_ME: Final = {"name": "decision-sidecar", "version": "1"}


async def survey(server: Server) -> list[Any]:
    """All that it lists. SidecarError where it does not."""
    asking = _Asking(server)
    try:
        async with asyncio.timeout(_SECONDS):
            envelope = await asking.begin()
        return await all_tools(lambda params: asking.ask("tools/list", {**params, **envelope}), _SECONDS)
    except (TimeoutError, LookupError):
        raise SidecarError("the server does not list its tools") from None
    except OSError:
        raise SidecarError("the server is gone before it listed its tools") from None
    except ListingFailed as failed:
        raise SidecarError(f"the server does not list its tools: {failed}") from None


class _Asking:
    def __init__(self, server: Server) -> None:
        self._server, self._messages, self._next = server, server.messages(), 0

    async def begin(self) -> dict[str, Any]:
        """Agree on a version; what every request then carries."""
        hello = {"protocolVersion": _HANDSHAKE, "capabilities": {}, "clientInfo": _ME}
        try:
            await self.ask("initialize", hello)
        except LookupError:  # it speaks the newer generation alone
            own = {"protocolVersion": _MODERN, "clientInfo": _ME, "clientCapabilities": {}}
            return {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in own.items()}}
        await self._server.send(read(notification("notifications/initialized", {}), strict=False))
        return {}

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result. LookupError for an error; OSError where the server is gone."""
        self._next += 1
        own = f"sidecar-{self._next}"
        await self._server.send(read(request(own, method, params), strict=False))
        async for message in self._messages:
            if isinstance(message, Failed):
                raise BrokenPipeError
            frame = None if isinstance(message, Overlong) else _frame(message)
            if frame is None or frame.id != ("string", own) or frame.kind != "response":
                continue
            if "error" in frame.members:
                raise LookupError(method)
            value = frame.members["result"].value
            return value if isinstance(value, dict) else {}
        raise BrokenPipeError


def _frame(message: bytes) -> Any:
    try:
        return read(message, strict=False)
    except BadFrame:
        return None
