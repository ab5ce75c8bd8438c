"""Where a segment ends: its head, its seal, or the end of the stream (LEDGER.md rules 4 and 5)."""

from __future__ import annotations

from typing import Any

from sidecar.chain import lines
from sidecar.chain.head import Head, head_hash
from sidecar.chain.limits import ZERO32
from sidecar.chain.seal import Seal, seal_hash
from sidecar.errors import Malformed
from sidecar.verify.entries import Entries
from sidecar.verify.plain import Plain
from sidecar.verify.receipts import WITHHELD
from sidecar.verify.report import MAX_FINDINGS, Verdict
from sidecar.verify.signed import is_signed, signer
from sidecar.verify.state import Phase, State


class Segments:
    """Judges head and seal records."""

    def __init__(self, state: State, entries: Entries) -> None:
        self._s = state
        self._entries = entries

    def _open(self, kind: str) -> bool:
        """Whether a head or seal may come now; starts the segment if its opening was lost."""
        s = self._s
        if s.phase is Phase.UNSURE:
            s.begin_segment(s.segment, None)
        if s.phase in (Phase.SEGMENT, Phase.HEADED):
            return True
        s.say(Verdict.MALFORMED, None, f"a {kind} stands where no segment is open")
        return False

    def head(self, data: bytes) -> None:
        """One head record."""
        s = self._s
        try:
            text, _ = signer(data)
            head = Head.parse(text)
        except Malformed as error:
            self._entries.settle(None, None)
            if self._headed():
                s.say(Verdict.MALFORMED, self._last(), f"head: {error}")
            return
        self._entries.settle(None, head.segment)
        if self._headed():
            self._judge_head(data, text, head)

    def _headed(self) -> bool:
        """Whether a head may come now; it is the segment's only one."""
        s = self._s
        if not self._open("head"):
            return False
        if s.phase is Phase.HEADED:
            s.say(Verdict.MALFORMED, None, "a segment has two heads")
            return False
        s.phase = Phase.HEADED
        return True

    def _last(self) -> int | None:
        return self._s.seq - 1 if self._s.count else None

    def _judge_head(self, data: bytes, text: str, head: Head) -> None:
        s = self._s
        try:
            signed = is_signed(data, lines.segment_name(s.chain_id or ZERO32, s.segment), s.key)
        except Malformed as error:
            s.say(Verdict.MALFORMED, self._last(), f"head: {error}")
            return
        if signed is False:
            s.say(Verdict.TAMPERED, self._last(), "head: not signed by the key of its segment")
            return
        self._count_signature(signed, "head")
        s.head = head, head_hash(text)
        self._compare_head(head)

    def _count_signature(self, signed: bool | None, what: str) -> None:
        s = self._s
        if signed:
            s.coverage.notes_signed += 1
        else:
            s.coverage.leave(f"signature of the {what} of segment {s.segment}: its key is not known")

    def _compare_head(self, head: Head) -> None:
        s = self._s
        wrong = [
            name
            for name, found, due in (
                ("chain", head.chain_id, s.chain_id),
                ("epoch", head.epoch, s.epoch),
                ("segment", head.segment, s.segment),
            )
            if found != due
        ]
        if wrong or head.seq < s.first:
            s.say(Verdict.TAMPERED, None, f"head: of another place ({', '.join(wrong) or 'seq'})")
        elif head.seq >= s.seq:
            s.say(Verdict.INCOMPLETE, head.seq, f"signed up to here, and entries from {s.seq} are missing")
        else:
            self._compare_entry(head)

    def _compare_entry(self, head: Head) -> None:
        s = self._s
        back = s.seq - 1 - head.seq
        if back >= len(s.recent):
            s.say(Verdict.TAMPERED, head.seq, "head: names an entry farther back than a segment is long")
            return
        leaf, wall, found = s.recent[-1 - back]
        decided = found.decided() if isinstance(found, Plain) else found
        if back == 0:
            self._entries.signed_leaf(leaf == head.leaf)
        elif leaf != head.leaf and not s.findings.condemned(s.segment, head.seq):
            s.say(Verdict.TAMPERED, head.seq, "it is not the entry that the head signs")
        named = head.decided
        told = None if named is None else (named.decision_id, named.effect, named.request.hex())
        if leaf == head.leaf and (head.time != wall or (decided is not WITHHELD and told not in (None, decided))):
            s.say(Verdict.TAMPERED, head.seq, "head: time or decision not as the entry has it")

    def seal(self, data: bytes) -> None:
        """One seal record."""
        s = self._s
        try:
            text, name = signer(data)
            seal = Seal.parse(text)
        except Malformed as error:
            self._entries.settle(None, None)
            if self._open("seal"):
                s.say(Verdict.MALFORMED, None, f"seal: {error}")
                self._disbelieve()
            return
        self._entries.settle(None, seal.segment)
        if self._open("seal"):
            self._judge(data, text, name, seal)

    def _judge(self, data: bytes, text: str, name: str, seal: Seal) -> None:
        s = self._s
        chain = s.chain_id or ZERO32
        crash = seal.reason == "crash"
        own = lines.identity_name(chain) if crash else lines.segment_name(chain, s.segment)
        if not crash and name == lines.segment_name(chain, seal.segment) and seal.segment > s.segment:
            s.lose(seal.segment, seal.first)
            own = name
        try:
            signed = is_signed(data, own, s.identity if crash else s.key)
        except Malformed as error:
            s.say(Verdict.MALFORMED, None, f"seal: {error}")
            self._disbelieve()
            return
        if signed is False:
            s.say(Verdict.TAMPERED, None, f"seal: not signed by the {'identity' if crash else 'segment'} key")
            self._disbelieve()
            return
        if crash and signed and seal.segment > s.segment:
            s.lose(seal.segment, seal.first)
        self._count_signature(signed, "seal")
        self._compare_opening(seal)
        self._compare(seal, certain=bool(signed))
        self._go_on(seal, text, certain=bool(signed))

    def _disbelieve(self) -> None:
        """A seal without worth: nothing in it is used, what it would have named is not known."""
        s = self._s
        s.end_segment(None)
        s.seal = s.policy = s.registry = s.recovered = None
        s.segment += 1
        self._after(Phase.UNSURE)

    def _after(self, phase: Phase) -> None:
        s = self._s
        s.phase = Phase.DONE if s.coverage.single else phase

    def _compare(self, seal: Seal, *, certain: bool) -> None:
        s = self._s
        wrong = [name for name, (found, due) in self._lines(seal).items() if found != due]
        if certain and s.count and seal.first + seal.count == s.seq:
            good = seal.last == s.leaf or s.leaf is None
            self._entries.signed_leaf(good)
            if not good:
                wrong = [w for w in wrong if w not in ("root", "last", "wall", "mono")]
        if wrong:
            s.say(Verdict.TAMPERED, None, f"seal: {', '.join(wrong)} not as what it seals")
        self._compare_reason(seal)

    def _compare_opening(self, seal: Seal) -> None:
        """GENESIS and OPEN stand at the start of an epoch's first segment, unless the start itself crashed."""
        s = self._s
        crashed = seal.reason == "crash" and not s.count
        if s.due is not None and not crashed and not s.findings.condemned(s.segment, s.seq - 1):
            s.say(Verdict.TAMPERED, s.seq, f"{s.due.name} must stand here, and the segment is sealed without it")

    def _lines(self, seal: Seal) -> dict[str, tuple[Any, Any]]:
        """Name, and what the seal says beside what was found; what is not known is not compared."""
        s = self._s
        span = seal.span
        head = None if s.head is None else s.head[1]
        clocks = None if s.first_clocks is None else (*s.first_clocks, *s.last_clocks)
        told = None if span is None else (span.wall_first, span.mono_first, span.wall_last, span.mono_last)
        pairs: dict[str, tuple[Any, Any]] = {
            "chain": (seal.chain_id, s.chain_id),
            "epoch": (seal.epoch, s.epoch),
            "segment": (seal.segment, s.segment),
            "first": (seal.first, s.first),
            "count": (seal.count, s.count),
            "root": (seal.root, s.tree.root()),
            "last": (seal.last, s.leaf),
            "prev": (seal.prev, s.seal),
            "policy": (seal.policy, s.policy),
            "registry": (seal.registry, s.registry),
            "wall": (told and told[::2], clocks and clocks[::2]),
            "mono": (told and told[1::2], clocks and clocks[1::2]),
            "head": (seal.head, head),
        }
        unknown = [n for n in ("last", "prev", "policy", "registry") if pairs[n][1] is None]
        return {n: pair for n, pair in pairs.items() if n not in unknown}

    def _compare_reason(self, seal: Seal) -> None:
        s = self._s
        if s.closed != (seal.reason == "close") and not (s.closed and seal.reason == "crash"):
            s.say(Verdict.TAMPERED, self._last(), "CLOSE does not go with the reason of the seal")

    def _go_on(self, seal: Seal, text: str, *, certain: bool) -> None:
        s = self._s
        s.end_segment(seal if certain else None)
        if certain:
            s.go_to(seal.first + seal.count)
            s.leaf = seal.last
            s.policy, s.registry = seal.policy, seal.registry
            s.anchors.sealed(s.segment, text, s.seq, seal.time)
            s.authority.sealed(seal)
        s.seal = seal_hash(text)
        s.recovered = -1
        if seal.reason == "crash":
            s.recovered = s.segment
            what = "ended by a crash: what came after its last head cannot be known"
            s.say(Verdict.UNANCHORED, None, f"segment {s.segment} {what}")
        s.segment += 1
        if seal.next is None:
            self._after(Phase.EPOCH_DUE)
        elif not s.coverage.single:
            s.begin_segment(s.segment, seal.next)
        else:
            self._after(Phase.DONE)

    def finish(self) -> None:
        """The stream is at its end, in a place where it may end or not."""
        s = self._s
        if s.coverage.single:
            if s.phase is not Phase.DONE and not s.coverage.broken:
                s.say(Verdict.INCOMPLETE, None, "the segment file ends before the seal")
        elif s.coverage.whole and s.coverage.entries == 0 and not s.coverage.broken:
            s.findings.add(Verdict.INCOMPLETE, 0, 0, "no entry at all, not even GENESIS: no ledger yet, or no more")
        elif s.phase in (Phase.SEGMENT, Phase.HEADED):
            self._leave_open()

    def _leave_open(self) -> None:
        s = self._s
        if s.due is not None and not s.coverage.broken and not s.findings.condemned(s.segment, s.seq - 1):
            s.say(Verdict.INCOMPLETE, s.seq, f"{s.due.name} is missing: an epoch starts with it")
        if s.count == 0 and s.head is None:
            s.coverage.note(f"segment {s.segment} is open and empty")
            s.receipts.end_segment(s.first, s.seq)
            return
        s.coverage.note(f"segment {s.segment} is open: it has no seal yet")
        if s.head is not None:
            self._beyond(s.head[0].seq)
        elif s.phase is Phase.SEGMENT and not s.coverage.broken:
            s.say(Verdict.TAMPERED, s.first, "an open segment has entries and no head")
        s.end_segment(None)

    def _beyond(self, signed: int) -> None:
        s = self._s
        for seq in range(max(signed + 1, s.first), min(s.seq, signed + 1 + MAX_FINDINGS)):
            s.say(Verdict.UNANCHORED, seq, "it lies beyond the last signed head: nobody vouches for it")
        if s.seq - signed - 1 > MAX_FINDINGS:
            s.say(Verdict.UNANCHORED, s.seq - 1, "so do all entries up to this one")
