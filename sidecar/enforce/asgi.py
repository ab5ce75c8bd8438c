"""The executor's door before an ASGI application (FastAPI, Starlette, …): a request runs only under a permit for it.

    app.add_middleware(PermitMiddleware, permits=PermitCheck(…), reporter=AsyncReporter(…), wanted=wanted)

    def wanted(scope, body):                                   # what this request would do
        if scope["path"] == "/transfers":
            return Wanted("payments.transfer", ("account", json.loads(body)["to"]), body)
        return FREE if scope["path"] == "/healthz" else None   # None: nobody may

Nothing of the framework is imported. Headers, answers and outcomes are those of DOORS.md, "Executors".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from sidecar.chain.permit import Permit
from sidecar.client.act import Act
from sidecar.client.permits import PermitCheck, PermitRefused
from sidecar.client.reporter import AsyncReporter
from sidecar.enforce.wanted import Free, Wanted
from sidecar.errors import SidecarError

HEADER: Final = b"sidecar-permit"
_BODY: Final = {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Refusal(Exception):
    def __init__(self, status: int, cause: str, message: str) -> None:
        super().__init__(message)
        self.status, self.cause = status, cause


class _ServerError(Exception):
    """The application has answered that it failed."""


class PermitMiddleware:
    """``wanted`` is given the scope and the whole body, and says what a request would do.

    Its answer None, or an exception of it, is a refusal. ``body_bytes``: the longest body. The application finds the
    `Act` under way in ``scope["sidecar.act"]``.
    """

    def __init__(
        self, app: App, *, permits: PermitCheck, reporter: AsyncReporter,
        wanted: Callable[[Scope, bytes], Wanted | Free | None], body_bytes: int = 1 << 20,
    ) -> None:  # fmt: skip
        self._app, self._permits, self._reporter = app, permits, reporter
        self._wanted, self._most = wanted, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection. Other kinds than requests and the application's own start and end are refused."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "needs a permit, which only requests carry"})
        else:
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _whole(receive, self._most)
            permit = await self._permit(scope, body)
        except _Refusal as refusal:
            await _refused(send, refusal)
            return
        if permit is None:
            await self._app(scope, _replayed(body, receive), send)
            return
        try:
            async with self._reporter.acting(permit) as act:
                told = _Told(act, send)
                await self._app({**scope, "sidecar.act": act}, _replayed(body, receive), told.send)
                told.end()
        except _ServerError:
            pass  # it is told and reported

    async def _permit(self, scope: Scope, body: bytes) -> Permit | None:
        """The permit, taken; None: none is needed. Raises _Refusal."""
        try:
            wanted = self._wanted(scope, body)
        except Exception as error:
            raise _Refusal(403, "unknown", f"what it would do cannot be told: {type(error).__name__}") from error
        if isinstance(wanted, Free):
            return None
        if not isinstance(wanted, Wanted):
            raise _Refusal(403, "unknown", "nobody may do that here")
        brought = _brought(scope)
        try:  # in a thread: what was taken may be kept in a file
            return await asyncio.to_thread(
                self._permits.check, brought, wanted.action, wanted.resource, wanted.arguments
            )
        except PermitRefused as refused:
            raise _Refusal(403, refused.cause, str(refused)) from None
        except SidecarError as error:
            raise _Refusal(403, "arguments", str(error)) from None


class _Told:
    """Watches what the application answers."""

    def __init__(self, act: Act, send: Send) -> None:
        self._act, self._send = act, send
        self._status = 0
        self._ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._act.respond({"status": self._status}, status=str(self._status))
        elif message["type"] in _BODY:
            self._ended = not message.get("more_body", False)
        await self._send(message)

    def end(self) -> None:
        """Raises _ServerError where it failed, or left its answer unfinished."""
        if self._status >= 400 or not self._ended:
            raise _ServerError


def _brought(scope: Scope) -> bytes:
    given = [value for name, value in scope["headers"] if name.lower() == HEADER]
    if len(given) != 1:
        raise _Refusal(403, "missing" if not given else "forged", f"needs one {HEADER.decode()} header")
    try:
        return base64.b64decode(given[0] + b"=" * (-len(given[0]) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _Refusal(403, "forged", f"{HEADER.decode()}: is not base64url") from None


async def _whole(receive: Receive, most: int) -> bytes:
    """The body. Raises _Refusal for one that is too long or was broken off: a part is never judged as the whole."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Refusal(400, "body", "the request was broken off")
        body += message.get("body", b"")
        if len(body) > most:
            raise _Refusal(413, "body", f"a body of more than {most} bytes cannot be checked")
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The application reads the very bytes that were checked, then what the connection says."""
    left = [body]

    async def read() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return read


async def _refused(send: Send, refusal: _Refusal) -> None:
    told = {"error": "not done", "cause": refusal.cause, "message": str(refusal)}
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
