"""What a server tells a model now, for a person to look at and to pin: asked as a client would."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from sidecar.enforce.mcp.frame import BadFrame, Frame, notification, read, request
from sidecar.enforce.mcp.kinds import KINDS
from sidecar.enforce.mcp.lines import Overlong
from sidecar.enforce.mcp.pages import ListingFailed, Listings
from sidecar.enforce.mcp.pins import Listing
from sidecar.enforce.mcp.ports import Failed, Server
from sidecar.errors import SidecarError

_SECONDS: Final = 60.0
_MODERN: Final = "2026-07-28"
_HANDSHAKE: Final = "2025-11-25"
_ME: Final = {"name": "decision-sidecar", "version": "1"}


async def survey(server: Server) -> tuple[dict[str, Any], Listing]:
    """What it says of itself, and all that it lists. SidecarError where it does not."""
    asking = _Asking(server)
    listings = Listings(asking.ask, _SECONDS)
    try:
        async with asyncio.timeout(_SECONDS):
            await asking.begin(listings)
        return await listings.about(), {kind: await listings.all(kind) for kind in KINDS}
    except TimeoutError:
        raise SidecarError("the server does not say what it has") from None
    except OSError:
        raise SidecarError("the server is gone before it listed its tools") from None
    except ListingFailed as failed:
        raise SidecarError(f"the server does not list what it has: {failed}") from None


class _Asking:
    def __init__(self, server: Server) -> None:
        self._server, self._messages, self._next = server, server.messages(), 0
        self._envelope: dict[str, Any] = {}

    async def begin(self, listings: Listings) -> None:
        """Agree on a version."""
        hello = {"protocolVersion": _HANDSHAKE, "capabilities": {}, "clientInfo": _ME}
        answer = await self.ask("initialize", hello)
        if "error" in answer.members:  # it speaks the newer generation alone
            own = {"protocolVersion": _MODERN, "clientInfo": _ME, "clientCapabilities": {}}
            self._envelope = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in own.items()}}
            return
        result = answer.members["result"].value
        listings.offered = result if isinstance(result, dict) else {}
        await self._server.send(read(notification("notifications/initialized", {}), strict=False))

    async def ask(self, method: str, params: Mapping[str, Any]) -> Frame:
        """The response. OSError where the server is gone."""
        self._next += 1
        own = f"sidecar-{self._next}"
        await self._server.send(read(request(own, method, {**params, **self._envelope}), strict=False))
        async for message in self._messages:
            if isinstance(message, Failed):
                raise BrokenPipeError
            frame = None if isinstance(message, Overlong) else _frame(message)
            if frame is not None and frame.id == ("string", own) and frame.kind == "response":
                return frame
        raise BrokenPipeError


def _frame(message: bytes) -> Frame | None:
    try:
        return read(message, strict=False)
    except BadFrame:
        return None
