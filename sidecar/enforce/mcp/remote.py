"""A remote MCP server: streamable HTTP of both protocol generations.

Each message is a POST with the very bytes that were judged; what the server sends comes in the answers, as JSON or as
events, and up to 2025-11-25 also in a GET that stays open. Events are not asked for again after a lost connection:
a call whose answer was lost says that it may have been done.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from sidecar.enforce.mcp.events import EventTooLong, events
from sidecar.enforce.mcp.fields import NAME, PLAIN, Fields
from sidecar.enforce.mcp.frame import BadFrame, Frame, Id, read
from sidecar.enforce.mcp.http import Answer, Http, HttpFailed, Place
from sidecar.enforce.mcp.ports import Failed

VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}  # what `Mcp-Name` repeats
_ACCEPT: Final = "application/json, text/event-stream"
_ENCODED: Final = re.compile(r"=\?base64\?.*\?=")
_AT_ONCE: Final = 4  # so many of the longest messages may be read at once
_RECONNECTS: Final = 5
_PAUSE: Final = 1.0  # seconds
_BYE: Final = 2.0
_LATE: Final = 30.0  # how long an answer to what was cancelled is listened for

Schema = Callable[[str], Any]
"""The input schema of a tool, as it was pinned; None where there is none."""


class RemoteServer:
    """``fields`` gives what each request carries besides, as credentials. ``most``: bytes of one message."""

    def __init__(
        self, where: Place, fields: Callable[[], Fields], most: int, schema: Schema, say: Callable[[str], object]
    ) -> None:
        self._http = Http(where)
        self._fields, self._most, self._schema, self._say = fields, most, schema, say
        self._coming: asyncio.Queue[bytes | Failed | None] = asyncio.Queue(2)
        self._posts: dict[Id, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._session = ""
        self._version = ""  # agreed on, up to 2025-11-25
        self._modern = False
        self._reading = 0  # bytes of all answers that are being read

    async def messages(self) -> AsyncIterator[bytes | Failed]:
        """As `Server.messages`."""
        while (message := await self._coming.get()) is not None:
            yield message

    async def send(self, frame: Frame) -> None:
        """As `Server.send`."""
        if frame.id is not None and frame.kind == "request":
            self._modern = _version(frame) is not None
            self._posts[frame.id] = asyncio.create_task(self._request(frame, frame.id))
            return
        if self._modern and frame.kind == "notification":
            return  # there are none over HTTP since 2026-07-28; to hang up is to cancel
        async with self._http.ask("POST", self._head(frame), frame.raw) as answer:
            if answer.status >= 300:
                raise HttpFailed(f"the server answers with status {answer.status}")
            async for _ in answer.body:
                pass
        if frame.method == "notifications/initialized" and self._listening is None:
            self._listening = asyncio.create_task(self._listen())

    async def forget(self, frame: Frame) -> None:
        """As `Server.forget`."""
        post = self._posts.get(frame.id) if frame.id is not None else None
        if post is not None:
            asyncio.get_running_loop().call_later(0 if self._modern else _LATE, post.cancel)

    async def end(self) -> str:
        """As `Server.end`."""
        tasks = [*self._posts.values(), *([self._listening] if self._listening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_BYE), self._http.ask("DELETE", self._head(None)):
                    pass
        self._http.close()
        with contextlib.suppress(asyncio.QueueFull):
            while not self._coming.empty():
                self._coming.get_nowait()
            self._coming.put_nowait(None)
        return "the connection was closed"

    async def _request(self, frame: Frame, key: Id) -> None:
        """One request, and what comes in its answer."""
        try:
            async with self._http.ask("POST", self._head(frame), frame.raw) as answer:
                if frame.method != "subscriptions/listen":  # which goes on, and holds one event at a time
                    answer = dataclasses.replace(answer, body=self._counted(answer.body))
                why = await self._answered(frame, key, answer)
        except EventTooLong:
            why = Failed(
                key, f"it, or all that are read at once, have more bytes than are read ({self._most})", "too large"
            )
        except OSError as error:
            why = Failed(key, f"the connection to the server failed: {error}", "connection failed")
        finally:
            if self._posts.get(key) is asyncio.current_task():
                del self._posts[key]
        if why is not None:
            await self._coming.put(why)

    async def _counted(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Many answers at once have a bound together. Raises EventTooLong."""
        size = 0
        try:
            async for part in body:
                size += len(part)
                self._reading += len(part)
                if self._reading > self._most * _AT_ONCE:
                    raise EventTooLong
                yield part
        finally:
            self._reading -= size

    async def _answered(self, frame: Frame, key: Id, answer: Answer) -> Failed | None:
        kind = answer.fields.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream" and answer.status == 200:
            async for message in events(answer.body, self._most):
                if await self._came(message, frame, answer):
                    return None
            return Failed(key, "the server closed the connection before it answered", "connection closed")
        body = await _whole(answer.body, self._most)
        if kind == "application/json" and await self._came(body, frame, answer):
            return None
        return Failed(key, f"the server answers with status {answer.status} and no message", f"status {answer.status}")

    async def _came(self, message: bytes, frame: Frame, answer: Answer) -> bool:
        """Hand a message on; whether it is the response to ``frame``."""
        final = False
        try:
            came = read(message, strict=False)
            final = came.kind == "response" and came.id == frame.id
            if final and frame.method == "initialize" and "result" in came.members:
                self._agreed(came, answer)
        except BadFrame:
            pass  # the gateway says so
        await self._coming.put(message)
        return final

    def _agreed(self, came: Frame, answer: Answer) -> None:
        session = answer.fields.get("mcp-session-id", "")
        self._session = session if PLAIN.fullmatch(session) else ""
        result = came.members["result"].value
        version = result.get("protocolVersion") if isinstance(result, dict) else None
        self._version = version if isinstance(version, str) and PLAIN.fullmatch(version) else ""

    async def _listen(self) -> None:
        """What the server sends of itself, up to 2025-11-25."""
        failures = 0
        while failures < _RECONNECTS:
            try:
                fields = [*self._head(None), ("Accept", "text/event-stream")]
                async with self._http.ask("GET", fields) as answer:
                    if answer.status != 200:
                        return  # it has none
                    async for message in events(answer.body, self._most):
                        failures = 0
                        await self._coming.put(message)
            except (OSError, EventTooLong):
                pass
            failures += 1
            await asyncio.sleep(_PAUSE)
        self._say("the server's own messages are not heard any more")

    def _head(self, frame: Frame | None) -> list[tuple[str, str]]:
        fields = [*self._fields()]
        version = _version(frame) if frame is not None else None
        if frame is not None:
            fields += [("Content-Type", "application/json"), ("Accept", _ACCEPT)]
        if self._session:
            fields.append(("Mcp-Session-Id", self._session))
        if version is None:
            return fields + ([("MCP-Protocol-Version", self._version)] if self._version else [])
        assert frame is not None
        fields += [("MCP-Protocol-Version", encoded(version)), ("Mcp-Method", encoded(frame.method))]
        named = frame.params.get(NAMED.get(frame.method, ""))
        if isinstance(named, str):
            fields.append(("Mcp-Name", encoded(named)))
        if frame.method == "tools/call" and isinstance(named, str):
            fields += repeated(self._schema(named), frame.params.get("arguments", {}))
        return fields


def repeated(schema: Any, arguments: Any) -> list[tuple[str, str]]:
    """The arguments that a tool's schema wants repeated as fields of HTTP (`x-mcp-header`, 2026-07-28)."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or not isinstance(arguments, Mapping):
        return []
    fields: list[tuple[str, str]] = []
    for name, part in properties.items():
        if not isinstance(part, Mapping) or arguments.get(name) is None:
            continue
        token, value = part.get("x-mcp-header"), arguments[name]
        if isinstance(token, str) and NAME.fullmatch(token) and isinstance(value, str | int):
            text = ("true" if value else "false") if isinstance(value, bool) else str(value)
            fields.append((f"Mcp-Param-{token}", encoded(text)))
        fields += repeated(part, value)
    return fields


def encoded(value: str) -> str:
    """A value as HTTP carries it: as it is where it can be, else in base64 (2026-07-28, "Value Encoding")."""
    if PLAIN.fullmatch(value) and value == value.strip() and not _ENCODED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def _version(frame: Frame) -> str | None:
    meta = frame.params.get("_meta") if frame.kind != "response" else None
    version = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


async def _whole(body: AsyncIterator[bytes], most: int) -> bytes:
    parts, size = [], 0
    async for part in body:
        parts.append(part)
        size += len(part)
        if size > most:
            raise EventTooLong
    return b"".join(parts)
