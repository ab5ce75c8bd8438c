"""What a command reads: files it is given, and a stream's entries, of which nothing but the commitment is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sidecar.chain.entry import EntryType, Header
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.errors import Malformed, UsageError

_T = TypeVar("_T")


def parsed(path: Path, data: bytes, parse: Callable[[bytes], _T]) -> _T:
    """What the data of a file say. Raises UsageError, naming it, where they are not of that form."""
    try:
        return parse(data)
    except Malformed as error:
        raise UsageError(f"{path}: {error}") from None


def entries_of(read: Callable[[int], bytes], kind: EntryType) -> Iterator[tuple[Header, dict[str, Any]]]:
    """The entries of one type; others are passed over unread. Raises Malformed at one that cannot be read."""
    for what, body in records(read):
        if what is Kind.ENTRY and body[8:9] == bytes((kind,)):
            yield entry(body)
