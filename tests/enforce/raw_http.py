"""Requests of HTTP/1.1 as bytes, for whichever door takes them, and such as two servers could read as two things."""

from __future__ import annotations

import re
from dataclasses import dataclass

CHUNKED = b"transfer-encoding: chunked"


@dataclass(frozen=True, slots=True)
class Asking:
    """A POST that a door takes. ``fields``: those it wants, besides the length."""

    path: bytes
    body: bytes
    fields: tuple[bytes, ...] = (b"host: a", b"content-type: application/json")

    @property
    def line(self) -> bytes:
        return b"POST " + self.path + b" HTTP/1.1"

    @property
    def length(self) -> bytes:
        return b"content-length: %d" % len(self.body)

    @property
    def size(self) -> bytes:
        return b"%x" % len(self.body)

    @property
    def chunks(self) -> bytes:
        return self.size + b"\r\n" + self.body + b"\r\n0\r\n\r\n"

    def message(self, *heads: bytes, line: bytes = b"", body: bytes | None = None, keep: bool = False) -> bytes:
        """One request; its length is among ``heads``."""
        more = [] if keep else [b"connection: close"]
        sent = self.body if body is None else body
        return b"\r\n".join([line or self.line, *self.fields, *more, *heads, b"", sent])


def statuses(told: bytes) -> list[int]:
    """Of all answers on a connection; what an error quotes of a request is none."""
    return [int(each) for each in re.findall(rb"HTTP/\d\.\d (\d{3}) [A-Z]", told)]


def ambiguous(to: Asking) -> dict[str, bytes]:
    """Each is answered with 400, and the connection is closed."""
    host = to.fields[0]
    return {
        "both lengths": to.message(to.length, CHUNKED, body=to.chunks),
        "both, chunks first": to.message(CHUNKED, b"content-length: 5", body=to.chunks),
        "the length twice": to.message(to.length, to.length),
        "two lengths": to.message(to.length, b"content-length: 3"),
        "a list of lengths": to.message(to.length + b", %d" % len(to.body)),
        "a signed length": to.message(b"content-length: +%d" % len(to.body)),
        "a negative length": to.message(b"content-length: -1"),
        "a length in hex": to.message(b"content-length: 0x10"),
        "no number": to.message(b"content-length:"),
        "a length with a line under it": to.message(b"content-length: 1_0"),
        "a length of many digits": to.message(b"content-length: " + b"9" * 4_400),
        "a space before the colon": to.message(b"content-length : %d" % len(to.body)),
        "another coding besides": to.message(b"transfer-encoding: gzip, chunked", body=to.chunks),
        "chunks not last": to.message(b"transfer-encoding: chunked, identity", body=to.chunks),
        "chunks twice": to.message(CHUNKED, CHUNKED, body=to.chunks),
        "almost chunked": to.message(b"transfer-encoding: xchunked", body=to.chunks),
        "a control character before chunked": to.message(b"transfer-encoding: \x0bchunked", body=to.chunks),
        "identity": to.message(b"transfer-encoding: identity", to.length),
        "a coding with a space before the colon": to.message(b"transfer-encoding : chunked", body=to.chunks),
        "a coding on the next line": to.message(b"transfer-encoding:", b" chunked", body=to.chunks),
        "a folded line": to.message(b"x: a", b" b", to.length),
        "bare line feeds": to.message(to.length).replace(b"\r\n", b"\n"),
        "one bare line feed": to.message(to.length).replace(host + b"\r\n", host + b"\n"),
        "a bare return": to.message(b"x: a\rcontent-length: 0", to.length),
        "bare returns": to.message(to.length).replace(b"\r\n", b"\r"),
        "a folded line by a tab": to.message(b"x: a", b"\tb", to.length),
        "a folded first line": to.message(to.length).replace(b"\r\n", b"\r\n ", 1),
        "a zero byte": to.message(b"x: a\0b", to.length),
        "a zero byte in a name": to.message(b"x\0y: a", to.length),
        "a name in UTF-8": to.message("xé: 1".encode(), to.length),
        "no name": to.message(b": a", to.length),
        "no colon": to.message(b"abc", to.length),
        "two hosts": to.message(b"host: b", to.length),
        "no host": to.message(to.length).replace(host + b"\r\n", b""),
        "chunks by bare line feeds": to.message(CHUNKED, body=to.chunks.replace(b"\r\n", b"\n")),
        "a chunk's size with 0x": to.message(CHUNKED, body=b"0x" + to.chunks),
        "a signed chunk": to.message(CHUNKED, body=b"+" + to.chunks),
        "a negative chunk": to.message(CHUNKED, body=b"-1\r\n" + to.chunks),
        "an endless chunk": to.message(CHUNKED, body=b"f" * 20 + b"\r\n" + to.body),
        "a chunk that goes on": to.message(CHUNKED, body=to.size + b"\r\n" + to.body + b"XX0\r\n\r\n"),
        "a long extension of a chunk": to.message(
            CHUNKED, body=to.size + b";" + b"x" * 100_000 + b"\r\n" + to.body + b"\r\n0\r\n\r\n"
        ),
        "a line feed in a chunk's extension": to.message(
            CHUNKED, body=to.size + b";\nx\r\n" + to.body + b"\r\n0\r\n\r\n"
        ),
        "many trailers": to.message(CHUNKED, body=to.chunks[:-2] + b"x: 1\r\n" * 5_000 + b"\r\n"),
        "a huge trailer": to.message(CHUNKED, body=to.chunks[:-2] + b"x: " + b"1" * 200_000 + b"\r\n\r\n"),
        "a huge header": to.message(b"x: " + b"a" * 100_000, to.length),
        "many headers": to.message(*[b"x%d: 1" % n for n in range(5_000)], to.length),
        "HTTP/2 from the start": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        "HTTP/0.9": b"POST " + to.path + b"\r\n\r\n" + to.body,
        "HTTP/1.2": to.message(to.length, line=b"POST " + to.path + b" HTTP/1.2"),
        "a version in lower case": to.message(to.length, line=b"POST " + to.path + b" http/1.1"),
        "a method in lower case": to.message(to.length, line=b"post " + to.path + b" HTTP/1.1"),
        "a method of 10,000 letters": to.message(to.length, line=b"A" * 10_000 + b" " + to.path + b" HTTP/1.1"),
        **{f"the line {line!r}": to.message(to.length, line=line) for line in _lines(to.path)},
        "a space in the path": to.message(to.length, line=b"POST " + to.path + b" x HTTP/1.1"),
        "more than its length after the last": to.message(to.length) + b"x",
    }


def _lines(path: bytes) -> list[bytes]:
    """Request lines with other white space than one space between each two parts (RFC 9112, section 3)."""
    parts = (b"POST", path, b"HTTP/1.1")
    spaces = (b"  ", b"\t", b" \t", b"\x0b", b"\x0c", b"\r", b"\0")
    return [
        *[parts[0] + space + parts[1] + b" " + parts[2] for space in spaces],
        *[parts[0] + b" " + parts[1] + space + parts[2] for space in spaces],
        *[b" ".join(parts) + space for space in (b" ", b"\t", b"\x0b")],
        *[space + b" ".join(parts) for space in (b" ", b"\t")],
    ]
