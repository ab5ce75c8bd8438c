"""MCP's Streamable HTTP towards clients (extra `mcp`: aiohttp), of both generations; what `Sessions` has answers.

A request is answered with JSON where its response is the first that there is to say, else with events. Events have no
ids: what was lost with a connection is not told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from sidecar.enforce.http1 import MOST_CONNECTIONS, PATIENCE, TAKEN, faulty, listening, whole
from sidecar.enforce.mcp import frame as frames
from sidecar.enforce.mcp.frame import PARSE_ERROR, BadFrame, Frame, read
from sidecar.enforce.mcp.heads import (
    SESSION,
    STATUS,
    VERSION,
    Head,
    Reached,
    Refused,
    check_media,
    check_modern,
    is_modern,
    one,
)
from sidecar.enforce.mcp.lanes import Lane
from sidecar.enforce.mcp.sessions import Full, Session, Sessions
from sidecar.enforce.mcp.streams import Stream
from sidecar.errors import RequestError, SidecarError

PATH: Final = "/mcp"
MOST_BYTES: Final = 4 << 20
_BODIES: Final = 16  # that are read at once
_EVENTS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform"}

Schema = Callable[[str], Any]
"""The input schema of a tool, as it was pinned; None where there is none."""


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds. ``sent``: for a head, a body, a handshake; ``taken``: as `listening` has it; ``quiet``: without a
    word, then an empty one, which keeps the connection and shows that it is lost."""

    sent: float = PATIENCE
    taken: float = TAKEN
    quiet: float = 15.0


_PATIENCE: Final = Patience()


@contextlib.asynccontextmanager
async def served(
    sessions: Sessions,
    bound: socket.socket,
    tls: ssl.SSLContext | None,
    reached: Reached,
    schema: Schema,
    patience: Patience = _PATIENCE,
) -> AsyncIterator[None]:
    """Answer on ``bound`` while inside; then all sessions have ended."""
    watching = asyncio.create_task(sessions.watch())
    try:
        async with listening(
            _Http(sessions, reached, schema, patience).answer,
            bound,
            tls,
            MOST_CONNECTIONS,
            patience.sent,
            taken=patience.taken,
            hangs_up=True,
        ):
            try:
                yield
            finally:
                await sessions.end()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _Http:
    """What is answered to what."""

    def __init__(self, sessions: Sessions, reached: Reached, schema: Schema, patience: Patience) -> None:
        self._sessions, self._reached, self._schema, self._patience = sessions, reached, schema, patience
        self._bodies = asyncio.Semaphore(_BODIES)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        head = {name.lower(): request.headers.getall(name) for name in request.headers}
        if found := faulty(request):
            return _error(found[0], frames.INVALID_REQUEST, found[1])
        try:
            return await self._answer(request, head)
        except Refused as refused:
            return _error(refused.status, refused.code, str(refused), refused.data)
        except BadFrame as bad:
            return _error(400, bad.code, f"not passed on: {bad}", id_text=bad.id_text)
        except RequestError as error:
            return _error(413 if error.field == "body" else 400, PARSE_ERROR, str(error))
        except Full as full:
            return _error(503, frames.INVALID_REQUEST, str(full))
        except SidecarError as error:
            return _error(502, frames.INVALID_REQUEST, str(error))

    async def _answer(self, request: web.BaseRequest, head: Head) -> web.StreamResponse:
        self._reached.check(head)
        if request.raw_path != PATH:
            raise Refused(404, f"there is nothing at this path; MCP is at {PATH}")
        if request.method == "POST":
            check_media(head, body=True)
            async with self._bodies:
                frame = read(await whole(request, MOST_BYTES, self._patience.sent, "body"), strict=True)
            try:
                return await self._post(request, head, frame)
            except (Refused, BadFrame, SidecarError) as error:
                return _told(error, frame)
        if request.method == "GET":
            return await self._get(request, head)
        if request.method == "DELETE":
            self._session(head).leave()
            return web.Response(status=204)
        raise Refused(405, "the method is POST, GET or DELETE")

    async def _post(self, request: web.BaseRequest, head: Head, frame: Frame) -> web.StreamResponse:
        if is_modern(head, frame):
            return await self._alone(request, head, frame)
        if frame.method == "initialize" and frame.kind == "request":
            return await self._begin(request, head, frame)
        session = self._session(head)
        if frame.kind != "request":
            await session.client.posted(frame)
            return web.Response(status=202)
        stream = await session.client.asked(frame)
        try:
            return await self._streamed(request, stream, {})
        finally:
            session.touch()
            await session.client.left(stream)

    async def _alone(self, request: web.BaseRequest, head: Head, frame: Frame) -> web.StreamResponse:
        """2026-07-28. Notifications of clients there are none over HTTP: to hang up is to cancel."""
        if frame.kind == "notification":
            return web.Response(status=202)
        if frame.kind == "response":
            raise Refused(400, "a response answers nothing here")
        called = frame.params.get("name") if frame.method == "tools/call" else None
        check_modern(head, frame, self._schema(called) if isinstance(called, str) else None)
        async with self._sessions.lane() as lane:
            return await self._streamed(request, await lane.asked(frame), {}, lane)

    async def _begin(self, request: web.BaseRequest, head: Head, frame: Frame) -> web.StreamResponse:
        if one(head, SESSION):
            raise Refused(400, "a session is begun without the id of one")
        session = await self._sessions.begin()
        stream = await session.client.asked(frame)
        try:
            answer = await self._streamed(request, stream, {SESSION: session.id}, begins=session)
        finally:
            await session.client.left(stream)
            if not session.version:
                session.leave()  # nothing was agreed on
        return answer

    def _session(self, head: Head) -> Session:
        """The session that a request is of. Refused."""
        if not one(head, SESSION):
            raise Refused(400, f"the field {SESSION} is missing: begin with initialize")
        session = self._sessions.find(one(head, SESSION))
        if session is None or session.over:
            raise Refused(404, "there is no such session any more: begin anew with initialize")
        if one(head, VERSION) not in ("", session.version):
            raise Refused(400, f"the field {VERSION} is not what was agreed on")
        return session

    async def _get(self, request: web.BaseRequest, head: Head) -> web.StreamResponse:
        check_media(head, body=False)
        session = self._session(head)
        if head.get("last-event-id"):
            raise Refused(400, "events are not kept here: none is told again (Last-Event-ID)")
        stream = await session.client.listens()
        try:
            return await self._events(request, stream, None, {}, still=lambda: self._reached.still(head))
        finally:
            session.touch()
            await session.client.left(stream)

    async def _streamed(
        self, request: web.BaseRequest, stream: Stream, headers: dict[str, str], lane: Lane | None = None,
        begins: Session | None = None,
    ) -> web.StreamResponse:  # fmt: skip
        """JSON where the response is all that there is to say, else events."""
        try:
            async with asyncio.timeout(self._patience.quiet):
                first = await stream.take()
        except TimeoutError:
            return await self._events(request, stream, None, headers, begins)
        if first is None:
            return _error(502, frames.INVALID_REQUEST, "the gateway ended before it answered")
        if not stream.over:
            return await self._events(request, stream, first, headers, begins)
        if begins is not None:
            begins.agreed(first)
        status = STATUS.get(lane.code, 200) if lane is not None and lane.code is not None else 200
        kept = headers if begins is None or begins.version else {}
        return web.Response(status=status, body=first, content_type="application/json", headers=kept)

    async def _events(
        self, request: web.BaseRequest, stream: Stream, message: bytes | None, headers: dict[str, str],
        begins: Session | None = None, still: Callable[[], bool] = lambda: True,
    ) -> web.StreamResponse:  # fmt: skip
        """``still``: whether it may go on."""
        answer = web.StreamResponse(headers={**_EVENTS, **headers})
        await answer.prepare(request)
        if message is not None:
            await answer.write(_event(message))
        while True:
            try:
                async with asyncio.timeout(self._patience.quiet):
                    message = await stream.take()
            except TimeoutError:
                if not still():
                    break
                await answer.write(b":\n\n")
                continue
            if message is None or not still():
                break
            if begins is not None and stream.over:
                begins.agreed(message)
            await answer.write(_event(message))
        await answer.write_eof()
        return answer


def _event(message: bytes) -> bytes:
    return b"event: message\ndata: " + message + b"\n\n"


def _told(error: Exception, frame: Frame) -> web.Response:
    """What is wrong with a request whose id is known."""
    if isinstance(error, Refused):
        return _error(error.status, error.code, str(error), error.data, frame.id_text)
    if isinstance(error, BadFrame):
        return _error(400, error.code, f"not passed on: {error}", id_text=frame.id_text)
    status = 503 if isinstance(error, Full) else 502
    return _error(status, frames.INVALID_REQUEST, str(error), id_text=frame.id_text)


def _error(status: int, code: int, why: str, data: Any = None, id_text: str = "null") -> web.Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 405: {"Allow": "POST, GET, DELETE"}, 503: {"Retry-After": "5"}}
    response = web.Response(
        status=status,
        body=frames.error(id_text, code, why, data),
        content_type="application/json",
        headers=headers.get(status),
    )
    response.force_close()  # what is left of a body is of no use
    return response
