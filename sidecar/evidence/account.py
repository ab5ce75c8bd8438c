"""The account of a bundle's streams that needs no verdict: events, entries, figures; made in one pass over them.

So somebody else may make it while the streams are written and verified (`Accountant`); whoever makes it, it is the
same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from sidecar.chain.stream import Kind, records
from sidecar.errors import Malformed

from . import entry_sheet
from .abstract import Abstract
from .bundle_file import FileSource, Told
from .growing import Grown, Read, streams
from .ocsf import Events
from .packed import Packed, packing
from .recorded import recorded


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted: of which chains (hex, in their order), by whom, who signs (key id or ""). ``external``: values
    are left out; ``lean``: figures alone."""

    chains: tuple[str, ...]
    exporter: str
    authority: str = ""
    external: bool = False
    lean: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Figures by chain, and the two long documents; these are None where they were not wanted."""

    abstracts: tuple[Abstract, ...]
    events: Packed | None = None
    entries: Packed | None = None


class Accountant(Protocol):
    """Whoever makes the account."""

    def begin(self, ask: Ask, bundle: BinaryIO) -> None:
        """The streams of the chains asked for will be written into this file, in their order."""

    def grown(self, stream: Grown) -> None:
        """The stream that is being written is so far."""

    def finish(self, told: Told, *, sound: bool) -> Account:
        """The account. ``told``: how many bytes were read for it; ``sound``: whether every payload was found to be what
        its header commits to, and in order. Raises UsageError where it could not be made."""


class Here:
    """Makes the account when it is asked for. ``events``, ``entries``: new files for the long documents."""

    def __init__(self, events: BinaryIO, entries: BinaryIO) -> None:
        self._files = events, entries
        self._asked: tuple[Ask, BinaryIO] | None = None
        self._streams: list[Grown] = []

    def begin(self, ask: Ask, bundle: BinaryIO) -> None:
        """As `Accountant.begin`."""
        self._asked = ask, bundle

    def grown(self, stream: Grown) -> None:
        """As `Accountant.grown`."""
        if stream.whole:
            self._streams.append(stream)

    def finish(self, told: Told, *, sound: bool) -> Account:
        """As `Accountant.finish`."""
        assert self._asked is not None
        ask, bundle = self._asked
        reads = streams(FileSource(bundle, told), iter(self._streams), len(self._streams))
        return account(ask, reads, *self._files, known=sound)


def account(ask: Ask, reads: Iterable[Read], events: BinaryIO, entries: BinaryIO, *, known: bool) -> Account:
    """Make it. ``reads``: the streams, in the order of the chains; ``events``, ``entries``: new files for the long
    documents. ``known``: as for `recorded`."""
    abstracts = tuple(Abstract(chain) for chain in ask.chains)
    chains = zip(abstracts, reads, strict=True)
    if ask.lean:
        for abstract, read in chains:
            for entry in recorded(_watched(read, abstract), known=known):
                abstract.take(entry)
        return Account(abstracts)
    making = Events(ask.exporter, ask.authority, external=ask.external)
    with packing(events) as lines, packing(entries) as sheet:
        sheet.write(entry_sheet.header().encode())
        for abstract, read in chains:
            for entry in recorded(_watched(read, abstract), known=known):
                abstract.take(entry)
                sheet.write(entry_sheet.record(entry).encode())
                lines.write(making.line(entry))
        return Account(abstracts, lines.done(), sheet.done())


def _watched(read: Read, abstract: Abstract) -> Iterator[tuple[Kind, bytes]]:
    for kind, body in stream(read):
        if kind is not Kind.ENTRY:
            abstract.record(kind, body)
        yield kind, body


def stream(read: Read) -> Iterator[tuple[Kind, bytes]]:
    """A chain's records, as far as they can be read: how it ends is in the verdict."""
    try:
        yield from records(read)
    except Malformed:
        return
