"""What of a chain belongs to a window, and what must stand before it (proto/EVIDENCE.md, "Case" and "Stream").

One pass over the chain's notes and its few rare entries; memory does not grow with the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.chain import note, payload
from sidecar.chain.entry import EntryType
from sidecar.chain.epoch import EpochNote
from sidecar.chain.recorded import parts
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind, attachment_of
from sidecar.errors import Malformed, UsageError
from sidecar.evidence.source import Records

_RARE = frozenset(bytes((t,)) for t in (EntryType.GENESIS, EntryType.OPEN, EntryType.POLICY, EntryType.REGISTRY))
_KEPT = 2  # registries and attachments before the window: a call may be under way when they change


@dataclass(slots=True)
class Before:
    """What stands before a segment. ``first``: its epoch's first segment; ``opening``: the payload of OPEN."""

    first: int = 0
    note: bytes = b""
    opening: bytes = b""
    registries: tuple[bytes, ...] = ()
    named: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Chosen:
    """The window's segments of a chain and what goes with them. ``named``: digests of attachments; ``cut``: segments
    of the window before these are no longer here."""

    genesis: bytes
    first: int
    last: int
    before: Before
    named: set[bytes] = field(default_factory=set)
    cut: bool = False

    @property
    def chain_id(self) -> bytes:
        """The chain's id."""
        return payload.chain_id(self.genesis)


class Survey:
    """Takes the records of a chain from its start; ``first``: the first segment whose entries are to be had.

    Raises:
        Malformed: they cannot be followed.
        UsageError: the whole window lies before ``first``.
    """

    def __init__(self, start: int, end: int, first: int = 0) -> None:
        self._from, self._to, self._first = start, end, first
        self._cut = False
        self._genesis = b""
        self._now = Before()  # as of the last record
        self._segment, self._before = 0, Before()  # the open segment, and as of its start
        self._sealed_at: int | None = None
        self._in_segment: set[bytes] = set()
        self._something = False
        self._chosen: Chosen | None = None

    def take(self, records: Records, told: Callable[[int], None]) -> Chosen | None:
        """The window's part of the chain; None: nothing. ``told``: how many bytes were read."""
        for kind, body in records:
            told(len(body))
            if kind is Kind.ENTRY:
                self._something = True
                if body[8:9] in _RARE:
                    self._entry(body)
            elif kind is Kind.EPOCH:
                self._epoch(body)
            elif kind is Kind.HEAD:
                self._something = True
            elif kind is Kind.SEAL:
                self._seal(Seal.parse(note.parse(body).text))
        if self._something and self._sealed_at is not None and self._sealed_at < self._to:
            self._belongs()
        if self._cut and self._chosen is None:
            raise UsageError("what this window recorded is no longer kept here; export from the collector")
        return self._chosen

    def _epoch(self, body: bytes) -> None:
        read = EpochNote.parse(note.parse(body).text)
        if self._sealed_at is None:
            self._sealed_at = read.time
        now = self._now
        self._now = Before(read.segment, body, b"", now.registries, now.named)
        self._segment, self._before = read.segment, self._now

    def _entry(self, body: bytes) -> None:
        header, _, content = parts(body)
        now = self._now
        if header.type is EntryType.GENESIS:
            self._genesis = content
        elif header.type is EntryType.OPEN:
            self._now = Before(now.first, now.note, content, now.registries, now.named)
        elif header.type is EntryType.REGISTRY:
            text = str(payload.parse(header.type, content)["registry"]).encode()
            kept = (*(each for each in now.registries if each != text), text)[-_KEPT:] if text else now.registries
            self._now = Before(now.first, now.note, now.opening, kept, now.named)
        else:
            named = attachment_of(header.type, payload.parse(header.type, content))
            if named:
                digest = bytes.fromhex(named)
                self._in_segment.add(digest)
                kept = (*(each for each in now.named if each != digest), digest)[-_KEPT:]
                self._now = Before(now.first, now.note, now.opening, now.registries, kept)

    def _seal(self, seal: Seal) -> None:
        begun = seal.time >= self._from or self._chosen is not None or self._cut
        if self._sealed_at is not None and self._sealed_at < self._to and begun:
            self._belongs()
        self._sealed_at = seal.time
        self._segment, self._before = seal.segment + 1, self._now
        self._in_segment, self._something = set(), False

    def _belongs(self) -> None:
        """The open segment is part of the window."""
        if not self._genesis:
            raise Malformed("the chain does not start with GENESIS")
        if self._segment < self._first:
            self._cut = True
            return
        if self._chosen is None:
            named = set(self._before.named)
            self._chosen = Chosen(self._genesis, self._segment, self._segment, self._before, named, self._cut)
        self._chosen.last = self._segment
        self._chosen.named |= self._in_segment
