"""What the judge knows between two records: where in the chain it stands, and what must come next."""

from __future__ import annotations

import enum
from collections import deque

from sidecar.chain.entry import EntryType
from sidecar.chain.epoch import EpochNote
from sidecar.chain.head import Head
from sidecar.chain.limits import ZERO32
from sidecar.chain.merkle import Tree
from sidecar.chain.seal import Seal
from sidecar.chain.seeds import Custody
from sidecar.verify.anchors import Anchors
from sidecar.verify.approvals import Approvals
from sidecar.verify.attachments import Attachments
from sidecar.verify.authority import Authority
from sidecar.verify.clock import ClockRule
from sidecar.verify.coverage import Coverage
from sidecar.verify.evidence import Evidence
from sidecar.verify.keys import Keyring
from sidecar.verify.outcomes import Outcomes
from sidecar.verify.personal import PersonalFields
from sidecar.verify.plain import Plain
from sidecar.verify.principals import Principals
from sidecar.verify.receipts import Decided, Receipts
from sidecar.verify.report import Findings, Verdict
from sidecar.verify.unread import Unread

REMEMBERED = 16_384
"""Entries of a segment that a head may name: more than a segment holds (10,000), and a bound on memory."""


Recent = tuple[bytes, int, Plain | Decided | None]
"""Leaf, wall clock, and what was decided."""


class Phase(enum.Enum):
    """What the next record may be."""

    START = "nothing read yet"
    CONTEXT = "within the context records of a segment file"
    SEGMENT = "in a segment"
    HEADED = "after a segment's head: only its seal may follow"
    EPOCH_DUE = "after a seal that ends its epoch"
    UNSURE = "after a seal that cannot be believed: a segment or an epoch"
    DONE = "after the seal of a segment file"


class State:
    """The position in the chain. None stands for what is not known, which is then not compared either."""

    def __init__(self, evidence: Evidence) -> None:
        self.findings = Findings()
        self.coverage = Coverage()
        self.evidence = evidence
        self.keys = Keyring(evidence, self.findings, self.coverage)
        self.clock = ClockRule(self.findings)
        self.personal = PersonalFields(evidence.openings, self.findings, self.coverage)
        self.authority = Authority(self.findings, self.coverage, self.personal)
        self.receipts = Receipts(evidence.receipts, self.findings, self.coverage, self.authority)
        self.anchors = Anchors(evidence, self.findings, self.coverage, self.authority)
        self.attachments = Attachments(self.findings, self.coverage)
        self.principals = Principals(evidence.trust, self.findings, self.coverage)
        self.unread = Unread()
        self.approvals = Approvals(self.principals, self.unread, self.findings, self.coverage)
        self.outcomes = Outcomes(self.unread, self.findings, self.coverage)
        self.phase = Phase.START
        self.chain_id: bytes | None = None
        self.identity: bytes | None = None
        self.custody: Custody | None = None
        self.log: str | None = None
        self.epoch = 0
        self.note: EpochNote | None = None
        self.note_hash: bytes | None = None
        self.recovered: int | None = -1  # the segment that a recovery seal ended; -1: none
        self.seal: bytes | None = ZERO32
        self.policy: bytes | None = ZERO32
        self.registry: bytes | None = ZERO32
        self.segment = 0
        self.seq = 0
        self.leaf: bytes | None = ZERO32
        self.key: bytes | None = None
        self.due: EntryType | None = None
        self.context: int | None = None  # within the context of a window: the segment that it claims to start with
        self.start = 0  # the segment that the stream starts with
        self.opened_at: int | None = None  # the time of the seal before it, ns
        self.last_segment = -1  # the last one of which anything was read
        self._fresh()

    def _fresh(self) -> None:
        self.first = self.seq
        self.tree = Tree()
        self.recent: deque[Recent] = deque(maxlen=REMEMBERED)
        self.first_clocks: tuple[int, int] | None = None
        self.last_clocks = (0, 0)
        self.head: tuple[Head, bytes] | None = None
        self.closed = False

    @property
    def count(self) -> int:
        """Entries of the segment so far, by their places."""
        return self.seq - self.first

    def begin_epoch(self, epoch: int) -> None:
        """An epoch note was read."""
        self.epoch = epoch
        self.note = self.note_hash = None
        self.due = EntryType.GENESIS if epoch == 0 and self.chain_id is None else EntryType.OPEN
        self.coverage.epochs += 1
        self.keys.close_epoch()
        self.clock.begin_epoch()

    def begin_segment(self, segment: int, key: bytes | None) -> None:
        """Segment ``segment`` is open now; ``key`` signs its heads and seal."""
        self.segment, self.phase = segment, Phase.SEGMENT
        self._fresh()
        self.keys.begin_segment(self.chain_id, segment)
        self.use_key(key)

    def use_key(self, key: bytes | None) -> None:
        """The segment's signing key has become known (or is known to be unknown)."""
        self.key = key
        if self.chain_id is not None:
            self.receipts.begin_segment(self.segment, self.epoch, key)

    def end_segment(self, seal: Seal | None) -> None:
        """The segment is over; ``seal`` only if its signature is good."""
        self.keys.end_segment(self.segment, seal)
        self.receipts.end_segment(self.first, self.seq)
        self.anchors.end_segment(self.segment, self.seq - len(self.recent), self.recent)
        self.coverage.segments += 1
        self.last_segment = self.segment

    def lose(self, segment: int, seq: int) -> None:
        """This segment's seal, or whole segments, are not there: go on with ``segment``, which starts at ``seq``."""
        self.miss(seq, f"segment {segment} follows")
        self.leave_unsealed()
        if seq > self.seq:
            self.go_to(seq)
            self.leaf = None
        self.seal = self.policy = self.registry = None
        self.begin_segment(segment, None)

    def go_to(self, seq: int) -> None:
        """The next entry is this one: a note says so, or others are missing before it."""
        if seq != self.seq:
            self.seq = seq
            self.unread.before(seq)

    def leave_unsealed(self) -> None:
        """The segment being read has no seal, and nothing of it follows; it may have been opened and no more."""
        if self.count or self.head is not None or self.phase is Phase.HEADED:
            self.end_segment(None)
        else:
            self.receipts.drop_segment()

    def miss(self, seq: int, follows: str) -> None:
        """The segment being read, or the rest of it, is missing; what follows starts at entry ``seq``."""
        place = self.seq if seq > self.seq else None
        what = "has no seal" if self.count else "is missing"
        self.say(Verdict.TAMPERED, place, f"segment {self.segment} {what}: {follows}")

    def say(self, verdict: Verdict, seq: int | None, reason: str) -> None:
        """A finding in the segment being read, or in the context before it."""
        place = (self.segment, seq) if self.context is None else (self.context, None)
        self.findings.add(verdict, *place, reason)
