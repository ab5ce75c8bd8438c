"""Server-sent events (WHATWG HTML, section 9.2): the data of each, with a bound on what one may hold."""

from __future__ import annotations

from collections.abc import AsyncIterator


class EventTooLong(Exception):
    """An event beyond the bound."""


async def events(body: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """The data of each `message` event, its lines joined by spaces: JSON has line ends only where it may have spaces.

    Raises EventTooLong.
    """
    data: list[bytes] = []
    kind, size = b"message", 0
    async for line in _lines(body, most):
        if not line:
            if data and kind == b"message":
                yield b" ".join(data)
            data, kind, size = [], b"message", 0
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
            size += len(value)
            if size > most:
                raise EventTooLong
        elif name == b"event":
            kind = value


async def _lines(body: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Lines, which end in CR LF, LF or CR. The last is none without its end."""
    held: list[bytes] = []
    size = 0
    after_cr = False
    async for chunk in body:
        if after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        if not chunk:
            continue
        after_cr = chunk.endswith(b"\r")
        *ended, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for part in ended:
            yield b"".join([*held, part])
            held, size = [], 0
        held.append(rest)
        size += len(rest)
        if size > most + 6:  # "data: "
            raise EventTooLong
