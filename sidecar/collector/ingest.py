"""Taking what sidecars send: enrolment, parcels, questions (proto/SHIPPING.md).

Checked first, then durable, then answered. What contradicts what is held is kept as evidence and raises an alarm; what
is merely wrong is refused. Any thread; one parcel of a chain at a time.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import authority_note, lines, note
from sidecar.chain.ack import Ack
from sidecar.chain.acts import AcceptLoss, Position
from sidecar.chain.authority_note import Grant
from sidecar.chain.entry import leaf, tagged
from sidecar.chain.epoch import EpochNote
from sidecar.chain.head import Head
from sidecar.chain.limits import ZERO32
from sidecar.chain.merkle import leaf_hash
from sidecar.chain.parcel import MAX_GENESIS, Record, enrol_message, parcel_message, unpack
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind
from sidecar.collector.alarms import Alarms
from sidecar.collector.held import Held, Taking
from sidecar.collector.index import Index
from sidecar.collector.runs import Chain, Run, Runs, place_of, same_form
from sidecar.collector.sequencer import Sequencer
from sidecar.collector.unanchored import Unanchored
from sidecar.errors import CollectorRefused, Malformed, Oversize, SignatureInvalid, StorageError

_ALARMING = ("FORK", "ROLLBACK")
_KEPT = 64  # contradictions of one chain that are kept, in one run of the collector
_COMPARED = (Kind.EPOCH, Kind.ENTRY, Kind.SEAL)


@dataclass(frozen=True, slots=True)
class Rules:
    """Who is let in. ``anybody``: a collector run for development."""

    spiffe: tuple[str, ...] = ()
    anybody: bool = False

    def match(self, spiffe_id: str) -> bool:
        """Whether a SPIFFE id matches one of the rules, in which ``*`` is any run of characters but ``/``."""
        return bool(spiffe_id) and any(re.fullmatch(_pattern(rule), spiffe_id) for rule in self.spiffe)


@dataclass(frozen=True, slots=True)
class Where:
    """How far a chain is held: the signed acknowledgement, and the place to go on from."""

    acknowledgement: bytes
    segment: int
    seq: int


@dataclass(slots=True)
class Book:
    """What is known of a chain in memory. ``heard``: when it last sent something new, ns."""

    chain: Chain
    held: Held
    heard: int
    unanchored: Unanchored
    silent: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Ingest:
    """``origin`` and ``key`` are the log's; ``now`` in ns."""

    def __init__(
        self,
        runs: Runs,
        index: Index,
        sequencer: Sequencer,
        alarms: Alarms,
        rules: Rules,
        origin: str,
        key: Ed25519PrivateKey,
        now: Callable[[], int],
    ) -> None:
        self._runs, self._index, self._sequencer, self._alarms, self._rules = runs, index, sequencer, alarms, rules
        self._signer, self._now = note.Signer(origin, key), now
        self._books: dict[bytes, Book] = {}
        self._loading = [threading.Lock() for _ in range(256)]  # by the first byte of a chain's id
        self._contradictions = Counter[bytes]()
        self.entries = self.bytes = 0

    # --- enrolment

    def enrol(self, genesis: bytes, token: bytes, signature: bytes, spiffe_id: str) -> None:
        """Make a chain known. Raises CollectorRefused, StorageError."""
        if len(genesis) > MAX_GENESIS or len(token) > 128:
            raise CollectorRefused("OVERSIZE", "GENESIS or token are longer than allowed")
        by_certificate = self._rules.match(spiffe_id)
        try:
            chain = Chain.of(genesis, spiffe_id if by_certificate else None)
            note.verify_signature(chain.identity, signature, enrol_message(genesis, token))
        except Malformed as error:
            raise CollectorRefused("MALFORMED", f"GENESIS: {error}") from None
        except SignatureInvalid:
            raise CollectorRefused("WRONG_KEY", "not signed by the identity key that GENESIS names") from None
        if self._runs.chain(chain.chain_id) is not None:
            return
        if not by_certificate:
            self._let_in(token, chain.chain_id)
        bound = self._runs.claim(f"identity/{chain.identity.hex()}", chain.chain_id)
        if bound != chain.chain_id:
            self._alarm(
                "CLONE", bound, f"a second chain {chain.chain_id.hex()} of its identity key", genesis + signature
            )
            raise CollectorRefused("CLONE", f"this identity key has the chain {bound.hex()}")
        self._runs.enrol(chain)

    def _let_in(self, token: bytes, chain_id: bytes) -> None:
        if self._rules.anybody and not token:
            return
        expires = self._runs.token_expires(token) if token else None
        if expires is None or expires * 1_000_000_000 <= self._now():
            raise CollectorRefused("NOT_ALLOWED", "neither a token that is good nor a certificate that a rule lets in")
        if self._runs.claim(f"token-spent/{sha256(token).hexdigest()}", chain_id) != chain_id:
            raise CollectorRefused("NOT_ALLOWED", "the token was spent by another chain")

    # --- questions

    def where(self, chain_id: bytes, spiffe_id: str) -> Where:
        """How far a chain is held. Raises CollectorRefused, StorageError."""
        book = self._open(chain_id, spiffe_id)
        return self._answer(book.held)

    def books(self) -> list[Book]:
        """Every chain that was opened so far."""
        return list(self._books.values())

    def open_all(self) -> None:
        """Open every chain that is enrolled: what was accepted and not logged before a crash is logged now."""
        for chain_id in self._runs.chains():
            chain = self._runs.chain(chain_id)
            if chain is not None:
                self._open(chain_id, chain.spiffe or "")

    # --- shipping

    def ship(self, chain_id: bytes, packed: bytes, signature: bytes, spiffe_id: str) -> Where:
        """Take a parcel, or know it already. Raises CollectorRefused, StorageError."""
        book = self._open(chain_id, spiffe_id)
        try:
            note.verify_signature(book.chain.identity, signature, parcel_message(chain_id, packed))
            records = unpack(packed)
        except SignatureInvalid:
            raise CollectorRefused("WRONG_KEY", "the parcel is not signed by the chain's identity key") from None
        except Oversize as error:
            raise CollectorRefused("OVERSIZE", str(error)) from None
        except Malformed as error:
            raise CollectorRefused("MALFORMED", str(error)) from None
        with book.lock:
            try:
                self._take(book, records, Run(book.held, signature, packed))
            except CollectorRefused as refusal:
                if refusal.code in _ALARMING:
                    self._alarm(refusal.code, chain_id, refusal.cause, signature + packed)
                raise
            except Malformed as error:
                raise CollectorRefused("MALFORMED", str(error)) from None
            return self._answer(book.held)

    def _take(self, book: Book, records: list[Record], run: Run) -> None:
        held = book.held
        if [kind for kind, _ in records] == [Kind.AUTHORITY]:
            self._accept_loss(book, records[0][1], run)
            return
        first = _first_place(records)
        if first is None:
            return
        if first > held.place:
            raise CollectorRefused("GAP", f"entry {first[1]} of segment {first[0]} comes, and {held.place} is due")
        if first < held.place:
            self._compare(book, records, first)
            return
        taking = Taking(held)
        after = replace(taking.take(records), run=held.run + 1)
        for digest in taking.named - taking.attachments.keys():
            if self._runs.attachment(digest) is None:
                raise CollectorRefused("GAP", f"what an entry names by {digest.hex()} did not come with it")
        if replace(after, run=held.run) == held and not taking.notes:
            return
        for digest, body in taking.attachments.items():
            self._runs.attach(digest, body)
        if not self._runs.add(book.chain, run):
            self._books.pop(book.chain.chain_id, None)
            raise StorageError("another collector on this store went on with this chain; ask again")
        book.held, book.heard, book.silent = after, self._now(), False
        self.entries += taking.entries
        self.bytes += len(run.parcel)
        book.unanchored.took(after, taking.notes, book.heard)
        self._sequencer.submit(taking.notes)
        self._sequencer.standings.raise_to(after.standing(None, None))

    def _accept_loss(self, book: Book, record: bytes, run: Run) -> None:
        """The chain goes on from before what is held, with the authority's leave. Raises as :meth:`ship`."""
        chain, held = book.chain, book.held
        grant, act = _loss(chain, record)
        if held.cuts and held.cuts[-1][1:] == act.kept[:2] and record in self._runs.grants(chain.chain_id):
            return  # asked again
        if (held.segment, held.seq, held.leaf) != act.lost:
            raise CollectorRefused("NOT_ALLOWED", f"what is held ends at {held.place}, and another loss was accepted")
        kept = self._held_at(book, act.kept)
        self._sequencer.settle()  # what was lost is in the log before anything takes its place
        self._runs.allow(chain.chain_id, record)
        cut = (held.run, *act.kept[:2])
        kept = replace(kept, run=held.run, cuts=(*held.cuts, cut))
        if not self._runs.add(chain, replace(run, before=kept)):
            self._books.pop(chain.chain_id, None)
            raise StorageError("another collector on this store went on with this chain; ask again")
        book.held, book.heard, book.silent = replace(kept, run=held.run + 1), self._now(), False
        book.unanchored = Unanchored(kept, (), book.heard)
        sealed = (kept.segment - 1, kept.seal) if kept.segment else (None, None)
        self._sequencer.standings.put(kept.standing(*sealed))
        detail = f"entries {act.kept.seq} to {act.lost.seq - 1} were lost; the authority accepted it: {act.reason}"
        self._alarms.sound("LOSS", chain.chain_id, detail, f"authority {grant.hash.hex()}")

    def _held_at(self, book: Book, place: Position) -> Held:
        """The standing at a place of what is held. Raises CollectorRefused where the chain has no such place."""
        for number in range(book.held.run - 1, -1, -1):
            run = self._runs.kept(book.chain, number)
            if run.before.place > place[:2]:
                continue
            found = Taking(run.before, stored=True).take(_before(self._runs.records(run), place[:2]))
            if (*found.place, found.leaf) == place:
                return found
            break
        raise CollectorRefused("NOT_ALLOWED", "the loss was accepted for a chain that goes on at another place")

    def _compare(self, book: Book, records: list[Record], first: tuple[int, int]) -> None:
        """Records of before: known, or in contradiction to what is held. Raises CollectorRefused."""
        theirs = [each for each in records if each[0] in _COMPARED]
        ours = (same_form(each) for each in self._runs.from_place(book.chain, first, book.held))
        for record in theirs:
            held = next(ours, None)
            if held is not None and held[0] is Kind.EPOCH and record[0] is not Kind.EPOCH:
                held = next(ours, None)
            if held is None:
                return
            if held != same_form(record):
                self._check_signed(book, record)
                code = "FORK" if record[0] is Kind.ENTRY or _orderly(record) else "ROLLBACK"
                raise CollectorRefused(
                    code, f"a record at segment {first[0]}, entry {first[1]} or after it is another one"
                )
        for kind, body in records:
            if kind is Kind.HEAD:
                self._compare_head(book, (kind, body), Head.parse(note.parse(body).text))

    def _check_signed(self, book: Book, record: Record) -> None:
        """Whether a note that contradicts what is held is signed as it must be: else anybody could raise an alarm."""
        kind, body = record
        segment = (place_of(record) or (0, 0))[0]
        if kind is Kind.ENTRY:
            return  # the identity key vouches for the parcel
        chain_id = book.chain.chain_id
        name, key = lines.identity_name(chain_id), book.chain.identity
        if kind is Kind.HEAD or _orderly(record):
            name, key = lines.segment_name(chain_id, segment), self._key_of(book, segment)
        try:
            note.verify_single(body, name, key)
        except (Malformed, SignatureInvalid) as error:
            raise CollectorRefused("WRONG_KEY", f"a note of segment {segment}: {error}") from None

    def _key_of(self, book: Book, segment: int) -> bytes:
        """The key that signs a segment's heads and seal, by the note before it."""
        if segment >= book.held.segment:
            return book.held.key
        key = ZERO32
        for kind, body in self._runs.from_place(book.chain, (max(0, segment - 1), 0), book.held):
            if kind is Kind.SEAL and (seal := Seal.parse(note.parse(body).text)).segment == segment - 1:
                key = seal.next or ZERO32
            if kind is Kind.EPOCH and (epoch := EpochNote.parse(note.parse(body).text)).segment == segment:
                key = epoch.key
            if key != ZERO32:
                break
        return key

    def _compare_head(self, book: Book, record: Record, head: Head) -> None:
        for kind, body in self._runs.from_place(book.chain, (head.segment, head.seq), book.held):
            if kind in (Kind.ENTRY, Kind.BARE):
                if leaf(*tagged(body)) != head.leaf:
                    self._check_signed(book, record)
                    raise CollectorRefused("FORK", f"a head is about another entry {head.seq}")
                return

    # --- chains

    def _open(self, chain_id: bytes, spiffe_id: str) -> Book:
        if len(chain_id) != 32:
            raise CollectorRefused("MALFORMED", "a chain id has 32 bytes")
        book = self._books.get(chain_id)
        if book is None:
            with self._loading[chain_id[0]]:
                # One at a time: what a slower one read is less than is held by now, and it would say so in the roll.
                book = self._books.get(chain_id) or self._books.setdefault(chain_id, self._load(chain_id))
        if book.chain.spiffe is not None and book.chain.spiffe != spiffe_id:
            raise CollectorRefused("NOT_ALLOWED", "this chain was enrolled by another certificate")
        return book

    def _load(self, chain_id: bytes) -> Book:
        chain = self._runs.chain(chain_id)
        if chain is None:
            raise CollectorRefused("UNKNOWN_CHAIN", "this chain is not enrolled here")
        newest = self._runs.newest(chain)
        held = Held(chain.chain_id, chain.identity)
        run, pending = self._runs.read(chain, newest) if newest >= 0 else None, list[bytes]()
        if run is not None:
            taking = Taking(run.before, stored=True)
            held = replace(taking.take(self._runs.records(run)), run=newest + 1)
            self._sequencer.standings.raise_to(held.standing(None, None), lowered=bool(held.cuts))
            pending = self._log_again(chain, newest)
        return Book(chain, held, self._now(), Unanchored(held, pending, held.wall))

    def _log_again(self, chain: Chain, newest: int) -> list[bytes]:
        """Submit notes of the last runs, back to where they are in the log; gives them."""
        pending: list[bytes] = []
        for number in range(newest, -1, -1):
            run = self._runs.kept(chain, number)
            notes = [body for kind, body in self._runs.records(run) if kind in (Kind.EPOCH, Kind.SEAL)]
            leaves = {leaf_hash(note.parse(body).text.encode()): body for body in notes}
            missing = leaves.keys() - self._index.positions(list(leaves)).keys()
            pending = [body for each, body in leaves.items() if each in missing] + pending
            if notes and not missing:
                break
        self._sequencer.submit(pending)
        return pending

    def _answer(self, held: Held) -> Where:
        seq, last = (held.seq - 1, held.leaf) if held.seq else (None, None)
        ack = Ack(held.chain_id, held.epoch, held.segment, seq, last, self._now())
        return Where(self._signer.sign(ack.text()), held.segment, held.seq)

    def _alarm(self, kind: str, chain_id: bytes, detail: str, evidence: bytes) -> None:
        if self._contradictions[chain_id] >= _KEPT:
            return
        self._contradictions[chain_id] += 1
        name, new = self._runs.keep_evidence(evidence)
        if new:
            self._alarms.sound(kind, chain_id, detail, name)


def _loss(chain: Chain, record: bytes) -> tuple[Grant, AcceptLoss]:
    if chain.authority is None:
        raise CollectorRefused("NOT_ALLOWED", "this chain has no authority that could accept a loss")
    try:
        grant = authority_note.verify(record, chain.chain_id, chain.authority)
    except SignatureInvalid:
        raise CollectorRefused("WRONG_KEY", "the authority of this chain did not sign that note") from None
    if not isinstance(grant.act, AcceptLoss):
        raise CollectorRefused("MALFORMED", "an authority note that accepts no loss is not shipped")
    return grant, grant.act


def _before(records: list[Record], place: tuple[int, int]) -> list[Record]:
    """The records up to a place."""
    end = next((i for i, each in enumerate(records) if (place_of(each) or (-1, -1)) >= place), len(records))
    return records[:end]


def _first_place(records: Sequence[Record]) -> tuple[int, int] | None:
    try:
        return next((place for each in records if (place := place_of(each)) is not None), None)
    except Malformed as error:
        raise CollectorRefused("MALFORMED", str(error)) from None


def _orderly(record: Record) -> bool:
    """Whether a note is a seal of an epoch that went on, and not one of a new start."""
    return record[0] is Kind.SEAL and b"\nreason crash\n" not in record[1]


def _pattern(rule: str) -> str:
    return "[^/]*".join(map(re.escape, rule.split("*")))
