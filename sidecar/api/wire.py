"""From bytes to messages, so that what does not parse is refused by field, with our status, and recorded.

The gRPC library would answer INTERNAL for a message it cannot parse. Our handlers take the raw bytes instead.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from sidecar.errors import RequestError

M = TypeVar("M", bound=Message)

_MAX_NESTING = 8


def parse(kind: type[M], raw: bytes) -> M:
    """A message from its wire form.

    Raises:
        RequestError: names the string that is not UTF-8, or the whole request when its wire form is broken.
    """
    try:
        return kind.FromString(raw)
    except DecodeError:
        field = _bad_text(kind.DESCRIPTOR, raw, "", 0)
    if field is not None:
        raise RequestError(field, "is not UTF-8")
    raise RequestError("request", f"is not a {kind.DESCRIPTOR.name} in protobuf wire form")


def _bad_text(descriptor: Any, raw: bytes, prefix: str, nesting: int) -> str | None:
    """The path of the first string field that is not UTF-8, or None where that is not what is wrong."""
    seen: dict[str, int] = {}
    try:
        for number, value in _length_delimited(raw):
            field = descriptor.fields_by_number.get(number)
            if field is None:
                continue
            path = prefix + _place(field, seen)
            if field.type == FieldDescriptor.TYPE_STRING and not _utf8(value):
                return path
            if field.message_type is not None and nesting < _MAX_NESTING:
                inner = _bad_text(field.message_type, value, f"{path}.", nesting + 1)
                if inner is not None:
                    return inner
    except (IndexError, ValueError):
        return None
    return None


def _place(field: FieldDescriptor, seen: dict[str, int]) -> str:
    if not field.is_repeated:
        return str(field.name)
    index = seen.get(field.name, 0)
    seen[field.name] = index + 1
    return f"{field.name}[{index}]"


def _utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _length_delimited(raw: bytes) -> list[tuple[int, bytes]]:
    """Number and value of each length-delimited field (protobuf encoding guide). Raises on a broken wire form."""
    found, at = [], 0
    while at < len(raw):
        key, at = _varint(raw, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(raw, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(raw, at)
            found.append((key >> 3, raw[at : at + length]))
            at += length
        else:
            raise ValueError("unknown wire type")
    return found


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("varint is too long")
