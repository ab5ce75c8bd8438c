"""What the ledger asks of storage. Nothing here knows what an entry or a note says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.ledger.batch import Batch, NoteKind


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the entries begin that a store still has one after the other."""

    segment: int
    seq: int


class Store(Protocol):
    """What the ledger asks of storage. Reads see only what is committed, and may run on any thread."""

    def commit(self, batch: Batch) -> None:
        """Write a batch. Fully persisted, as a whole, when it returns; on any exception the state is unknown.

        An entry is only ever added after the last one: none is overwritten. That the last decisions, fewer than `LATE`,
        are found (:meth:`find`) need not be persisted before a segment is sealed.
        """
        ...

    def entry(self, seq: int) -> bytes | None:
        """The entry's stored form, as it was written."""
        ...

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        """Up to ``count`` entries from ``first`` on, without a gap, from one snapshot."""
        ...

    def count(self, kind: int, first: int, after: int) -> int:
        """Entries of this type from ``first`` up to ``after``, by the byte that says it."""
        ...

    def last_seq(self) -> int | None:
        """The greatest number of an entry."""
        ...

    def note(self, segment: int, kind: NoteKind) -> bytes | None:
        """A signed note."""
        ...

    def head(self) -> bytes | None:
        """The open segment's last head, signed; None where it has none."""
        ...

    def last_note(self) -> tuple[int, NoteKind] | None:
        """The greatest key of a note."""
        ...

    def last_epoch_segment(self, segment: int) -> int | None:
        """The greatest segment up to this one that has an epoch note."""
        ...

    def find(self, decision_id: bytes) -> int | None:
        """The number of the decision's entry, by an index that nothing vouches for."""
        ...

    def about(self, seq: int) -> list[tuple[int, int]]:
        """Number and type of each entry that refers to this one, rising, by an index that nothing vouches for."""
        ...

    def waiting(self, now: int, limit: int) -> list[int]:
        """Numbers of the decisions that wait beyond ``now``, wall clock in ns, the first to expire first, at most
        ``limit``; by an index that nothing vouches for."""
        ...

    def recall(self, period: int, repeat_key: bytes) -> tuple[int, bytes] | None:
        """The entry's number and receipt under a repeat key, by an index that nothing vouches for."""
        ...

    def attachment(self, digest: bytes) -> bytes | None:
        """What was attached under this SHA-256, by the store's word."""
        ...

    def attached(self, seq: int) -> bytes | None:
        """What is attached to an entry, by the store's word."""
        ...

    def last_attached(self) -> int | None:
        """The greatest number of an entry with an attachment."""
        ...

    def kept(self) -> Kept | None:
        """From where on entries were kept; None: all of them are."""
        ...

    def keep_from(self, place: Kept) -> None:
        """Entries before this need not be here any more. Durable when it returns, as :meth:`let_go`."""
        ...

    def entries_from(self, first: int, after: int, most: int) -> Iterator[tuple[int, bytes]]:
        """Numbers and stored forms of up to ``most`` entries that there are from ``first`` up to ``after``."""
        ...

    def let_go(self, seqs: Sequence[int], decisions: Sequence[bytes], upto: int) -> None:
        """Remove entries before the kept ones, by number, decisions from the index, by id, and what is known of
        references to them; ``upto``: so far that was done."""
        ...

    def let_go_upto(self) -> int:
        """How far :meth:`let_go` came."""
        ...

    def in_use(self) -> int:
        """Bytes of what is stored."""
        ...

    def used(self, rough: int = 0) -> int:
        """Bytes that cannot be written to now: in use, or freed and still held for a reader.

        More may be said, as long as it is no more than ``rough``.
        """
        ...

    def reach(self) -> None:
        """Make the file longer than it need be: a commit that need not lengthen it is flushed sooner. Where there is
        no room nothing is done."""
        ...

    def tidy(self) -> None:
        """Let go of space that was held for readers that are gone."""
        ...

    def close(self) -> None:
        """Let go of everything. May be called twice."""
        ...
