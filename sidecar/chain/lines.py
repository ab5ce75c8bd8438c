"""The text of our notes: a type line, then ``name SP value LF`` in a fixed order, one spelling a value.

proto/LEDGER.md, "Notes". Writers and readers share these functions: what is refused when read cannot be
written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sidecar.errors import Malformed

NONE = "-"
_DECIMAL = re.compile(r"\A(?:0|-?[1-9][0-9]*)\Z")
_HEX32 = re.compile(r"\A[0-9a-f]{64}\Z")
_PRINTABLE = re.compile(r"\A[!-~](?:[ -~]*[!-~])?\Z")
U64 = 2**64


def join(kind: str, lines: Sequence[tuple[str, str]]) -> str:
    """The note's text.

    Raises:
        Malformed: a value that is empty or holds anything but printable ASCII; a newline could forge a line.
    """
    for name, value in lines:
        if not _PRINTABLE.match(value):
            raise Malformed(f"note line {name!r} has a value that cannot be written")
    return "".join([f"{kind}\n", *(f"{name} {value}\n" for name, value in lines)])


def split(text: str, kind: str, names: Sequence[str]) -> list[str]:
    """The values of a note's lines, in the order of ``names``.

    Raises:
        Malformed: another type line; a line missing, added, out of order or not printable ASCII.
    """
    lines = text.split("\n")
    if lines[0] != kind:
        raise Malformed(f"note is not a {kind}")
    if lines[-1] != "" or len(lines) != len(names) + 2:
        raise Malformed(f"{kind} has {len(lines) - 2} lines instead of {len(names)}")
    values = []
    for name, line in zip(names, lines[1:-1], strict=True):
        found, _, value = line.partition(" ")
        if found != name or not _PRINTABLE.match(value):
            raise Malformed(f"{kind} has no proper line {name!r} in its place")
        values.append(value)
    return values


def number(value: str, name: str, *, low: int = 0, high: int = U64 - 1) -> int:
    """A decimal in its one spelling, ``low`` to ``high``.

    Raises:
        Malformed: another spelling, or out of range.
    """
    if len(value) > 20 or not _DECIMAL.match(value) or not low <= int(value) <= high:
        raise Malformed(f"line {name!r} is not a number in its one spelling")
    return int(value)


def signed(value: str, name: str) -> int:
    """A decimal that may be negative: an ``i64``."""
    return number(value, name, low=-(2**63), high=2**63 - 1)


def digest(value: str, name: str) -> bytes:
    """32 bytes in lower-case hex.

    Raises:
        Malformed: anything else.
    """
    if not _HEX32.match(value):
        raise Malformed(f"line {name!r} is not 32 bytes in lower-case hex")
    return bytes.fromhex(value)


def maybe_hex(value: bytes | None) -> str:
    """Hex, or ``-``."""
    return NONE if value is None else value.hex()


def maybe_number(value: int | None) -> str:
    """Decimal, or ``-``."""
    return NONE if value is None else str(value)


def maybe_digest(value: str, name: str) -> bytes | None:
    """As :func:`digest`; ``-`` is None."""
    return None if value == NONE else digest(value, name)


def maybe_signed(value: str, name: str) -> int | None:
    """As :func:`signed`; ``-`` is None."""
    return None if value == NONE else signed(value, name)


def maybe_count(value: str, name: str) -> int | None:
    """As :func:`number`; ``-`` is None."""
    return None if value == NONE else number(value, name)


def identity_name(chain_id: bytes) -> str:
    """Key name of the sidecar's identity key."""
    return f"sidecar.v1/{chain_id.hex()}/identity"


def segment_name(chain_id: bytes, segment: int) -> str:
    """Key name of a segment's signing key."""
    return f"sidecar.v1/{chain_id.hex()}/segment/{segment}"
