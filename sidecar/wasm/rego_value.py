"""Rego values as text: reading what Wasm's `opa_value_dump` writes, and writing them as OPA's own `String()` does.

JSON cannot carry them: a set is not an array (`sprintf("%v", [{"a"}])` prints `{"a"}`), and `1.50` keeps its zero.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cmp_to_key
from typing import Final, TypeAlias

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MAX_EXPONENT: Final = 400
_MAX_DEPTH: Final = 128


class NotRego(ValueError):
    """Text that is not a Rego value, or one too large to handle."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    text: str

    @property
    def is_integer(self) -> bool:
        """True when written without fraction and exponent: the text decides, as in OPA."""
        return not any(mark in self.text for mark in ".eE")

    def exact(self) -> Fraction:
        """Its value. Raises `NotRego` where that would take too long to compute."""
        exponent = re.search(r"[eE](.*)", self.text)
        if len(self.text) > 1000 or (exponent and abs(int(exponent[1])) > _MAX_EXPONENT):
            raise NotRego("number out of range")
        return Fraction(self.text)


@dataclass(frozen=True, slots=True)
class Set:
    """A set; ``items`` as they were read, in no order that means anything."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """An object; keys may be any value."""

    items: tuple[tuple[Value, Value], ...]


Value: TypeAlias = "bool | str | Number | tuple[Value, ...] | Set | Object | None"


def parse(text: str) -> Value:
    """The value in ``text``. Raises `NotRego`."""
    reader = _Reader(text)
    value = reader.value(0)
    reader.end()
    return value


def write(value: Value) -> str:
    """``value`` as OPA writes it: sets and objects in Rego's order, `set()` for the empty set."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return quote(value)
        case Number():
            return value.text
        case tuple():
            return f"[{_join(value)}]"
        case Set():
            return "{" + _join(_in_order(value.items)) + "}" if value.items else "set()"
        case Object():
            keys = _in_order(key for key, _ in value.items)
            values = dict(value.items)
            return "{" + ", ".join(f"{write(key)}: {write(values[key])}" for key in keys) + "}"


_ESCAPES: Final = {
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v",
    '"': r"\"", "\\": r"\\",
}  # fmt: skip


def quote(text: str) -> str:
    """``text`` in double quotes as Go's `strconv.Quote` writes it."""
    return '"' + "".join(_ESCAPES.get(character) or _escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _join(items: Iterable[Value]) -> str:
    return ", ".join(write(item) for item in items)


def _in_order(items: Iterable[Value]) -> list[Value]:
    return sorted(items, key=cmp_to_key(_compare))


def _rank(value: Value) -> int:
    if isinstance(value, bool):
        return 1
    ranks: list[type] = [type(None), bool, Number, str, tuple, Object, Set]
    return ranks.index(type(value))


def _compare(left: Value, right: Value) -> int:
    """Rego's order: null < booleans < numbers < strings < arrays < objects < sets."""
    if _rank(left) != _rank(right):
        return _rank(left) - _rank(right)
    match left, right:
        case (bool(), bool()):
            return int(left) - int(right)
        case (Number(), Number()):
            return _sign(left.exact(), right.exact())
        case (str(), str()):
            return _sign(left.encode(), right.encode())
        case (tuple(), tuple()):
            return _compare_all(left, right)
        case (Set(), Set()):
            return _compare_all(_in_order(left.items), _in_order(right.items))
        case (Object(), Object()):
            return _compare_objects(left, right)
    return 0


def _compare_objects(left: Object, right: Object) -> int:
    mine, other = dict(left.items), dict(right.items)
    for a, b in zip(_in_order(mine), _in_order(other), strict=False):
        order = _compare(a, b) or _compare(mine[a], other[b])
        if order:
            return order
    return len(mine) - len(other)


def _compare_all(left: Iterable[Value], right: Iterable[Value]) -> int:
    mine, other = list(left), list(right)
    for a, b in zip(mine, other, strict=False):
        if order := _compare(a, b):
            return order
    return len(mine) - len(other)


def _sign(left: Fraction | bytes, right: Fraction | bytes) -> int:
    return (left > right) - (left < right)  # type: ignore[operator]  # both of one type


_WORDS: Final[tuple[tuple[str, Value], ...]] = (("null", None), ("true", True), ("false", False), ("set()", Set(())))
_TEXT: Final = json.JSONDecoder(strict=False)
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class _Reader:
    """Recursive descent over JSON extended with sets and with keys of any type."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def end(self) -> None:
        self._blank()
        if self._at != len(self._text):
            raise NotRego("something follows the value")

    def value(self, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise NotRego("nested too deep")
        self._blank()
        first = self._text[self._at : self._at + 1]
        if first == '"':
            return self._string()
        if first == "[":
            return self._array(depth)
        if first == "{":
            return self._braced(depth)
        return self._word()

    def _word(self) -> Value:
        for word, value in _WORDS:
            if self._take(word):
                return value
        found = _NUMBER.match(self._text, self._at)
        if not found:
            raise NotRego("not a value")
        self._at = found.end()
        return Number(found[0])

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if not found:
            raise NotRego("a string does not end")
        self._at = found.end()
        try:
            return str(_TEXT.decode(found[0]))
        except ValueError:
            raise NotRego("a string with an unknown escape") from None

    def _array(self, depth: int) -> tuple[Value, ...]:
        self._at += 1
        items: list[Value] = []
        while not self._take("]"):
            if items:
                self._expect(",")
            items.append(self.value(depth + 1))
        return tuple(items)

    def _braced(self, depth: int) -> Set | Object:
        self._at += 1
        keys: list[Value] = []
        values: list[Value] = []
        while not self._take("}"):
            if keys:
                self._expect(",")
            keys.append(self.value(depth + 1))
            if self._take(":"):
                values.append(self.value(depth + 1))
        if values or not keys:
            if len(values) != len(keys):
                raise NotRego("half a set, half an object")
            return Object(tuple(zip(keys, values, strict=True)))
        return Set(tuple(keys))

    def _take(self, word: str) -> bool:
        self._blank()
        if not self._text.startswith(word, self._at):
            return False
        self._at += len(word)
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise NotRego(f"{word!r} expected")

    def _blank(self) -> None:
        while self._text[self._at : self._at + 1] in (" ", "\n", "\t", "\r"):
            self._at += 1
