"""The run of entries: each in its place, linked to the one before, tagged, committed (LEDGER.md rules 1, 2, 6, 7).

An entry that is where it should be is judged at once. One that is not is held until the next record shows whether it
was edited in its place or stands in another's; a link that does not fit is held until the next link shows which of the
two entries it condemns. Nothing else is remembered, so memory stays flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sidecar.chain.entry import HEADER_SIZE, LAYOUT, TYPES, EntryType
from sidecar.chain.limits import ZERO16, ZERO32
from sidecar.errors import Malformed
from sidecar.verify import contents, permits, run
from sidecar.verify.contents import Contradiction, Fault, Fields, Told
from sidecar.verify.epochs import Epochs
from sidecar.verify.plain import AGENT, Plain
from sidecar.verify.principals import KINDS
from sidecar.verify.receipts import WITHHELD, Decided
from sidecar.verify.report import Verdict
from sidecar.verify.run import Headers, Seen
from sidecar.verify.state import Phase, State

_BARE = contents.BARE
_TAGGED = 216  # header and tag: the leaf's input
_EPOCH, _SEQ, _SEGMENT, _CHAIN, _PREV, _COMMIT, _LENGTH = 4, 5, 6, 7, 8, 9, 10  # fields of the layout
_FIELDS, _WALL, _MONO, _AGENT_TAG = 11, 12, 13, 17
_AGENT_TAG_AT = 168
_OTHER_TAG = "its agent tag is not that of the agent in its payload"
_SEGMENT_OPEN = Phase.SEGMENT  # members of enumerations by names of their own: Python 3.11 takes long to look them up
_OPEN, _DECISION, _POLICY, _CLOCK = EntryType.OPEN, EntryType.DECISION, EntryType.POLICY, EntryType.CLOCK
_OUTCOME = EntryType.OUTCOME
_ORDINARY = run.ORDINARY
_WITHHELD = frozenset(
    {EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL, EntryType.REJECTED, EntryType.REGISTRY}
)

Place = tuple[int, int]


class Entries:
    """Judges entry records in stream order."""

    def __init__(self, state: State, epochs: Epochs) -> None:
        self._s = state
        self._epochs = epochs
        self._held: tuple[Fields, bytes, Told | None] | None = None
        self._suspects: tuple[Place, Place] | None = None
        self._last: Place | None = None
        self._early: list[tuple[int, bytes]] = []

    def feed_all(self, bodies: Sequence[bytes], seen: Seen) -> None:
        """Entry records that follow each other, each as for :meth:`feed`."""
        headers, told = seen
        in_order = headers is not None and self._held is None and self._suspects is None
        if headers is not None and in_order and run.in_order(self._s, headers, bodies):
            self._accept_all(headers, bodies, told)
        else:
            for body, each in zip(bodies, told, strict=True):
                self.feed(body, each)

    def _accept_all(self, headers: Headers, bodies: Sequence[bytes], told: Sequence[Told | None]) -> None:
        s, leaves, walls = self._s, headers.leaves, headers.walls
        s.coverage.entries += len(bodies)
        s.first_clocks = s.first_clocks or (walls[0], headers.mono[0])
        s.last_clocks = walls[-1], headers.mono[1]
        decided: list[Plain | Decided | None] = []
        for body, each in zip(bodies, told, strict=True):
            if isinstance(each, Plain) and len(each.who) <= AGENT:  # longer ones are not kept
                decided.append(self._plain(each, body))
            else:
                decided.append(self._accepted(body, each))
            s.seq += 1
        s.tree.extend(leaves)
        s.recent.extend(zip(leaves, walls, decided, strict=True))
        s.leaf, self._last = leaves[-1], (s.segment, s.seq - 1)

    def _plain(self, told: Plain, body: bytes) -> Plain:
        """As :meth:`_content`, of a plain DECISION without sealed fields."""
        s = self._s
        tag, agent = body[_AGENT_TAG_AT:HEADER_SIZE], s.principals.plain(told, s.segment, s.seq)
        if tag != ZERO16 and not s.keys.agent_fits(tag, s.seq, agent):
            s.say(Verdict.TAMPERED, s.seq, _OTHER_TAG)
        s.outcomes.decision(told, s.seq)
        return told

    def _accepted(self, body: bytes, told: Told | None) -> Decided | None:
        fields = LAYOUT.unpack_from(body)
        kind = TYPES[fields[1]]
        value = self._content(kind, fields, contents.needed(kind, fields, body) if told is None else told)
        if value is None:
            self._s.unread.add(self._s.seq)
        return _decided(kind, value)

    def feed(self, body: bytes, told: Told | None = None, bare: bool = False) -> None:
        """One entry record. ``told``: what its payload is, where that is known already (`contents.tell`); ``bare``: it
        comes without."""
        s = self._s
        s.coverage.entries += 1
        if bare:
            s.coverage.bare += 1
            told = _BARE
        if len(body) != _TAGGED if bare else len(body) < contents.SHORTEST:
            self._unreadable(body)
            return
        fields = LAYOUT.unpack_from(body)
        if self._held is not None or s.phase is not _SEGMENT_OPEN or s.chain_id is None:
            self._prepare(fields, body)
        if fields[_EPOCH:_PREV] == (s.epoch, s.seq, s.segment, s.chain_id):
            self._accept(fields, body, told, False)
        else:
            self._held = fields, body, told

    def _prepare(self, fields: Fields, body: bytes) -> None:
        s = self._s
        self.settle(fields[_SEQ], fields[_SEGMENT])
        if s.phase is Phase.HEADED:
            s.say(Verdict.MALFORMED, s.seq, "an entry follows its segment's head")
            s.phase = Phase.SEGMENT
        elif s.phase is not Phase.SEGMENT:
            self._start_unannounced()
        if s.chain_id is None:
            known = _committed_payload(fields, body) if len(body) > _TAGGED else None
            self._epochs.learn_chain(fields[_CHAIN], known)

    def _start_unannounced(self) -> None:
        s = self._s
        if s.phase in (Phase.START, Phase.CONTEXT):
            s.say(Verdict.MALFORMED, s.seq, "the stream does not start as a ledger or a segment file does")
            s.begin_epoch(s.epoch)
        elif s.phase is Phase.EPOCH_DUE:
            s.say(Verdict.TAMPERED, s.seq, "the epoch note that must stand here is missing")
            s.begin_epoch(s.epoch + 1)
        s.begin_segment(s.segment, None)

    def _unreadable(self, body: bytes) -> None:
        s = self._s
        self.settle(None, None)
        if s.phase is not Phase.SEGMENT:
            self._start_unannounced()
        s.say(Verdict.MALFORMED, s.seq, "the entry is cut short")
        s.keys.skip(1)
        s.unread.add(s.seq)
        s.seq += 1
        s.leaf = None

    def settle(self, next_seq: int | None, next_segment: int | None) -> None:
        """Judge the entry that is held, if one is, now that the next record tells what it is (None: no entry)."""
        if self._held is None:
            return
        (fields, body, told), self._held = self._held, None
        s = self._s
        seq, segment = fields[_SEQ], fields[_SEGMENT]
        if s.segment < segment == next_segment and seq >= s.seq and fields[_CHAIN] == s.chain_id:
            self._leave_segment(segment, seq, fields[_EPOCH])
        elif next_seq == s.seq + 1 or (next_seq is None and fields[_PREV] == s.leaf):
            pass  # it was edited in its place
        elif seq > s.seq:
            self._leave_gap(seq)
        else:
            s.say(Verdict.TAMPERED, s.seq, f"entry {seq} stands where entry {s.seq} must be")
            return
        wrong = _differences(fields, (s.epoch, s.seq, s.segment, s.chain_id))
        if wrong:
            s.say(Verdict.TAMPERED, s.seq, f"its header is of another place: {wrong}")
        self._accept(fields, body, told, bool(wrong))

    def _leave_segment(self, segment: int, seq: int, epoch: int) -> None:
        s = self._s
        if epoch != s.epoch:
            s.begin_epoch(epoch)
            s.due = None
        s.lose(segment, seq)

    def _leave_gap(self, seq: int) -> None:
        s = self._s
        lost = f"entry {s.seq} is" if seq == s.seq + 1 else f"entries {s.seq} to {seq - 1} are"
        s.say(Verdict.TAMPERED, s.seq, f"{lost} missing: entry {seq} follows")
        s.keys.skip(seq - s.seq)
        s.go_to(seq)
        s.leaf = None

    def _accept(self, fields: Fields, body: bytes, told: Told | None, condemned: bool) -> None:
        """The entry at this place, wherever else its header claims to be."""
        s = self._s
        seq, place = s.seq, (s.segment, s.seq)
        leaf = sha256(b"\0" + body[:_TAGGED]).digest()
        if self._suspects is not None or fields[_PREV] != s.leaf:
            self._link(place, s.leaf is None or fields[_PREV] == s.leaf)
        self._last = place
        s.leaf = leaf
        s.tree.append(leaf)
        s.last_clocks = fields[_WALL], fields[_MONO]
        if s.first_clocks is None:
            s.first_clocks = s.last_clocks
        value = self._judge(fields, body, told, condemned)
        if value is None:
            s.unread.add(seq)
        decided = WITHHELD if told is _BARE else _decided(fields[1], value)
        s.recent.append((leaf, s.last_clocks[0], decided))
        s.seq = seq + 1
        if s.receipts.due:
            s.receipts.compare(seq, leaf, decided, value)

    def _judge(self, fields: Fields, body: bytes, told: Told | None, condemned: bool) -> dict[str, Any] | None:
        """Tag, structure, payload; the payload's value if all of them are in order."""
        s = self._s
        if s.due is not None and s.keys.key is None:
            self._early.append((s.seq, body[:_TAGGED]))
        elif condemned:
            s.keys.skip(1)
        elif s.keys.key is not None and not s.keys.fits(body[:HEADER_SIZE], body[HEADER_SIZE:_TAGGED], s.seq):
            s.say(Verdict.TAMPERED, s.seq, "its tag is wrong")
            return None
        try:
            kind = contents.structure(fields)
        except Malformed as error:
            s.say(Verdict.MALFORMED, s.seq, str(error))
            self._placed(None, fields[_COMMIT])
            if s.seq == 0:
                self._epochs.after_genesis()
            return None
        if kind not in _ORDINARY or s.due is not None or s.closed:
            self._placed(kind, fields[_COMMIT])
        if told is _BARE:
            self._without_payload(kind, fields[_AGENT_TAG])
        s.clock.entry(s.segment, s.seq, fields[_WALL], fields[_MONO], kind is _CLOCK)
        opening = None if told is _BARE else s.personal.given.entries.get(s.seq)
        if opening is not None or (s.seq in s.receipts.due and told is not _BARE):
            told = contents.read(kind, fields, body, opening)  # which tells the whole payload
        elif told is None:
            told = contents.needed(kind, fields, body)
        value = self._content(kind, fields, told, opened=opening is not None)
        if s.seq == 0 or kind is _OPEN:
            self._begin(kind, value)
        elif kind is _CLOCK and value is not None:
            s.coverage.note(f"segment {s.segment}, entry {s.seq}: the wall clock stepped by {value['step_ns']} ns")
        return value

    def _content(self, kind: EntryType, fields: Fields, value: Told, *, opened: bool = False) -> dict[str, Any] | None:
        """What its payload says, held against what other entries say. ``opened``: by an opening that was given."""
        s, agent_tag = self._s, fields[_AGENT_TAG]
        if isinstance(value, Plain):
            value = value.value()
        if value is _BARE:
            return None
        if isinstance(value, Fault):
            s.say(value.verdict, s.seq, value.reason)
            return None
        if agent_tag != ZERO16:
            agent = contents.proved_agent(kind, value)
            if agent is not None and not s.keys.agent_fits(agent_tag, s.seq, agent):
                s.say(Verdict.TAMPERED, s.seq, _OTHER_TAG)
        if kind in KINDS:
            s.principals.entry(kind, value, s.segment, s.seq)
        if kind is _DECISION:
            s.outcomes.decision(value["due"], s.seq)
            if value["asked"] is not None:
                s.approvals.entry(kind, value, s.segment, s.seq)
        elif kind is _OUTCOME:
            s.outcomes.outcome(value, s.segment, s.seq)
            if value["permit"]:
                self._permit(value["permit"])
        elif kind is EntryType.APPROVAL:
            s.approvals.entry(kind, value, s.segment, s.seq)
        elif kind is EntryType.TOMBSTONE:
            s.personal.tombstone(value, s.segment, s.seq)
        elif kind is _POLICY:
            s.attachments.named(kind, value, s.segment, s.seq)
        if fields[_FIELDS] or opened:
            s.personal.entry(value, fields[_FIELDS], s.segment, s.seq)
        return value

    def _without_payload(self, kind: EntryType, agent_tag: bytes) -> None:
        """A bare entry, and whether it may be one: pruned, or withheld from a bundle about some agents."""
        s, part = self._s, self._s.evidence.part
        if kind is EntryType.REGISTRY:
            s.principals.blind()
        about_some = part is not None and part.agents is not None and kind in _WITHHELD
        if not about_some or s.authority.covers(kind, s.segment):
            s.authority.bare(kind, s.segment, s.seq)
        elif agent_tag != ZERO16:
            s.keys.withheld(agent_tag, s.seq)
        else:
            s.coverage.tagless += 1

    def _permit(self, permit: str) -> None:
        s = self._s
        forged = permits.forged(permit, s.chain_id or ZERO32, s.identity)
        if forged is None:
            s.coverage.leave(f"signature of the permit in entry {s.seq}: GENESIS gives no usable identity key")
        elif forged:
            s.say(Verdict.TAMPERED, s.seq, "its permit is not signed by the identity key of GENESIS")
        else:
            s.coverage.permits += 1

    def _placed(self, kind: EntryType | None, commit: bytes) -> None:
        """Types that have their place in an epoch; ``kind`` None: it cannot be read."""
        s = self._s
        due, s.due = s.due, None
        if s.closed:
            s.say(Verdict.TAMPERED, s.seq, "an entry follows CLOSE")
        if due is not None and kind not in (due, None):
            s.say(Verdict.TAMPERED, s.seq, f"{due.name} must stand here")
        elif due is None and kind in (EntryType.GENESIS, EntryType.OPEN):
            s.say(Verdict.TAMPERED, s.seq, f"{kind.name} stands where it must not")
        if due is EntryType.GENESIS and kind is not EntryType.OPEN:
            s.due = EntryType.OPEN
        if kind is EntryType.POLICY:
            s.policy = commit
        elif kind is EntryType.REGISTRY:
            s.registry = commit
        s.closed = kind is EntryType.CLOSE

    def _begin(self, kind: EntryType, value: dict[str, Any] | None) -> None:
        s = self._s
        if s.seq == 0:
            if value is not None and kind is EntryType.GENESIS:
                self._epochs.genesis(value)
            self._epochs.after_genesis()
        else:
            if value is not None:
                self._epochs.opening(value, s.seq)
            self._check_early()

    def _check_early(self) -> None:
        """OPEN carries the seed for the tags of GENESIS and of itself."""
        s = self._s
        for seq, tagged in self._early:
            if seq >= s.first and not s.keys.fits(tagged[:HEADER_SIZE], tagged[HEADER_SIZE:], seq):
                self._condemn((s.segment, seq), "its tag is wrong")
        self._early.clear()

    def _link(self, place: Place, good: bool) -> None:
        self._resolve(good)
        if not good:
            self._suspects = self._last or (max(place[0] - 1, 0), max(place[1] - 1, 0)), place

    def _resolve(self, good: bool) -> None:
        if self._suspects is not None:
            before, this = self._suspects
            self._suspects = None
            self._condemn(before if good else this)

    def signed_leaf(self, good: bool) -> None:
        """A seal or head in order says whether the last entry is the one it was signed for."""
        if self._suspects is None and not good and self._last is not None:
            self._condemn(self._last)
        self._resolve(good)

    def _condemn(self, place: Place, reason: str = "it is not the entry that was linked or signed here") -> None:
        findings = self._s.findings
        if not findings.condemned(*place):
            findings.add(Verdict.TAMPERED, *place, reason)

    def finish(self) -> None:
        """The stream is at its end."""
        self.settle(None, None)
        self._resolve(True)
        self._s.clock.settle()


def _committed_payload(fields: Fields, body: bytes) -> bytes | None:
    try:
        return None if len(body) == _TAGGED else contents.read_payload(body, fields[_LENGTH], fields[_COMMIT])
    except (Malformed, Contradiction):
        return None


def _decided(kind: int, value: dict[str, Any] | None) -> Decided | None:
    if value is None or kind != _DECISION:
        return None
    return value["decision_id"], value["effect"], value["request_digest"]


def _differences(fields: Fields, due: tuple[object, ...]) -> str:
    names = ("epoch", "seq", "segment", "chain")
    found = fields[_EPOCH:_PREV]
    return ", ".join(name for name, a, b in zip(names, found, due, strict=True) if a != b)
