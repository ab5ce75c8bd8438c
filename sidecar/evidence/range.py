"""Which decisions are asked for, of a window, of an agent; and what may be put back in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.chain.entry import Header

Restore = Callable[[Header, dict[str, Any]], object]
"""Puts values of an entry's payload back in place. Raises Malformed for an opening that is not the entry's."""


@dataclass(frozen=True, slots=True)
class Range:
    """Which decisions: recorded at ``start`` or later and before ``end`` (ns since 1970), of one agent or of all."""

    start: int | None = None
    end: int | None = None
    agent: str | None = None

    def holds(self, header: Header, payload: Mapping[str, Any]) -> bool:
        """Whether a decision is asked for."""
        return self.covers(header.wall_ns) and self.agent in (None, payload["agent"]["id"])

    def covers(self, wall_ns: int) -> bool:
        """Whether a time lies in it."""
        return (self.start is None or wall_ns >= self.start) and (self.end is None or wall_ns < self.end)
