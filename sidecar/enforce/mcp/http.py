"""HTTP/1.1 to one server (extra `mcp`: h11), over connections that are kept for the next request.

An answer's body comes piece by piece. Redirects are not followed: what an agent sends is for the server that was named.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import h11

from sidecar.errors import UsageError

_CONNECT_SECONDS: Final = 10.0
_MOST_IDLE: Final = 8
_CHUNK: Final = 1 << 18


class HttpFailed(OSError):
    """The exchange failed; its text names the cause and quotes nothing of the server's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is."""

    host: str
    port: int
    target: str
    authority: str
    tls: ssl.SSLContext | None


def place(url: str, ca: Path | None) -> Place:
    """What a URL says. UsageError for one that is no http(s) URL, or unencrypted and not on this host."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.username or parts.fragment:
        raise UsageError(
            "--upstream is an http or https URL without a user name or a fragment, as https://example.org/mcp"
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise UsageError("--upstream: its path must be percent-encoded")
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise UsageError("--upstream: unencrypted only to this host itself (127.0.0.1, ::1, localhost); use https")
    tls = None
    if parts.scheme == "https":
        try:
            tls = ssl.create_default_context(cafile=None if ca is None else str(ca))
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"cannot use the CA file {ca}: {error.strerror or 'not PEM'}") from None
    named = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Place(
        parts.hostname, port or (443 if tls else 80), target, named + (f":{port}" if port else ""), tls
    )  # fmt: skip


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, and its body as it comes. Names of ``fields`` are in small letters."""

    status: int
    fields: Mapping[str, str]
    body: AsyncIterator[bytes]


class _Line:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.state = h11.Connection(h11.CLIENT)

    async def next(self) -> h11.Event:
        while (event := self.state.next_event()) is h11.NEED_DATA:
            self.state.receive_data(await self.reader.read(_CHUNK))
        if isinstance(event, h11.Event):
            return event
        raise HttpFailed("the server closed the connection")


class Http:
    """Requests to one place, as many at a time as there are callers."""

    def __init__(self, where: Place) -> None:
        self._where = where
        self._idle: list[_Line] = []

    @contextlib.asynccontextmanager
    async def ask(self, method: str, fields: Sequence[tuple[str, str]], body: bytes = b"") -> AsyncIterator[Answer]:
        """One exchange; leaving it before the body's end closes its connection. HttpFailed."""
        line = self._idle.pop() if self._idle else await self._open()
        try:
            if line.reader.at_eof():
                line.writer.close()
                line = await self._open()
            await self._send(line, method, fields, body)
            head = await line.next()
            while isinstance(head, h11.InformationalResponse):
                head = await line.next()
            if not isinstance(head, h11.Response):
                raise HttpFailed("the server did not answer in HTTP")
            read = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
            yield Answer(head.status_code, read, self._body(line))
        except (h11.ProtocolError, ssl.SSLError) as error:
            raise HttpFailed(f"the server did not answer in HTTP ({type(error).__name__})") from None
        finally:
            self._done(line)

    async def _body(self, line: _Line) -> AsyncIterator[bytes]:
        while not isinstance(event := await line.next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def _send(self, line: _Line, method: str, fields: Sequence[tuple[str, str]], body: bytes) -> None:
        length = [("Content-Length", str(len(body)))] if body else []
        whole = [("Host", self._where.authority), *fields, *length]
        head = h11.Request(method=method, target=self._where.target, headers=whole)
        parts = [
            line.state.send(head),
            line.state.send(h11.Data(data=body)) if body else b"",
            line.state.send(h11.EndOfMessage()),
        ]
        line.writer.write(b"".join(part for part in parts if part))
        await line.writer.drain()

    async def _open(self) -> _Line:
        where = self._where
        name = where.host if where.tls else None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return _Line(
                    *await asyncio.open_connection(
                        where.host, where.port, ssl=where.tls, server_hostname=name, limit=1 << 20
                    )
                )
        except TimeoutError:
            raise HttpFailed(f"no connection within {_CONNECT_SECONDS:g} s") from None
        except ssl.SSLCertVerificationError:
            raise HttpFailed("the server's certificate is not one of this name under a known CA") from None
        except OSError as error:
            raise HttpFailed(f"no connection: {error.strerror or type(error).__name__}") from None

    def _done(self, line: _Line) -> None:
        if line.state.our_state is h11.DONE and line.state.their_state is h11.DONE and len(self._idle) < _MOST_IDLE:
            line.state.start_next_cycle()
            self._idle.append(line)
        else:
            line.writer.close()

    def close(self) -> None:
        """Close what is idle."""
        for line in self._idle:
            line.writer.close()
        self._idle.clear()
