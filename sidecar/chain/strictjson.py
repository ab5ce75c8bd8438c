"""Strict JSON: I-JSON (RFC 7493) with bounded depth, fast where the bytes are the ones we write ourselves.

Two paths, one result. The exact path (:func:`_parse_exactly`) is the definition. The fast path accepts only
bytes that `orjson` writes back unchanged but for white space between tokens, and that alone settles most of the
rules: a text that equals the serialisation of a dict has no duplicate key, no escape but those of control
characters, no NaN, no overflow, no BOM and valid UTF-8. What it does not settle (noncharacters, depth) is screened
beside it. Everything else goes the exact way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import orjson

from sidecar.errors import Malformed

MAX_INTEGER: Final = 2**53 - 1
"""The largest magnitude of an integer literal (RFC 7493 section 2.2)."""

DEEPEST: Final = 200
"""The largest ``max_depth`` one may ask for: well below the interpreter's own recursion limit."""

_loads: Final = orjson.loads
_dumps: Final = orjson.dumps
_READING: Final = orjson.OPT_STRICT_INTEGER
_LONGEST_INTEGER: Final = len(str(-MAX_INTEGER))
_WRITING: Final = (
    orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_COMPARING: Final = orjson.OPT_SORT_KEYS

# In valid UTF-8 a noncharacter ends in one of the first two (U+xFFFE, U+xFFFF) or starts with the third
# (U+FDD0 to U+FDEF). Other characters do so too; they take the exact way.
_NONCHARACTER_SIGNS: Final = (b"\xbf\xbe", b"\xbf\xbf", b"\xef\xb7")
_FORBIDDEN_CHARACTER: Final = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)

# Possessive, and content with a string that never ends: linear on any input.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^" \t\n\r]++', re.DOTALL)
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))
_OPENING: Final = frozenset(b"[{")


def parse(data: bytes, *, max_depth: int = 64) -> Any:
    """The value of one JSON text of any kind, under the rules of RFC 7493.

    ``max_depth`` counts nested arrays and objects (``[]`` is 1 deep), 1 to :data:`DEEPEST`.
    Raises :class:`Malformed` with the rule that was broken, never with content.
    """
    if not 1 <= max_depth <= DEEPEST:
        raise ValueError(f"max_depth must be 1 to {DEEPEST}")
    try:
        value = _loads(data)
        written = _dumps(value, None, _READING)
        settled = written == data or written == b"".join(_TOKENS.findall(data))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        settled = False
    if settled and (_openings(data) <= max_depth or _reaches(value) <= max_depth) and not may_hold_noncharacter(data):
        return value
    return _parse_exactly(data, max_depth)


def parse_object(data: bytes, *, max_depth: int = 64) -> dict[str, Any]:
    """As :func:`parse`, for a text whose value must be an object."""
    value = parse(data, max_depth=max_depth)
    if type(value) is not dict:
        raise Malformed("JSON: an object is required here")
    return value


def is_written_object(data: bytes, *, max_depth: int) -> bool:
    """Whether it is a compact JSON object that :func:`parse_object` takes; False: that is for it to say.

    ``data``: of which is known that no noncharacter stands in it unescaped (:func:`may_hold_noncharacter`).
    """
    try:
        value = _loads(data)
        return type(value) is dict and _dumps(value, None, _READING) == data and _openings(data) <= max_depth
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return False


def parse_known(data: bytes, *, max_depth: int = 64) -> Any:
    """As :func:`parse`, of a text that somebody else holds to be strict JSON: half of the time.

    Of a text that is none: Malformed, or the value of a text much like it.
    """
    try:
        value = _loads(data)
    except orjson.JSONDecodeError:
        value = _BROKEN
    if value is _BROKEN or (_openings(data) > max_depth and _reaches(value) > max_depth):
        raise Malformed("JSON: not well-formed JSON, or nested too deep")
    return value


def dumps(value: Any) -> bytes:
    """The compact JSON of a value, keys in insertion order: the bytes :func:`parse` reads fastest.

    Takes what :func:`parse` gives: dict with str keys, list, str, int, float, bool, None. Raises
    :class:`Malformed` for anything else and for integers beyond :data:`MAX_INTEGER`. Beware: a NaN or an
    infinity becomes ``null``, and noncharacters are written as they are, so values not from :func:`parse`
    are to be parsed again once written.
    """
    try:
        return orjson.dumps(value, option=_WRITING)
    except orjson.JSONEncodeError:
        pass
    # Raised out here, so that the encoder's own error, which may quote the value, is not attached.
    raise Malformed("JSON: a value that JSON cannot carry (type, key, integer range, surrogate or depth)")


def check_written(data: bytes, *, max_depth: int) -> None:
    """Hold what :func:`dumps` wrote to what its encoder does not see: depth and noncharacters; the rest holds of it.

    Raises:
        Malformed: :func:`parse` would refuse it.
    """
    if _openings(data) > max_depth or may_hold_noncharacter(data):
        parse(data, max_depth=max_depth)


def parse_written(data: bytes, *, max_depth: int) -> Any:
    """As :func:`parse`, of what :func:`dumps` wrote: another value than it was given only where JSON has no such."""
    check_written(data, max_depth=max_depth)
    try:
        return _loads(data)
    except orjson.JSONDecodeError:
        pass
    raise Malformed("JSON: not well-formed JSON")  # out of an `orjson.Fragment`


def same(one: Any, other: Any) -> bool:
    """Whether two values, as :func:`parse` gives them, are the same JSON: members in any order; true, 1 and 1.0 are
    three values, and so are 0.0 and -0.0."""
    return orjson.dumps(one, option=_COMPARING) == orjson.dumps(other, option=_COMPARING)


def may_hold_noncharacter(data: bytes) -> bool:
    """Whether a Unicode noncharacter may stand in valid UTF-8, unescaped; false only where none does."""
    # One byte of each sign first: a search for a single byte costs a tenth, and most scripts have neither.
    if data.isascii() or not (b"\xbf" in data or b"\xef" in data):
        return False
    return any(sign in data for sign in _NONCHARACTER_SIGNS)


def _openings(data: bytes) -> int:
    # Counted by leaving them out: `bytes.count` looks at every byte, four times as slowly.
    return 2 * len(data) - len(data.replace(b"[", b"")) - len(data.replace(b"{", b""))


def _reaches(value: Any) -> int:
    """How deep arrays and objects are nested in a value; four times as fast as telling it from a long text."""
    depth = 0
    level: list[Any] = [[value]]
    while level := [
        inner
        for outer in level
        for inner in (outer.values() if type(outer) is dict else outer)
        if type(inner) is dict or type(inner) is list
    ]:
        depth += 1
    return depth


def _is_shallow(data: bytes, max_depth: int) -> bool:
    """Whether the nesting stays within bounds; on broken JSON it may also say yes, never run away."""
    if _openings(data) <= max_depth:
        return True
    depth = 0
    for byte in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if byte in _OPENING else -1
        if depth > max_depth:
            return False
    return True


def _parse_exactly(data: bytes, max_depth: int) -> Any:
    """The definition: each rule by itself, in time linear in the input."""
    if not _is_shallow(data, max_depth):
        raise Malformed(f"JSON: nested more than {max_depth} deep")
    text = _decode(data)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError:
        value = _BROKEN
    if value is _BROKEN:
        raise Malformed("JSON: not well-formed JSON")
    if "\\u" in text or not text.isascii():
        _check_characters(value)
    return value


def _decode(data: bytes) -> str:
    try:
        text: str | None = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise Malformed("JSON: not valid UTF-8")
    if text.startswith("\ufeff"):
        raise Malformed("JSON: starts with a byte order mark")
    return text


def _check_characters(value: Any) -> None:
    for string in _strings(value):
        if _FORBIDDEN_CHARACTER.search(string):
            raise Malformed("JSON: a string with a lone surrogate or a Unicode noncharacter")


def _strings(value: Any) -> Iterator[str]:
    """Every string and key in the value."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("JSON: a key occurs twice in one object")
    return members


def _integer(literal: str) -> int:
    # The length first: converting a long literal takes quadratic time.
    if len(literal) > _LONGEST_INTEGER or not -MAX_INTEGER <= (number := int(literal)) <= MAX_INTEGER:
        raise Malformed("JSON: an integer beyond 2^53-1 in magnitude")
    return number


def _float(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise Malformed("JSON: a number beyond the range of binary64")
    return number


def _constant(_name: str) -> NoReturn:
    raise Malformed("JSON: NaN and Infinity are not JSON")


_BROKEN: Final = object()
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
