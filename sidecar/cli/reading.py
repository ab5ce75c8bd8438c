"""Reading the entries of a stream for a command that shows or uses them; nothing but the commitment is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sidecar.chain.entry import EntryType, Header
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records


def entries_of(read: Callable[[int], bytes], kind: EntryType) -> Iterator[tuple[Header, dict[str, Any]]]:
    """The entries of one type; others are passed over unread. Raises Malformed at one that cannot be read."""
    for what, body in records(read):
        if what is Kind.ENTRY and body[8:9] == bytes((kind,)):
            yield entry(body)
