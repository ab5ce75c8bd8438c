"""HTTP/1.1 for the door (extra `authzen`: aiohttp), over TLS or on a unix socket. What is sent here is bounded.

Heads of 8 KiB a line and 64 lines, bodies of ``max_bytes``, so many connections, ten seconds for a head and ten for a
body; one more is dropped, or answered with an error. Whatever is sent, the rest of the process goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

from aiohttp import web

from sidecar.chain import strictjson
from sidecar.decide import FAILED
from sidecar.enforce.authzen import answers
from sidecar.enforce.authzen.answers import Told
from sidecar.enforce.authzen.asked import APPROVAL_OF, BODY
from sidecar.enforce.authzen.door import ENCODING, EVALUATION, EVALUATIONS, AuthZenDoor, Head
from sidecar.enforce.authzen.tls import shown
from sidecar.errors import RequestError

MOST_CONNECTIONS: Final = 256
PATIENCE: Final = 10.0  # seconds for a head, a body, a handshake
STOP_GRACE: Final = 5.0  # seconds for what is under way
REQUEST_ID: Final = "x-request-id"
_LAST: Final = 60.0  # seconds of a PEP's certificate

_CALLS: Final = {answers.EVALUATION: EVALUATION, answers.EVALUATIONS: EVALUATIONS}
_METHODS: Final = {**dict.fromkeys((*_CALLS, *answers.SEARCHES), "POST"), answers.METADATA: "GET"}
_ID: Final = re.compile(r"\A[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?\Z")
_SILENT: Final = logging.getLogger("sidecar.doors.authzen.http")  # what aiohttp says of bad requests holds their bytes
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


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


@contextlib.asynccontextmanager
async def served(
    door: AuthZenDoor,
    bound: socket.socket,
    tls: ssl.SSLContext | None,
    most: int = MOST_CONNECTIONS,
    patience: float = PATIENCE,
) -> AsyncIterator[None]:
    """Answer on ``bound`` while inside. ``most``: connections at once; ``patience``: seconds for a head, for a body and
    for a handshake."""
    server = web.Server(
        _Http(door, patience).answer,
        keepalive_timeout=patience,
        max_headers=64,
        lingering_time=1.0,
        auto_decompress=False,
        access_log=None,
        logger=_SILENT,
    )

    def accepted() -> asyncio.Protocol:
        return server() if len(server.connections) < most else _Dropped()

    loop, limit = asyncio.get_running_loop(), patience if tls else None
    if bound.family == socket.AF_UNIX:
        listener = await loop.create_unix_server(accepted, sock=bound)
    else:
        listener = await loop.create_server(accepted, sock=bound, ssl=tls, ssl_handshake_timeout=limit)
    try:
        yield
    finally:
        listener.close()
        server.pre_shutdown()
        await server.shutdown(STOP_GRACE)


class _Dropped(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class _Http:
    """What is at which path."""

    def __init__(self, door: AuthZenDoor, patience: float) -> None:
        self._door, self._patience = door, patience

    async def answer(self, request: web.BaseRequest) -> web.Response:
        ids = request.headers.getall(REQUEST_ID, [])
        known = len(ids) == 1 and _ID.match(ids[0]) is not None
        try:
            if ids and not known:
                self._door.unanswered("INVALID_ARGUMENT")
                told = answers.error(400, "refused", f"{REQUEST_ID}: is not one of 1 to 256 printable characters")
            else:
                told = await self._told(request)
        except Exception as error:
            self._door.unanswered("INTERNAL", type(error).__name__)
            told = answers.error(500, "failed", FAILED)
        headers = {"Cache-Control": "no-store", **told.headers, **({REQUEST_ID: ids[0]} if known else {})}
        response = web.Response(
            status=told.status, body=strictjson.dumps(dict(told.body)), content_type="application/json", headers=headers
        )  # fmt: skip
        # What is left of a body is of no use; and a PEP that connects anew in time shows its next certificate.
        if told.status >= 400 or _end_of_certificate(request.transport) < time.time() + _LAST:
            response.force_close()
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
            return await _body(request, door.settings.max_bytes, self._patience)

        return await door.answered(_CALLS[path], _head(request), read, Connection(request.transport))


def _end_of_certificate(transport: asyncio.Transport | None) -> float:
    """When the one that the peer showed ends, in seconds since 1970; without one, never."""
    secured = transport and transport.get_extra_info("ssl_object")
    return ssl.cert_time_to_seconds(secured.getpeercert()["notAfter"]) if secured else math.inf


def _head(request: web.BaseRequest) -> Head:
    def all_of(name: str) -> tuple[str, ...]:
        return tuple(request.headers.getall(name, []))

    return Head(all_of("content-type"), all_of(ENCODING), all_of(APPROVAL_OF), request.headers.get("traceparent", ""))


async def _body(request: web.BaseRequest, most: int, patience: float) -> bytes:
    """All of it. Raises RequestError for one that is too long, too slow, or not all there."""
    if (request.content_length or 0) > most:
        raise RequestError(BODY, f"is longer than {most} bytes")
    found = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for part in request.content.iter_any():
                found += part
                if len(found) > most:
                    raise RequestError(BODY, f"is longer than {most} bytes")
    except TimeoutError:
        raise RequestError("request", f"did not come within {patience:g} seconds") from None
    except (web.RequestPayloadError, OSError):
        raise RequestError("request", "ended before its end") from None
    return bytes(found)
