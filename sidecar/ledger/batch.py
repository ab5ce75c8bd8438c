"""What one commit writes, and the keys it is found by (proto/LEDGER.md, "LMDB")."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from sidecar.errors import LedgerDamaged

LATE: Final = 64
"""Of so many decisions the last ones may lack their row in the index while their segment is open."""


class NoteKind(enum.IntEnum):
    """The last byte of a note's key. ``HEAD``: the last one of a segment that a crash left."""

    EPOCH = 0
    HEAD = 1
    SEAL = 2


@dataclass(frozen=True, slots=True)
class Wait:
    """That the decision at ``seq`` waits for approvals until ``expires``, wall clock in ns."""

    expires: int
    seq: int

    def key(self) -> bytes:
        """Its key: those that expire first come first."""
        return self.expires.to_bytes(8, "big") + seq_key(self.seq)


@dataclass(slots=True)
class Batch:
    """What one commit writes, all of it or nothing. Entries in the order of their numbers.

    ``head``: the open segment's last head from now on; empty: it has none; None: it stays as it is.
    """

    entries: list[tuple[bytes, bytes]] = field(default_factory=list)
    notes: list[tuple[bytes, bytes]] = field(default_factory=list)
    head: bytes | None = None
    sealed: bool = False
    index: list[tuple[bytes, bytes]] = field(default_factory=list)
    abouts: list[tuple[bytes, bytes]] = field(default_factory=list)
    waits: list[bytes] = field(default_factory=list)
    settled: list[bytes] = field(default_factory=list)
    waited_before: int = 0
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    attachments: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    forget_before: int = 0
    grants: list[tuple[bytes, bytes]] = field(default_factory=list)

    def entry(self, seq: int, body: bytes) -> None:
        """An entry in its stored form."""
        self.entries.append((seq_key(seq), body))

    def note(self, segment: int, kind: NoteKind, signed: bytes) -> None:
        """A signed note in place of the one there."""
        self.notes.append((note_key(segment, kind), signed))

    def seal(self, segment: int, signed: bytes) -> None:
        """That the segment ends here; the index is to have all its decisions."""
        self.note(segment, NoteKind.SEAL, signed)
        self.sealed = True

    def decision(self, decision_id: bytes, seq: int) -> None:
        """Where the decision with this 16-byte id is."""
        self.index.append((decision_id, seq_key(seq)))

    def about(self, ref_seq: int, seq: int, kind: int) -> None:
        """That the entry ``seq``, of type ``kind``, refers to another."""
        self.abouts.append((about_key(ref_seq, seq), bytes((kind,))))

    def wait(self, wait: Wait, now: int) -> None:
        """That a decision waits; waits that ended before ``now``, the wall clock in ns, are forgotten."""
        self.waits.append(wait.key())
        self.waited_before = max(self.waited_before, now)

    def settle(self, wait: Wait) -> None:
        """That a decision waits no more."""
        self.settled.append(wait.key())

    def allow(self, name: bytes, grant: bytes) -> None:
        """An authority's grant, under its SHA-256."""
        self.grants.append((name, grant))

    def attach(self, seq: int, digest: bytes, attachment: bytes) -> None:
        """What the entry names by its SHA-256; kept once."""
        self.attachments.append((seq_key(seq), digest, attachment))

    def request(self, period: int, repeat_key: bytes, seq: int, receipt: bytes) -> None:
        """What to recall when the same is asked again; keys of periods before the last one are forgotten."""
        self.requests.append((request_key(period, repeat_key), seq_key(seq) + receipt))
        self.forget_before = max(self.forget_before, period - 1)


def seq_key(seq: int) -> bytes:
    """The key of an entry."""
    return seq.to_bytes(8, "big")


def request_key(period: int, repeat_key: bytes) -> bytes:
    """The key of what is recalled: the period it was made in, then what stands for the request."""
    return period.to_bytes(8, "big") + repeat_key


def seq_of(key: bytes) -> int:
    """The entry's number from its key. Raises LedgerDamaged."""
    if len(key) != 8:
        raise LedgerDamaged("the key of an entry has not 8 bytes")
    return int.from_bytes(key, "big")


def about_key(ref_seq: int, seq: int) -> bytes:
    """The key of a reference: the entry referred to, then the one that refers."""
    return seq_key(ref_seq) + seq_key(seq)


def note_key(segment: int, kind: NoteKind) -> bytes:
    """The key of a note."""
    return segment.to_bytes(8, "big") + bytes((kind,))


def note_of(key: bytes) -> tuple[int, NoteKind]:
    """Segment and kind from a note's key. Raises LedgerDamaged."""
    if len(key) != 9 or key[8] > NoteKind.SEAL:
        raise LedgerDamaged("the key of a note has not its 9 bytes")
    return int.from_bytes(key[:8], "big"), NoteKind(key[8])
