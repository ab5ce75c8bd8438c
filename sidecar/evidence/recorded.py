"""A stream's entries one by one, as the documents of a bundle want them: whatever can be read of each, and its leaf."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sidecar.chain import entry as entries
from sidecar.chain import payload as payloads
from sidecar.chain.entry import HEADER_SIZE, TAG_SIZE, Header
from sidecar.chain.recorded import entry, parts
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed

_TAGGED = HEADER_SIZE + TAG_SIZE


@dataclass(frozen=True, slots=True)
class Recorded:
    """One entry. ``payload``: None where it is withheld, pruned or cannot be read; ``why``: which, else ""."""

    header: Header
    leaf: bytes
    payload: dict[str, Any] | None
    why: str = ""

    @property
    def uid(self) -> str:
        """Its name among all entries of all chains."""
        return f"{self.header.chain_id.hex()}/{self.header.seq}"


def recorded(stream: Iterable[tuple[Kind, bytes]], *, known: bool = False) -> Iterator[Recorded]:
    """The entries of a stream in its order; one whose header cannot be read is passed over, as `verify` reports.

    ``known``: all of them are verified too, and what is said here is thrown away if a payload is found not to be the
    one that its header commits to, or no strict JSON; so that is not looked at.
    """
    read = _known if known else entry
    for kind, body in stream:
        if kind is Kind.ENTRY:
            try:
                header, payload = read(body)
            except Malformed as error:
                yield from _without(body, f"cannot be read: {error}")
            else:
                yield Recorded(header, _leaf(body), payload)
        elif kind is Kind.BARE:
            yield from _without(body, "withheld or pruned")


def _known(body: bytes) -> tuple[Header, dict[str, Any]]:
    """As `entry`, of one that is verified too."""
    try:
        header, _, payload = parts(body)
        return header, payloads.parse_known(header.type, payload)
    except Malformed:
        return entry(body)  # which says what is wrong


def _without(body: bytes, why: str) -> Iterator[Recorded]:
    with contextlib.suppress(Malformed):
        yield Recorded(Header.decode(body[:HEADER_SIZE]), _leaf(body), None, why)


def _leaf(body: bytes) -> bytes:
    return entries.leaf(body[:HEADER_SIZE], body[HEADER_SIZE:_TAGGED])
