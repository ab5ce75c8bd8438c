"""Lines of a byte stream, as MCP's stdio transport frames its messages, with a bound on what one may hold.

A longer line is read to its end and dropped. What is kept of it are its first and last bytes, for they tell which
request it answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.enforce.mcp.frame import Id, id_key

_CHUNK: Final = 1 << 18
_KEPT: Final = 1024
_STRING: Final = rb'"(?:[^"\\\x00-\x1f]|\\.)*"'
_ID: Final = rb'"id"\s*:\s*(' + _STRING + rb"|-?[0-9]+)"
_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID + rb"\s*,")
_LAST: Final = re.compile(rb"[\]}\"0-9el]\s*,\s*" + _ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')
_LAST_BOTH: Final = re.compile(rb'[\]}\"0-9el]\s*,\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*' + _ID + rb"\s*\}\s*\Z")


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line beyond the bound. ``answers``: the id that it bears, None where that cannot be told."""

    length: int
    answers: Id | None


class Bytes(Protocol):
    """What gives bytes: `asyncio.StreamReader`."""

    async def read(self, n: int = -1, /) -> bytes:
        """At most ``n``; none at the end."""
        ...


async def lines(stream: Bytes, most: int) -> AsyncIterator[bytes | Overlong]:
    """The lines, without their ends and without empty ones. What follows the last line end is none.

    ``most``: bytes of one line.
    """
    held: list[bytes] = []
    size = 0
    while chunk := await stream.read(_CHUNK):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            held.append(part)
            size += len(part)
            if size > most:
                yield _overlong(held, size)
            elif line := b"".join(held).strip():
                yield line
            held, size = [], 0
        held.append(rest)
        size += len(rest)
        if size > most:
            held = _ends(held)


def _ends(held: list[bytes]) -> list[bytes]:
    """The first and the last bytes of what was held, and nothing between."""
    if len(held) == 1:
        return [held[0][:_KEPT], held[0][-_KEPT:]]
    first = held[0] if len(held[0]) >= _KEPT else b"".join(held[:8])  # chunks may be small
    last = held[-1] if len(held[-1]) >= _KEPT else b"".join(held[-8:])
    return [first[:_KEPT], last[-_KEPT:]]


def _overlong(held: list[bytes], size: int) -> Overlong:
    return Overlong(size, _answers(*_ends(held)))


def answers(message: bytes) -> Id | None:
    """The id that a message bears that cannot be read; None where that cannot be told."""
    return _answers(message[:_KEPT], message[-_KEPT:])


def _answers(first: bytes, last: bytes) -> Id | None:
    found = _FIRST.match(first) or _LAST.search(last) or _LAST_BOTH.search(last)
    try:
        return None if found is None else id_key(json.loads(found[1]))
    except ValueError:
        return None
