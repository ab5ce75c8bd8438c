"""HTTP/1.1 for the door (extra `authzen`: aiohttp), over TLS or on a unix socket. What is sent here is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from sidecar.chain import strictjson
from sidecar.decide import FAILED
from sidecar.enforce.authzen import answers
from sidecar.enforce.authzen.answers import Told
from sidecar.enforce.authzen.asked import APPROVAL_OF, BODY
from sidecar.enforce.authzen.door import ENCODING, EVALUATION, EVALUATIONS, AuthZenDoor, Head
from sidecar.enforce.authzen.tls import shown
from sidecar.enforce.http1 import MOST_CONNECTIONS, PATIENCE, faulty, listening, whole

REQUEST_ID: Final = "x-request-id"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST: Final = 60.0  # seconds of a PEP's certificate

_CALLS: Final = {answers.EVALUATION: EVALUATION, answers.EVALUATIONS: EVALUATIONS}
_METHODS: Final = {**dict.fromkeys((*_CALLS, *answers.SEARCHES), "POST"), answers.METADATA: "GET"}
_ID: Final = re.compile(r"\A[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?\Z")


class Connection:
    """A connection, asked as `Transports` asks gRPC's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def peer(self) -> str:
        """Where it comes from, as gRPC writes it."""
        name = self._transport.get_extra_info("peername")
        if not isinstance(name, tuple):
            return "unix:"
        return f"ipv6:[{name[0]}]:{name[1]}" if len(name) > 2 else f"ipv4:{name[0]}:{name[1]}"

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """The certificates that the peer showed."""
        secured = self._transport.get_extra_info("ssl_object")
        if secured is None:
            return {}
        leaf, sent = shown(secured)
        return {"x509_pem_cert": [leaf], "x509_pem_cert_chain": [sent]}


def served(
    door: AuthZenDoor,
    bound: socket.socket,
    tls: ssl.SSLContext | None,
    most: int = MOST_CONNECTIONS,
    patience: float = PATIENCE,
    begun: Callable[[], object] = lambda: None,
    failed: Callable[[bytes], object] = lambda _: None,
) -> contextlib.AbstractAsyncContextManager[None]:
    """Answer on ``bound`` while inside; all but ``door`` as `listening` has it."""
    return listening(_Http(door, patience).answer, bound, tls, most, patience, begun=begun, failed=failed)


class _Http:
    """What is at which path."""

    def __init__(self, door: AuthZenDoor, patience: float) -> None:
        self._door, self._patience = door, patience

    async def answer(self, request: web.BaseRequest) -> web.Response:
        ids = request.headers.getall(REQUEST_ID, [])
        known = len(ids) == 1 and _ID.match(ids[0]) is not None
        try:
            fault = faulty(request)
            if ids and not known:
                fault = 400, f"{REQUEST_ID}: is not one of 1 to 256 printable characters"
            if fault:
                self._door.unanswered("INVALID_ARGUMENT")
                told = answers.error(fault[0], "refused", fault[1])
            else:
                told = await self._told(request)
        except Exception as error:
            self._door.unanswered("INTERNAL", type(error).__name__)
            told = answers.error(500, "failed", FAILED)
        headers = {"Cache-Control": "no-store", **told.headers, **({REQUEST_ID: ids[0]} if known else {})}
        response = web.Response(
            status=told.status, body=strictjson.dumps(dict(told.body)), content_type="application/json", headers=headers
        )  # fmt: skip
        if told.status >= 400 or _last(request):
            response.force_close()  # what is left of a body is of no use
        return response

    async def _told(self, request: web.BaseRequest) -> Told:
        path, door = request.raw_path, self._door
        method = _METHODS.get(path)
        if method is None or (path == answers.METADATA and not door.settings.url):
            door.unanswered("NOT_FOUND")
            return answers.error(404, "refused", "there is nothing at this path")
        if request.method != method:
            door.unanswered("UNIMPLEMENTED")
            return answers.error(405, "refused", f"the method is {method}", Allow=method)
        if path == answers.METADATA:
            return Told(200, answers.metadata(door.settings.url), {"Cache-Control": "max-age=300"})
        if path in answers.SEARCHES:
            door.unanswered("UNIMPLEMENTED")
            return answers.error(501, "unimplemented", "there is no search: policies decide one evaluation at a time")
        assert request.transport is not None

        async def read() -> bytes:
            if "expect" in request.headers:
                await request.writer.write(_CONTINUE)
            return await whole(request, door.settings.max_bytes, self._patience, BODY)

        return await door.answered(_CALLS[path], _head(request), read, Connection(request.transport))


def _last(request: web.BaseRequest) -> bool:
    """Whether its connection is to be used no more: the peer wants another protocol, or has to show a newer
    certificate soon."""
    secured = request.transport and request.transport.get_extra_info("ssl_object")
    end = ssl.cert_time_to_seconds(secured.getpeercert()["notAfter"]) if secured else math.inf
    return "upgrade" in request.headers or end < time.time() + _LAST


def _head(request: web.BaseRequest) -> Head:
    def all_of(name: str) -> tuple[str, ...]:
        return tuple(request.headers.getall(name, []))

    return Head(all_of("content-type"), all_of(ENCODING), all_of(APPROVAL_OF), request.headers.get("traceparent", ""))
