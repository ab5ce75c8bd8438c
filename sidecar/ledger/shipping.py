"""What is shipped: the chain's records from a place on, out of what is durable (proto/SHIPPING.md, "Place")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import note
from sidecar.chain.acts import Position as Place
from sidecar.chain.entry import EntryType, leaf, tagged
from sidecar.chain.head import Head
from sidecar.chain.parcel import Record
from sidecar.chain.recorded import parts
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind
from sidecar.errors import LedgerDamaged, LedgerError, Malformed
from sidecar.ledger.batch import NoteKind
from sidecar.ledger.epoch import Chain
from sidecar.ledger.port import Store
from sidecar.ledger.trimming import Trimmer
from sidecar.ledger.writer import Position

_TYPE_AT = 8  # of an entry's header


class Left:
    """A ledger as its last epoch left it: who it is, and what its entries are."""

    def __init__(self, chain: Chain, identity: Ed25519PrivateKey, store: Store) -> None:
        self._store, self._identity = store, identity
        self.chain_id, self.log, self.authority = chain.chain_id, chain.log, chain.authority

    def genesis(self) -> bytes:
        """The payload of GENESIS."""
        return parts(self._store.entry(0) or b"")[2]

    def place(self) -> Place:
        """Where the chain goes on (proto/SHIPPING.md, "Place"). Raises LedgerDamaged: it cannot be told."""
        last, seq = self._store.last_note(), self._store.last_seq()
        its_leaf = None if seq is None else self.leaf(seq)
        if last is None or seq is None or its_leaf is None:
            raise LedgerDamaged("the ledger has no entry or no note; run `sidecar verify`")
        return Place(last[0] + (last[1] is NoteKind.SEAL), seq + 1, its_leaf)

    def leaf(self, seq: int) -> bytes | None:
        """The leaf of an entry; None if there is none. Raises Malformed, LedgerError."""
        body = self._store.entry(seq)
        if body is None:
            return None
        return leaf(*tagged(body))

    def sign(self, message: bytes) -> bytes:
        """64 bytes by the identity key."""
        return self._identity.sign(message)


@dataclass(frozen=True, slots=True)
class Shipment:
    """Records in the chain's order, and the place after them."""

    records: tuple[Record, ...]
    segment: int
    seq: int


class Book:
    """An open ledger, as a shipper reads it. Raises LedgerDamaged and LedgerError where it cannot be read."""

    def __init__(self, store: Store, position: Callable[[], Position], trimmer: Trimmer) -> None:
        self._store, self.position, self._trimmer = store, position, trimmer

    def trim(self, receipted: int) -> int:
        """Let go of what need not stay of segments up to ``receipted``; how many entries went."""
        return self._trimmer.trim(receipted)

    def shipment(self, segment: int, seq: int, limit: int) -> Shipment:
        """The records from a place on, up to about ``limit`` bytes of them."""
        at, kept = self.position(), self._store.kept()
        if kept is not None and seq < kept.seq:
            raise LedgerError(
                f"the collector asks for entry {seq}, and entries before {kept.seq} are no longer kept here"
            )
        try:
            return shipment(self._store, at.head, at.segment, segment, seq, limit)
        except Malformed as error:
            raise LedgerDamaged(f"segment {segment} cannot be shipped: {error}; run `sidecar verify`") from None

    def size(self, first: int, after: int) -> int:
        """Bytes of the entries from ``first`` up to ``after``."""
        return sum(map(len, self._store.entries(first, max(0, after - first))))

    def first(self, segment: int) -> int:
        """The number of the entry that a segment starts with, up to the open one."""
        return first_of(self._store, segment)

    def notes(self, segment: int) -> list[bytes]:
        """A segment's epoch note, if it has one, and its seal; none of a segment that is open."""
        seal, epoch = (self._store.note(segment, kind) for kind in (NoteKind.SEAL, NoteKind.EPOCH))
        return [] if seal is None else [each for each in (epoch, seal) if each is not None]


def shipment(store: Store, head: bytes, open_segment: int, segment: int, seq: int, limit: int) -> Shipment:
    """The records from a place on, up to ``limit`` bytes of them, give or take one; ``head`` is of the open segment.

    Raises:
        Malformed, LedgerError: what is stored cannot be read.
    """
    run: list[Record] = []
    room = limit
    while room > 0 and segment <= open_segment:
        sealed = store.note(segment, NoteKind.SEAL)
        ends = _Ends.of(sealed, head)
        if ends.segment != segment:
            break  # the open segment is empty so far, and its head is about the one before
        epoch = store.note(segment, NoteKind.EPOCH)
        if epoch is not None and seq == first_of(store, segment):
            run.append((Kind.EPOCH, epoch))
        for record in _entries(store, seq, ends.after - seq):
            run.append(record)
            room -= len(record[1])
            seq += record[0] is Kind.ENTRY
            if room <= 0:
                break
        if seq < ends.after:
            break
        if sealed is None:
            run.append((Kind.HEAD, head))
            break
        recovered = store.note(segment, NoteKind.HEAD)  # what a crash left, and the seal names
        run += [(Kind.HEAD, recovered)] if recovered is not None else []
        run.append((Kind.SEAL, sealed))
        room -= len(sealed)
        segment += 1
    return Shipment(tuple(run), segment, seq)


@dataclass(frozen=True, slots=True)
class _Ends:
    segment: int
    after: int

    @classmethod
    def of(cls, sealed: bytes | None, head: bytes) -> _Ends:
        if sealed is None:
            at = Head.parse(note.parse(head).text)
            return cls(at.segment, at.seq + 1)
        seal = Seal.parse(note.parse(sealed).text)
        return cls(seal.segment, seal.first + seal.count)


def first_of(store: Store, segment: int) -> int:
    """The number of the entry that a segment starts with."""
    if segment == 0:
        return 0
    before = store.note(segment - 1, NoteKind.SEAL)
    assert before is not None  # a segment is opened in the commit that seals the one before
    seal = Seal.parse(note.parse(before).text)
    return seal.first + seal.count


def _entries(store: Store, first: int, count: int) -> Iterator[Record]:
    for seq, body in enumerate(store.entries(first, count), first):
        if body[_TYPE_AT] == EntryType.POLICY:
            attached = store.attached(seq)
            if attached is not None:
                yield Kind.ATTACHMENT, attached
        yield Kind.ENTRY, bytes(body)
