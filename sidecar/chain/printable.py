"""Text from agents, policies and tools, and numbers, made fit for a line that a person reads."""

from __future__ import annotations

import unicodedata
from typing import Final

_NOT_SHOWN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def plain(text: object) -> str:
    """One line, without what could drive a terminal or turn its direction."""
    line = str(text)
    if line.isprintable():  # then no character is of those categories
        return line
    return "".join(" " if unicodedata.category(c) in _NOT_SHOWN else c for c in line)


def number_of(number: int, one: str, more: str = "") -> str:
    """A number and its noun: ``1 entry``, ``2,000 entries``. ``more``: but for 1; empty: ``one`` with an s."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def without_zeros(time: str) -> str:
    """A time in the one spelling of payloads, without the zeros at its end: ``2026-01-01T12:00:00Z``, ``…:00.5Z``."""
    return f"{time.removesuffix('Z').rstrip('0').removesuffix('.')}Z" if "." in time else time


def to_seconds(time: str) -> str:
    """A time as payloads have it (``2026-11-23T12:00:00.123456789Z``), up to its seconds."""
    return time[:19] + "Z"


def to_milliseconds(time: str) -> str:
    """Likewise, up to its milliseconds."""
    return time[:23] + "Z"
