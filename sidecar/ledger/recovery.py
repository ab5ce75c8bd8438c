"""Where the last epoch ended: in order, or in a crash whose tail a recovery seal closes (proto/LEDGER.md, "Crash").

What is stored is read as if somebody else had written it. It is never repaired: entries beyond the last signed head,
or a tail that contradicts itself, stop the start.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import epoch as notes
from sidecar.chain import lines, note, seeds
from sidecar.chain import payload as payloads
from sidecar.chain.entry import EntryType, Header, StoredEntry, leaf, payload_commit, tagged
from sidecar.chain.head import Head, head_hash
from sidecar.chain.limits import NO_SEQ, ZERO32
from sidecar.chain.merkle import Tree
from sidecar.chain.seal import Seal, Span, seal_hash
from sidecar.errors import LedgerDamaged, Malformed, SignatureInvalid
from sidecar.ledger.batch import LATE, NoteKind
from sidecar.ledger.epoch import Chain, Start
from sidecar.ledger.port import Store
from sidecar.ledger.trimming import decision_of

_MEND = "keep this ledger as it is, run `sidecar verify` on it, and start a new one beside it"


@dataclass(frozen=True, slots=True)
class Ended:
    """How the ledger stands. ``start``: where the next epoch begins; ``seal``: the last seal, signed.

    ``crashed``: that seal is new, a recovery seal, to be stored together with the epoch note; ``late``: ids and numbers
    of the decisions that the index may lack.
    """

    start: Start
    seal: bytes
    crashed: bool
    late: list[tuple[bytes, int]] = field(default_factory=list)


def read_chain(store: Store) -> Chain:
    """What GENESIS fixes.

    Raises:
        LedgerDamaged: there is no proper GENESIS.
    """
    try:
        body = store.entry(0)
        if body is None:
            raise Malformed("entry 0 is missing")
        stored = StoredEntry.parse(body)
        header = Header.decode(stored.header)
        genesis = stored.payload(header.payload_len)
        value = payloads.parse(EntryType.GENESIS, genesis)
        chain_id = payloads.chain_id(genesis)
        if header.type is not EntryType.GENESIS or header.chain_id != chain_id:
            raise Malformed("entry 0 is not the GENESIS of its chain")
        authority = None if value["authority"] is None else bytes.fromhex(value["authority"])
        return Chain(chain_id, bytes.fromhex(value["identity"]), seeds.custody_of(value), value["log"], authority)
    except Malformed as error:
        raise LedgerDamaged(f"GENESIS: {error}; {_MEND}") from None


def find_end(store: Store, chain: Chain, identity: Ed25519PrivateKey, time: int) -> Ended:
    """Where the next epoch begins, with a recovery seal (``time`` in ns) if the last one did not end in order.

    Raises:
        LedgerDamaged: the last seal, the last head or the tail between them is not what this program wrote.
    """
    try:
        return _find_end(store, chain, identity, time)
    except (Malformed, SignatureInvalid) as error:
        raise LedgerDamaged(f"{error}; {_MEND}") from None


def _find_end(store: Store, chain: Chain, identity: Ed25519PrivateKey, time: int) -> Ended:
    last = store.last_note()
    if last is None:
        raise Malformed("there is not one note")
    segment, kind = last
    if kind is NoteKind.SEAL:
        sealed, text = _read_seal(store, chain, segment)
        if sealed.next is None:
            return _in_order(store, sealed, text)
        segment += 1
    elif kind is NoteKind.HEAD or store.head() is None:
        raise Malformed(f"the notes of segment {segment} are not all there")
    seal, late = _recover(store, chain, segment, max(0, time))
    text = seal.text()
    signed = note.sign(text, lines.identity_name(chain.chain_id), identity)
    return Ended(_next_start(store, seal, text, recovered=segment), signed, True, late)


def _in_order(store: Store, seal: Seal, text: str) -> Ended:
    next_seq = seal.first + seal.count
    if store.last_seq() != next_seq - 1 or _leaf_at(store, next_seq) != seal.last:
        raise Malformed(f"the last entry is not entry {next_seq - 1} as the seal of segment {seal.segment} names it")
    signed = _need(store, seal.segment, NoteKind.SEAL)
    return Ended(_next_start(store, seal, text, recovered=None), signed, False)


def _next_start(store: Store, seal: Seal, text: str, *, recovered: int | None) -> Start:
    seq = seal.first + seal.count
    before = _header(store, seq - 1)
    return Start(
        seal.epoch + 1, seal.segment + 1, seq, seal.last, seal_hash(text), seal.policy, seal.registry,
        before.wall_ns, recovered,
    )  # fmt: skip


def _recover(store: Store, chain: Chain, segment: int, time: int) -> tuple[Seal, list[tuple[bytes, int]]]:
    """The recovery seal over the open segment, once everything in it was looked at again; decisions as `Ended.late`."""
    epoch_at = store.last_epoch_segment(segment)
    epoch = _read_epoch(store, chain, segment if epoch_at is None else epoch_at)
    sealed, text = _read_seal(store, chain, segment - 1)
    first, last, before = sealed.first + sealed.count, sealed.last, seal_hash(text)
    key = epoch.key if epoch_at == segment else sealed.next
    if key is None:
        raise Malformed(f"segment {segment} follows a seal that names no key for it")
    if epoch_at == segment and (epoch.seq, epoch.leaf, epoch.seal) != (first, last, before):
        raise Malformed(f"the epoch note of segment {segment} does not continue the seal before")
    head = _read_head(store, chain, segment, key)
    tail = _Tail(chain.chain_id, epoch.epoch, segment, first, last, sealed.policy, sealed.registry)
    tail.read(store)
    if _leaf_at(store, first) != last:
        raise Malformed(f"entry {first - 1} is not the one that segment {segment} follows")
    if (head is None) != (tail.tree.size == 0):
        raise Malformed(f"segment {segment} has entries without a signed head, or a head without entries")
    if head is not None and (head.seq, head.leaf, head.epoch) != (tail.next_seq - 1, tail.last, epoch.epoch):
        raise Malformed(f"the last signed head of segment {segment} is not about its last entry")
    seal = Seal(
        chain.chain_id, epoch.epoch, segment, first, tail.tree.size, tail.tree.root(), tail.last, before, tail.span,
        None, None, None, tail.policy, tail.registry, None if head is None else head_hash(head.text()), "crash", time,
    )  # fmt: skip
    return seal, [(found, seq) for seq in tail.decisions if (found := decision_of(store.entry(seq) or b"")) is not None]


class _Tail:
    """The entries of the unsealed segment, each held against the one before."""

    def __init__(
        self, chain_id: bytes, epoch: int, segment: int, first: int, last: bytes, policy: bytes,
        registry: bytes,
    ) -> None:  # fmt: skip
        self._expected = (chain_id, epoch, segment)
        self.next_seq, self.last, self.policy, self.registry = first, last, policy, registry
        self.tree = Tree()
        self.span: Span | None = None
        self.decisions: deque[int] = deque(maxlen=LATE)

    def read(self, store: Store) -> None:
        first = self.next_seq
        for body in store.entries(first, NO_SEQ - first):
            self._add(StoredEntry.parse(body))
        if store.last_seq() != self.next_seq - 1:
            raise Malformed(f"entries do not end at {self.next_seq - 1}, where their numbers break off")

    def _add(self, stored: StoredEntry) -> None:
        header = Header.decode(stored.header)
        if (header.chain_id, header.epoch, header.segment) != self._expected:
            raise Malformed(f"entry {self.next_seq} belongs to another chain, epoch or segment")
        if (header.seq, header.prev) != (self.next_seq, self.last):
            raise Malformed(f"entry {self.next_seq} does not continue the one before")
        if payload_commit(stored.salt, stored.payload(header.payload_len)) != header.payload_commit:
            raise Malformed(f"entry {self.next_seq} has another payload than it commits to")
        if self.span is not None and header.mono_ns <= self.span.mono_last:
            raise Malformed(f"entry {self.next_seq} is not later than the one before")
        self._take(header, leaf(stored.header, stored.tag))

    def _take(self, header: Header, its_leaf: bytes) -> None:
        start = self.span or Span(header.wall_ns, header.wall_ns, header.mono_ns, header.mono_ns)
        self.span = Span(start.wall_first, header.wall_ns, start.mono_first, header.mono_ns)
        if header.type is EntryType.POLICY:
            self.policy = header.payload_commit
        elif header.type is EntryType.REGISTRY:
            self.registry = header.payload_commit
        elif header.type is EntryType.DECISION:
            self.decisions.append(header.seq)
        self.last = its_leaf
        self.tree.append(its_leaf)
        self.next_seq += 1


def _read_epoch(store: Store, chain: Chain, segment: int) -> notes.EpochNote:
    signed = _need(store, segment, NoteKind.EPOCH)
    text = note.verify_single(signed, lines.identity_name(chain.chain_id), chain.identity)
    epoch = notes.EpochNote.parse(text)
    if epoch.chain_id != chain.chain_id or epoch.segment != segment:
        raise Malformed(f"the epoch note of segment {segment} is about another place")
    return epoch


def _read_head(store: Store, chain: Chain, segment: int, key: bytes) -> Head | None:
    signed = store.head()
    if signed is None:
        return None
    head = Head.parse(note.verify_single(signed, lines.segment_name(chain.chain_id, segment), key))
    if head.chain_id != chain.chain_id or head.segment != segment:
        raise Malformed(f"the head of segment {segment} is about another place")
    return head


def _read_seal(store: Store, chain: Chain, segment: int) -> tuple[Seal, str]:
    """A seal and its text, its signature checked by the key that the note before it names."""
    signed = _need(store, segment, NoteKind.SEAL)
    unchecked = Seal.parse(note.parse(signed).text)
    if unchecked.reason == "crash":
        text = note.verify_single(signed, lines.identity_name(chain.chain_id), chain.identity)
    else:
        key = _key_of(store, chain, segment)
        text = note.verify_single(signed, lines.segment_name(chain.chain_id, segment), key)
    seal = Seal.parse(text)
    if seal.chain_id != chain.chain_id or seal.segment != segment:
        raise Malformed(f"the seal of segment {segment} is about another place")
    return seal, text


def _key_of(store: Store, chain: Chain, segment: int) -> bytes:
    if store.note(segment, NoteKind.EPOCH) is not None:
        return _read_epoch(store, chain, segment).key
    before = Seal.parse(note.parse(_need(store, segment - 1, NoteKind.SEAL)).text)
    if before.next is None:
        raise Malformed(f"the seal of segment {segment - 1} names no key for the next")
    return before.next


def _need(store: Store, segment: int, kind: NoteKind) -> bytes:
    signed = store.note(segment, kind) if segment >= 0 else None
    if signed is None:
        raise Malformed(f"the {kind.name.lower()} note of segment {segment} is missing")
    return signed


def _header(store: Store, seq: int) -> Header:
    body = store.entry(seq) if seq >= 0 else None
    if body is None:
        raise Malformed(f"entry {seq} is missing")
    return Header.decode(tagged(body)[0])


def _leaf_at(store: Store, next_seq: int) -> bytes:
    """The leaf of the entry before ``next_seq``."""
    if next_seq == 0:
        return ZERO32
    body = store.entry(next_seq - 1)
    if body is None:
        raise Malformed(f"entry {next_seq - 1} is missing")
    return leaf(*tagged(body))
