"""HTTP/1.1 as far as one client needs it that asks one question at a time (RFC 9112). No I/O, no clock.

    request_head(...) + body ─► the server ─► Reader.feed(bytes), again and again ─► Response

An answer must say how long it is (section 6: by `Content-Length`, or in chunks; not by closing), in one way only, and
nothing may follow it. Whatever departs from that raises `NotHttp`, and the connection is of no further use. Trailers,
folded lines and interim answers (1xx) are refused too: nobody here asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

MAX_HEAD: Final = 16 << 10  # bytes of status line and fields
_MAX_CHUNK_LINE: Final = 256  # bytes of a chunk's size and its extensions
_EMPTY: Final = frozenset({204, 304})  # statuses whose answers have no body

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class NotHttp(ValueError):
    """What came is no answer of HTTP/1.1, or one that this client does not take. The text quotes nothing of it."""


class TooLong(ValueError):
    """An answer's body exceeds its bound, the argument, in bytes."""


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer. ``reusable``: the connection may carry another question."""

    status: int
    body: bytes
    reusable: bool


def request_head(method: str, target: str, fields: Mapping[str, str]) -> bytes:
    """The lines of a request up to its last field; a field and ``\\r\\n\\r\\n`` may follow. Text is trusted ASCII."""
    lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()))
    return "\r\n".join(lines).encode("ascii")


class Reader:
    """Reads one answer. ``limit`` gives the most bytes of a body, by its status."""

    __slots__ = ("_body", "_buffer", "_left", "_limit", "_reusable", "_status", "_step", "started")

    def __init__(self, limit: Callable[[int], int]) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._body = bytearray()
        self._left = 0  # bytes of the body, or of the chunk, to come
        self._status = 0
        self._reusable = True
        self._step: Callable[[], bool] = self._head
        self.started = False  # whether anything of the answer has come

    def feed(self, data: bytes) -> Response | None:
        """Take what came; the answer once it is whole.

        Raises:
            NotHttp, TooLong: the connection is to be dropped.
        """
        self.started = True
        self._buffer += data
        while self._step != self._end:
            if not self._step():
                return None
        if self._buffer:
            raise NotHttp("something follows the answer")
        return Response(self._status, bytes(self._body), self._reusable)

    # Each step takes what it can from the buffer, and says whether the next may go on with the rest.

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD:
                raise NotHttp("the head is too long")
            return False
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        found = _STATUS_LINE.fullmatch(first)
        if found is None:
            raise NotHttp("no status line of HTTP/1.1")
        self._status = int(found[1])
        self._frame(_fields(lines))
        return True

    def _frame(self, fields: Mapping[bytes, bytes]) -> None:
        options = (option.strip().lower() for option in fields.get(b"connection", b"").split(b","))
        self._reusable = b"close" not in options
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        if self._status in _EMPTY and coding is None and length in (None, b"0"):
            self._step = self._end
        elif coding is not None:
            if length is not None or coding.lower() != b"chunked":
                raise NotHttp("its length is told in two ways, or in one that is not chunked")
            self._step = self._chunk_line
        else:
            if length is None or not _LENGTH.fullmatch(length):
                raise NotHttp("its length is not told")
            self._expect(int(length))
            self._step = self._rest

    def _rest(self) -> bool:
        self._take()
        if self._left:
            return False
        self._step = self._end
        return True

    def _chunk_line(self) -> bool:
        line = self._line()
        if line is None:
            return False
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise NotHttp("a chunk without a size")
        size = int(found[1], 16)
        self._expect(size)
        self._step = self._chunk if size else self._last
        return True

    def _chunk(self) -> bool:
        self._take()
        if self._left or len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise NotHttp("a chunk is longer than its size")
        del self._buffer[:2]
        self._step = self._chunk_line
        return True

    def _last(self) -> bool:
        line = self._line()
        if line:
            raise NotHttp("fields after the body")
        if line is not None:
            self._step = self._end
        return line is not None

    def _end(self) -> bool:
        return True

    def _expect(self, size: int) -> None:
        limit = self._limit(self._status)
        if len(self._body) + size > limit:
            raise TooLong(limit)
        self._left = size

    def _take(self) -> None:
        taken = self._buffer[: self._left]
        self._body += taken
        self._left -= len(taken)
        del self._buffer[: len(taken)]

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, _MAX_CHUNK_LINE)
        if end < 0:
            if len(self._buffer) >= _MAX_CHUNK_LINE:
                raise NotHttp("a line is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """The fields that matter here, by their names in lower case. One that frames the answer comes once."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise NotHttp("a line that is no field")
        name = found[1].lower()
        if name == b"connection" and name in fields:
            fields[name] += b"," + found[2]
        elif name in fields and name in (b"content-length", b"transfer-encoding"):
            raise NotHttp("its length is told twice")
        else:
            fields[name] = found[2]
    return fields
