"""What a collector holds of a chain, and whether a record goes on from there (proto/SHIPPING.md, "What is checked").

Pure: records in, the next standing out, or a refusal. It opens no MAC and needs no key that does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from sidecar.chain import lines, note, payload, strictjson
from sidecar.chain.entry import LAYOUT, TAGGED, EntryType, header_type, unpacked
from sidecar.chain.epoch import EpochNote, epoch_hash
from sidecar.chain.head import Head, head_hash
from sidecar.chain.limits import MAX_ATTACHMENT, SEGMENT_ENTRIES, ZERO32
from sidecar.chain.merkle import Tree
from sidecar.chain.parcel import Record
from sidecar.chain.recorded import parts
from sidecar.chain.rollcall import Standing
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.stream import Kind, attachment_of
from sidecar.errors import CollectorRefused, Malformed, SignatureInvalid

_TYPE_AT = 8  # of an entry's header
_SALT_AT, _CODEC_AT = TAGGED, TAGGED + 32  # of a stored entry
_EPOCH, _PREV, _COMMIT, _LENGTH, _WALL = 4, 8, 9, 10, 12  # fields of the layout; seq, segment, chain after the epoch
_GENESIS, _POLICY = EntryType.GENESIS, EntryType.POLICY  # Python 3.11 takes long to look them up
_HASHES = ("leaf", "seal", "key", "note")
_NUMBERS = ("run", "epoch", "segment", "seq", "first", "wall")


@dataclass(frozen=True, slots=True)
class Held:
    """Where a chain stands. ``run``: how many runs there are; ``seq``: the number of the entry to come; ``first``: of
    the open segment; ``peaks``: of its tree; ``seal``: the last seal's hash; ``key``: signs the open segment (zeros: an
    epoch note is due); ``note``: the epoch note's hash; ``wall``: wall_ns of the last entry; ``ended``: how the last
    segment ended, if an epoch note is due; ``cuts``: where losses were accepted: the run, and the place gone on from.
    """

    chain_id: bytes
    identity: bytes
    run: int = 0
    epoch: int = 0
    segment: int = 0
    seq: int = 0
    first: int = 0
    wall: int = 0
    leaf: bytes = ZERO32
    seal: bytes = ZERO32
    key: bytes = ZERO32
    note: bytes = ZERO32
    peaks: tuple[bytes, ...] = ()
    ended: str = ""
    cuts: tuple[tuple[int, int, int], ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Where the next record stands."""
        return self.segment, self.seq

    @property
    def closed(self) -> bool:
        """Whether the sidecar ended in order, so that silence is expected."""
        return self.ended == "close"

    def standing(self, sealed: int | None, seal: bytes | None) -> Standing:
        """The chain's line in a roll-call; what is sealed is given, for it counts once it is in the log."""
        last = (None, None, None) if self.seq == 0 else (self.seq - 1, self.leaf, self.wall)
        return Standing(self.chain_id, self.epoch, sealed, seal, *last)

    def encode(self) -> bytes:
        """As a run stores it."""
        value: dict[str, Any] = {name: str(getattr(self, name)) for name in _NUMBERS}
        value |= {name: getattr(self, name).hex() for name in _HASHES}
        cuts = [[str(each) for each in cut] for cut in self.cuts]
        return strictjson.dumps(value | {"peaks": [p.hex() for p in self.peaks], "ended": self.ended, "cuts": cuts})

    @classmethod
    def decode(cls, data: bytes, chain_id: bytes, identity: bytes) -> Held:
        """Read what :meth:`encode` wrote. Raises Malformed."""
        value = strictjson.parse_object(data)
        try:
            numbers = {name: lines.signed(value[name], name) for name in _NUMBERS}
            hashes = {name: lines.digest(value[name], name) for name in _HASHES}
            peaks = tuple(lines.digest(peak, "peaks") for peak in value["peaks"])
            cuts = tuple((number(run), number(segment), number(seq)) for run, segment, seq in value["cuts"])
            more = {"peaks": peaks, "ended": str(value["ended"]), "cuts": cuts}
            return cls(chain_id, identity, **numbers, **hashes, **more)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise Malformed(f"a run's standing lacks {error}") from None


@dataclass(slots=True)
class Taking:
    """Goes through the records of a parcel from a standing on. ``stored``: of one that was taken before, and may
    have been pruned since. ``notes``: signed epoch notes and seals, for the log; ``attachments``: by digest; ``named``:
    digests that entries name.
    """

    held: Held
    stored: bool = False
    notes: list[bytes] = field(default_factory=list)
    attachments: dict[bytes, bytes] = field(default_factory=dict)
    named: set[bytes] = field(default_factory=set)
    entries: int = 0
    _tree: Tree = field(init=False)
    _headed: bytes | None = None

    def __post_init__(self) -> None:
        self._tree = Tree(self.held.seq - self.held.first, self.held.peaks)

    def take(self, records: list[Record]) -> Held:
        """The standing after all records.

        Raises:
            CollectorRefused: why not one of them is taken.
        """
        judges = {Kind.EPOCH: self._epoch, Kind.HEAD: self._head, Kind.SEAL: self._seal, Kind.ATTACHMENT: self._attach}
        at, wall, before = self.held.seq, self.held.wall, self.held.leaf
        try:
            for kind, body in records:
                if kind is not Kind.SEAL:
                    self._headed = None
                if kind is Kind.ENTRY or (kind is Kind.BARE and self.stored):
                    before, wall = self._entry(body, at, before)
                    at += 1
                    continue
                if kind is Kind.AUTHORITY and self.stored:
                    continue  # a loss that was accepted: the standing before it says what came of it
                self._settle(at, before, wall)
                if kind not in judges:
                    raise CollectorRefused("MALFORMED", f"a record {kind.name} is not shipped")
                judges[kind](body)
                before = self.held.leaf
        except Malformed as error:
            raise CollectorRefused("MALFORMED", f"entry {at}, or the note after it: {error}") from None
        except SignatureInvalid as error:
            raise CollectorRefused("WRONG_KEY", f"after entry {at}: {error}") from None
        self._settle(at, before, wall)
        return replace(self.held, peaks=self._tree.peaks)

    def _settle(self, seq: int, last: bytes, wall: int) -> None:
        if seq != self.held.seq:
            self.held = replace(self.held, seq=seq, leaf=last, wall=wall)

    def _entry(self, body: bytes, seq: int, before: bytes) -> tuple[bytes, int]:
        # The hottest code there is in a collector: cut in place, no object an entry, every check that is written.
        held = self.held
        bare = self.stored and len(body) == TAGGED
        if len(body) <= _CODEC_AT and not bare:
            raise Malformed("entry is cut short")
        fields = LAYOUT.unpack_from(body)
        kind = header_type(fields)
        if held.key == ZERO32:
            raise CollectorRefused("MALFORMED", f"entry {seq} comes where an epoch note is due")
        if fields[_EPOCH:_PREV] != (held.epoch, seq, held.segment, held.chain_id):
            raise CollectorRefused("MALFORMED", f"entry {seq} is of another place")
        if fields[_PREV] != before:
            _refuse_link(seq, first=seq == held.seq)
        if self._tree.size >= SEGMENT_ENTRIES:
            raise CollectorRefused("MALFORMED", f"segment {held.segment} has more than {SEGMENT_ENTRIES} entries")
        leaf = sha256(b"\0" + body[:TAGGED]).digest()
        self._tree.append(leaf)
        self.entries += 1
        if bare:
            return leaf, fields[_WALL]
        content = unpacked(body[_CODEC_AT], body[_CODEC_AT + 1 :], fields[_LENGTH])
        if sha256(b"sidecar/v1/payload\0" + body[_SALT_AT:_CODEC_AT] + content).digest() != fields[_COMMIT]:
            raise CollectorRefused("MALFORMED", f"entry {seq} has another payload than it commits to")
        if (kind is _GENESIS) != (seq == 0) or (seq == 0 and payload.chain_id(content) != held.chain_id):
            raise CollectorRefused("MALFORMED", f"entry {seq}: GENESIS is entry 0, and of its chain")
        if kind is _POLICY:
            self.named |= _named(content)
        return leaf, fields[_WALL]

    def _attach(self, body: bytes) -> None:
        if len(body) > MAX_ATTACHMENT:
            raise CollectorRefused("OVERSIZE", f"an attachment has at most {MAX_ATTACHMENT} bytes")
        self.attachments[sha256(body).digest()] = body

    def _epoch(self, body: bytes) -> None:
        held = self.held
        text = note.verify_single(body, lines.identity_name(held.chain_id), held.identity)
        if epoch_hash(text) == held.note and held.key != ZERO32 and held.seq == held.first:
            return  # sent once more, before the first entry after it
        epoch = EpochNote.parse(text)
        if epoch.chain_id != held.chain_id:
            raise CollectorRefused("MALFORMED", "the epoch note is of another chain")
        begun = held.segment > 0
        due = (held.epoch + begun, held.segment, held.seq, held.leaf, held.seal)
        recovered = held.segment - 1 if held.ended == "crash" else None
        found = (epoch.epoch, epoch.segment, epoch.seq, epoch.leaf, epoch.seal)
        if held.key != ZERO32 or found != due or epoch.recovered != recovered:
            raise CollectorRefused("ROLLBACK", f"epoch {epoch.epoch} does not go on from what is held of the chain")
        self.notes.append(body)
        self.held = replace(held, epoch=epoch.epoch, key=epoch.key, note=epoch_hash(text), ended="")

    def _head(self, body: bytes) -> None:
        held = self.held
        if held.key == ZERO32:
            raise CollectorRefused("MALFORMED", "a head comes where an epoch note is due")
        text = note.verify_single(body, lines.segment_name(held.chain_id, held.segment), held.key)
        head = Head.parse(text)
        if (head.chain_id, head.epoch, head.segment) != (held.chain_id, held.epoch, held.segment):
            raise CollectorRefused("MALFORMED", "the head is of another place")
        if head.seq > held.seq - 1:
            raise CollectorRefused(
                "GAP", f"the head is about entry {head.seq}, and {held.seq - 1} is the last one held"
            )
        if (head.seq, head.leaf) != (held.seq - 1, held.leaf):
            raise CollectorRefused("FORK", f"the head is about another entry {head.seq}, or not about the last one")
        self._headed = head_hash(text)

    def _seal(self, body: bytes) -> None:
        held = self.held
        if held.key == ZERO32:
            raise CollectorRefused("MALFORMED", "a seal comes where an epoch note is due")
        seal = Seal.parse(note.parse(body).text)
        crash = seal.reason == "crash"
        name = lines.identity_name(held.chain_id) if crash else lines.segment_name(held.chain_id, held.segment)
        text = note.verify_single(body, name, held.identity if crash else held.key)
        if (seal.chain_id, seal.epoch, seal.segment) != (held.chain_id, held.epoch, held.segment):
            raise CollectorRefused("MALFORMED", "the seal is of another place")
        if seal.first + seal.count > held.seq:
            raise CollectorRefused("GAP", f"the seal covers entries up to {seal.first + seal.count - 1}")
        found = (seal.first, seal.count, seal.root, seal.last, seal.prev)
        if found != (held.first, held.seq - held.first, self._tree.root(), held.leaf, held.seal):
            raise CollectorRefused("ROLLBACK" if crash else "FORK", f"the seal of segment {held.segment} covers others")
        if crash and seal.head != self._headed:
            raise CollectorRefused("MALFORMED", "the recovery seal comes without the head that it names")
        self.notes.append(body)
        self._tree = Tree()
        ended = seal.reason if seal.next is None else ""
        self.held = replace(
            held, segment=held.segment + 1, first=held.seq, seal=seal_hash(text), key=seal.next or ZERO32, ended=ended
        )


def number(value: str) -> int:
    """A number as a standing spells it. Raises Malformed."""
    return lines.number(value, "cuts")


def named_by(body: bytes) -> set[bytes]:
    """The digests of what a stored entry names. Raises Malformed."""
    if body[_TYPE_AT] != EntryType.POLICY:
        return set()
    _, _, content = parts(body)
    return _named(content)


def _named(content: bytes) -> set[bytes]:
    named = attachment_of(EntryType.POLICY, payload.parse(EntryType.POLICY, content))
    return {bytes.fromhex(named)} if named else set()


def _refuse_link(seq: int, *, first: bool) -> None:
    if first:
        raise CollectorRefused("FORK", f"entry {seq} does not follow the entry that is held before it")
    raise CollectorRefused("MALFORMED", f"entry {seq} does not follow the one before it in the parcel")
