"""HTTP/2 as no client would send it: header blocks and frames by hand, and what came of each."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)  # fmt: skip

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PIECE: Final = 16_384  # SETTINGS_MAX_FRAME_SIZE as every peer has it at first
SECONDS: Final = 60.0

Fields = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Told:
    """What came back. ``ended``: nothing more comes on it."""

    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    @property
    def status(self) -> int:
        """0 without an answer."""
        return int(self.fields.get(b":status", b"0"))


class Http2:
    """One connection, begun with the preface: the server is taken to speak HTTP/2."""

    def __init__(self, port: int) -> None:
        self._encoder, self._decoder = Encoder(), Decoder()
        self._socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self._read, self._streams = b"", dict[int, Told]()
        self.raw(PREFACE)
        self.send(SettingsFrame(0))

    def close(self) -> None:
        self._socket.close()

    def raw(self, data: bytes) -> None:
        """Bytes; a peer that has gone away meanwhile is for `told` to see."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def send(self, *frames: Frame) -> None:
        self.raw(b"".join(frame.serialize() for frame in frames))

    def block(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A header block: literals that nobody checks."""
        return self._encoder.encode(list(fields))

    def headers(self, stream: int, fields: Fields, *, end: bool = True, piece: int = PIECE) -> None:
        """HEADERS, and as many CONTINUATIONs as pieces of that size make."""
        block = self.block(fields)
        pieces = [block[at : at + piece] for at in range(0, len(block), piece)] or [b""]
        first = HeadersFrame(stream, pieces[0], flags=["END_STREAM"] if end else [])
        frames: list[Frame] = [first, *(ContinuationFrame(stream, each) for each in pieces[1:])]
        frames[-1].flags.add("END_HEADERS")
        self.send(*frames)

    def data(self, stream: int, body: bytes, *, end: bool = True) -> None:
        self.send(DataFrame(stream, body, flags=["END_STREAM"] if end else []))

    def told(self, stream: int = 1, enough: Callable[[Told], bool] = lambda _: False) -> Told:
        """What came on a stream until it, or the connection, ended; or until it is enough."""
        told = self._streams.setdefault(stream, Told())
        while not told.ended and not enough(told) and (frame := self._frame()) is not None:
            self._take(frame)
        return told

    def _take(self, frame: Frame) -> None:
        told = self._streams.setdefault(frame.stream_id, Told())
        if isinstance(frame, HeadersFrame):
            if told.fields.get(b":status", b"").startswith(b"1"):
                told.fields.clear()  # that was not the answer yet
            for name, value in self._decoder.decode(frame.data, raw=True):
                told.fields.setdefault(name, value)
        elif isinstance(frame, DataFrame):
            told.body += frame.data
            if frame.data:
                self.send(*(WindowUpdateFrame(at, window_increment=len(frame.data)) for at in (0, frame.stream_id)))
        elif isinstance(frame, RstStreamFrame):
            told.ended = True
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.send(SettingsFrame(0, flags=["ACK"]))
        told.ended |= "END_STREAM" in frame.flags

    def _frame(self) -> Frame | None:
        """The next one; None once the connection is closed."""
        head = self._exactly(9)
        if head is None:
            return None
        frame, length = Frame.parse_frame_header(memoryview(head))
        body = self._exactly(length)
        if body is None:
            return None
        frame.parse_body(memoryview(body))
        return frame

    def _exactly(self, size: int) -> bytes | None:
        while len(self._read) < size:
            try:
                part = self._socket.recv(65_536)
            except ConnectionError:
                part = b""
            if not part:
                return None
            self._read += part
        found, self._read = self._read[:size], self._read[size:]
        return found


@contextlib.contextmanager
def connected(port: int) -> Iterator[Http2]:
    connection = Http2(port)
    with contextlib.closing(connection):
        yield connection


def request(path: bytes = b"/open/a", *more: tuple[bytes, bytes], method: bytes = b"GET") -> list[tuple[bytes, bytes]]:
    """A request's fields, the pseudo-fields first."""
    return [
        (b":method", method), (b":scheme", b"http"), (b":authority", b"api.example.com"), (b":path", path), *more,
    ]  # fmt: skip
