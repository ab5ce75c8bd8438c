"""What the profile "external" leaves out of the documents: values that agents, people and tools wrote freely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .timeline import Row, Timeline

EXTERNAL: Final = "external"
VALUES: Final = frozenset({"arguments", "context", "purpose", "response", "comment"})
"""Members that hold such values."""

MARK: Final = "[left out: profile external]"


def without_values(told: Timeline) -> Timeline:
    """The account with a mark in the place of every value that is there."""
    return Timeline(told.within, told.read, tuple(_row(row) for row in told.rows))


def _row(row: Row) -> Row:
    about: dict[str, Any] = _marked(row.about)
    return Row(row.kind, row.seq, row.wall_ns, row.said, row.gap, about)


def _marked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _left(name, inner) for name, inner in value.items()}
    return [_marked(inner) for inner in value] if isinstance(value, list) else value


def _left(name: str, value: Any) -> Any:
    if name == "door" and value:
        return {"kind": value["kind"]}  # what it saw is of the context
    return MARK if name in VALUES and value else _marked(value)
