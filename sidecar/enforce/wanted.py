"""What a request to an executor would do: the doors of executors ask their owner (DOORS.md, "Executors")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Wanted:
    """An action on a resource. ``arguments``: the JSON text that was judged, byte for byte, or as `Guard` writes it."""

    action: str
    resource: tuple[str, str]
    arguments: bytes | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Free:
    """Something that needs no permit."""


FREE: Final = Free()
