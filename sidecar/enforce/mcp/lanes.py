"""One request at a time, without a session (2026-07-28): who asks is told apart by nothing but the connection.

Clients number their requests alike, so each gets an id of this gateway's own on its way to the server: what the server
says of one request, late or twice, is never taken for what it says of another.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from typing import Any, Final

from sidecar.enforce.mcp.frame import Frame, Id, Member, members, notification, read, replaced
from sidecar.enforce.mcp.streams import Room, Stream

_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"


class Lane:
    """The client of one gateway, which serves one request after another."""

    def __init__(self) -> None:
        self._coming: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._asked: Frame | None = None
        self._own = ""
        self._stream: Stream | None = None
        self._ended = False
        self.code: int | None = None
        """JSON-RPC's code, where the answer is an error."""

    async def messages(self) -> AsyncIterator[Frame]:
        """As `Client.messages`."""
        while (frame := await self._coming.get()) is not None:
            yield frame

    async def asked(self, frame: Frame) -> Stream:
        """A request, when there is none under way; the stream has what is told of it, and its response last."""
        self._asked, self._own, self.code = frame, f"h-{os.urandom(16).hex()}", None
        self._stream = Stream(Room())
        if self._ended:
            await self._stream.end()
        await self._coming.put(_renamed(frame, self._own))
        return self._stream

    async def cancel(self) -> None:
        """Nobody waits for the answer any more: the server is told, and this is the end."""
        reason = {"requestId": self._own, "reason": "the client hung up"}
        await self._coming.put(read(notification("notifications/cancelled", reason), strict=True))
        await self._coming.put(None)
        await self.end()

    async def send(self, message: bytes, about: Id | None = None) -> None:
        """As `Client.send`: whatever comes meanwhile is of the request."""
        if self._stream is not None and self._asked is not None:
            frame = read(message, strict=False)
            if frame.kind == "notification":  # there are no requests of the server's in this generation
                await self._stream.put(_subscribed(frame, self._own, self._asked.id_text))

    async def respond(self, key: Id, message: bytes) -> None:
        """As `Client.respond`."""
        stream, self._stream = self._stream, None
        if stream is None or self._asked is None or key != ("string", self._own):
            return
        frame = read(message, strict=False)
        error = frame.members["error"].value if "error" in frame.members else None
        self.code = error.get("code") if isinstance(error, dict) else None
        await stream.put(replaced(frame.members, {"id": self._asked.id_text}).encode(), last=True)

    async def end(self) -> None:
        """The gateway has ended."""
        self._ended = True
        if self._stream is not None:
            await self._stream.end()


def _renamed(frame: Frame, own: str) -> Frame:
    """The request under another id; all else of it is as it came."""
    texts = {"id": f'"{own}"'}
    return dataclasses.replace(
        frame,
        raw=replaced(frame.members, texts).encode(),
        id=("string", own),
        id_text=texts["id"],
        members={**frame.members, "id": Member(own, texts["id"])},
    )


def _subscribed(frame: Frame, own: str, id_text: str) -> bytes:
    """A notification; one of a subscription tells the id that the client gave it."""
    meta: Any = frame.params.get("_meta")
    if not isinstance(meta, dict) or meta.get(_SUBSCRIPTION) != own:
        return frame.raw
    params = members(frame.params_text)
    told = replaced(members(params["_meta"].text), {_SUBSCRIPTION: id_text})
    return replaced(frame.members, {"params": replaced(params, {"_meta": told})}).encode()
