"""Asking a sidecar or collector whether it is live and ready (proto/HEALTH.md), with the standard library alone.

A probe is a new process every few seconds: gRPC's library takes longer to import than all the rest of it. What is
spoken here is the least of HTTP/2 (RFC 9113) that one question needs; whatever does not look as it should is no answer.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sidecar.errors import UsageError

_MOST: Final = 64 << 10  # bytes of an answer
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_SERVING, _CAUSE_FIELD = 1, 1000


@dataclass(frozen=True, slots=True)
class Word:
    """What was answered. ``cause``: why not, in one line; where it is well, what is wrong besides, at a door, or ""."""

    well: bool
    cause: str = ""


class NoAnswer(Exception):
    """Nobody answered, or not as a sidecar does."""


def ask(address: str, *, live: bool, timeout: float) -> Word:
    """Ask ``unix:/path`` or ``host:port``, where decisions are asked for, or ``http://host:port``, where metrics are.

    ``timeout``: seconds for all of it. Raises UsageError: no address. Nobody there is a `Word` too.
    """
    web = address.startswith("http://")
    place = _place(address.removeprefix("http://") if web else address)
    try:
        with contextlib.closing(_Line(place, time.monotonic() + timeout)) as line:
            return _by_http(line, live) if web else _by_grpc(line, live)
    except TimeoutError:
        return Word(False, f"no answer within {timeout:g} s")
    except (OSError, NoAnswer) as error:
        return Word(False, f"nobody answers on {address}: {getattr(error, 'strerror', None) or error}")


def _place(address: str) -> str | tuple[str, int]:
    if address.startswith("unix:") and address != "unix:":
        return address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{address!r} is not unix:/path, host:port or http://host:port")
    return host.strip("[]") or "127.0.0.1", int(port)


class _Line:
    """A connection; every step ends at ``deadline``, monotonic seconds."""

    def __init__(self, place: str | tuple[str, int], deadline: float) -> None:
        self._deadline, self._taken, self._buffer = deadline, 0, b""
        if isinstance(place, str):
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.settimeout(self._left())
                self._socket.connect(place)
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(place, self._left())

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def some(self) -> bytes:
        """What comes next; nothing at the end."""
        self._socket.settimeout(self._left())
        data = self._socket.recv(4096)
        self._taken += len(data)
        if self._taken > _MOST:
            raise NoAnswer("the answer has no end")
        return data

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.some()
            if not data:
                raise NoAnswer("the connection was closed; does it speak TLS?")
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def close(self) -> None:
        self._socket.close()


# --- HTTP/1.1


def _by_http(line: _Line, live: bool) -> Word:
    path = "/healthz" if live else "/readyz"
    line.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = b"".join(iter(line.some, b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    said = body.decode(errors="replace").strip()
    if status == [b"200"]:
        return Word(True, said.partition(", but ")[2])
    if status == [b"503"]:
        return Word(False, said.removeprefix("not ready: "))
    raise NoAnswer("what listens there is no sidecar's or collector's listener for metrics")


# --- gRPC over HTTP/2, in the clear


def _by_grpc(line: _Line, live: bool) -> Word:
    service = b"liveness" if live else b"readiness"
    request = b"\x0a" + bytes([len(service)]) + service
    message = b"\x00" + len(request).to_bytes(4, "big") + request
    line.send(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, _headers())
        + _frame(_DATA, _END_STREAM, 1, message)
    )
    answer = b""
    for data in _answered(line):
        answer += data
        if len(answer) >= 5 and len(answer) >= (end := 5 + int.from_bytes(answer[1:5], "big")):
            return _read(answer[5:end])
    raise NoAnswer("what listens there has no word on its health")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _headers() -> bytes:
    """HPACK (RFC 7541): names by their place in the static table, values as literals that nobody keeps."""
    path = b"/grpc.health.v1.Health/Check"
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + b"\x04" + bytes([len(path)]) + path
        + b"\x01\x09localhost"  # :authority
        + b"\x0f\x10\x10application/grpc"  # content-type
        + b"\x00\x02te\x08trailers"
    )  # fmt: skip


def _answered(line: _Line) -> Iterator[bytes]:
    """The data of our stream, until it ends."""
    while True:
        head = line.exactly(9)
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        payload = line.exactly(int.from_bytes(head[:3], "big"))
        if kind == _SETTINGS and not flags & _ACK:
            line.send(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            line.send(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY or (kind == _RESET and stream == 1):
            raise NoAnswer("it breaks off")
        elif kind == _DATA and stream == 1:
            yield payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
        if stream == 1 and kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            return


def _read(message: bytes) -> Word:
    """A `HealthCheckResponse`: its status, field 1, and the cause, field 1000."""
    status, cause, at = 0, "", 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            value, at = _varint(message, at)
            if tag & 7 == 2:
                text, at = message[at : at + value], at + value
                if tag >> 3 == _CAUSE_FIELD:
                    cause = text.decode(errors="replace")
            elif tag & 7:
                raise NoAnswer("its word on its health is not one")
            elif tag >> 3 == 1:
                status = value
    except IndexError:
        raise NoAnswer("its word on its health is cut short") from None
    return Word(status == _SERVING, cause or ("" if status == _SERVING else f"status {status}"))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
