"""JSON pointers (RFC 6901): into values, and into JSON texts whose bytes must stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sidecar.errors import Malformed

_POINTER: Final = re.compile(r"(?:/[^~/]*+(?:~[01][^~/]*+)*+)*+")  # possessive: as long as it is, no memory
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN: Final = re.compile(rb"[ \t\n\r]*+(" + _STRING + rb"|[\[\]{},:]|[^ \t\n\r\[\]{},:\"]++)", re.DOTALL)


def split(pointer: str) -> list[str]:
    """The tokens of a pointer, unescaped; none for "", the whole. Raises Malformed."""
    if not _POINTER.fullmatch(pointer):
        raise Malformed("a JSON pointer starts with / (RFC 6901), and ~ in it is ~0")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def join(tokens: Iterable[object]) -> str:
    """The pointer of tokens: names and indices."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)


def get(value: Any, pointer: str) -> Any:
    """What a pointer leads to. Raises Malformed where that is nothing, or it is no pointer."""
    for token in split(pointer):
        value = _step(value, token)
    return value


def put(value: Any, pointer: str, new: object) -> None:
    """Set in place what a pointer, not the empty one, leads to already. Raises Malformed as :func:`get`."""
    *before, last = split(pointer)
    inner = get(value, join(before))
    _step(inner, last)
    inner[int(last) if isinstance(inner, list) else last] = new


def _step(value: Any, token: str) -> Any:
    if isinstance(value, dict) and token in value:
        return value[token]
    if isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
        return value[int(token)]
    raise Malformed("a JSON pointer leads to nothing")


@dataclass(frozen=True, slots=True)
class Spot:
    """One value in a text: the pointer to it, its bytes from ``start`` to ``end``, excluded."""

    pointer: str
    start: int
    end: int


def spots(text: bytes) -> list[Spot]:
    """Every value in a text that is known to be strict JSON; an array or object before what is in it."""
    found: list[Spot | None] = []
    _spot(text, 0, "", found)
    return [spot for spot in found if spot is not None]


def _spot(text: bytes, at: int, pointer: str, found: list[Spot | None]) -> int:
    """Note the value at ``at`` and all in it; gives its end."""
    token, start, end = _token(text, at)
    place = len(found)
    found.append(None)
    if token in (b"{", b"["):
        end = _inside(text, end, token == b"{", pointer, found)
    found[place] = Spot(pointer, start, end)
    return end


def _inside(text: bytes, at: int, is_object: bool, pointer: str, found: list[Spot | None]) -> int:
    token, _, end = _token(text, at)
    index = 0
    while token not in (b"}", b"]"):
        if token == b",":
            at = end
        step: object = index
        if is_object:
            name, _, at = _token(text, at)
            step = json.loads(name)
            _, _, at = _token(text, at)
        at = _spot(text, at, pointer + join([step]), found)
        index += 1
        token, _, end = _token(text, at)
    return end


def _token(text: bytes, at: int) -> tuple[bytes, int, int]:
    match = _TOKEN.match(text, at)
    if match is None:
        raise Malformed("JSON: not well-formed JSON")
    return match[1], match.start(1), match.end(1)
