"""Where tag keys come from: a custodian's seed, ratcheted from segment to segment, or a disclosure (LEDGER.md rule 7).

A custodian's keys hang from the seed commitment that the epoch note signs; they are right or refused before they are
used. Disclosed keys hang from the seal's commitments, which come after the entries: what they find wrong is kept back
until the seal has confirmed the keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.chain.entry import HEADER_SIZE, TAGGED
from sidecar.chain.epoch import EpochNote
from sidecar.chain.limits import SEGMENT_ENTRIES
from sidecar.chain.ratchet import (
    Ratchet,
    SegmentKeys,
    agent_tag,
    evolve,
    mac_key_commit,
    seed_commit,
    tag_and_next,
    tag_key_commit,
)
from sidecar.chain.seal import Seal
from sidecar.chain.seeds import Custody, SealedShare
from sidecar.errors import CustodianMissing, CustodyError
from sidecar.verify.coverage import Coverage
from sidecar.verify.evidence import Evidence
from sidecar.verify.report import MAX_FINDINGS, Findings, Verdict

_FARTHEST = 2**22  # segments one may ratchet over at once: 8 years of a segment a minute


class Keyring:
    """The keys of the segment being read. ``key`` is the next entry's, None where tags cannot be checked."""

    __slots__ = (
        "_agents", "_bare", "_coverage", "_disclosure", "_evidence", "_findings", "_left_out", "_next", "_ratchet",
        "_tried", "_wrong", "key", "segment",
    )  # fmt: skip

    def __init__(self, evidence: Evidence, findings: Findings, coverage: Coverage) -> None:
        self._evidence, self._findings, self._coverage = evidence, findings, coverage
        self._disclosure = evidence.disclosure if evidence.open_seed is None else None
        self._agents = (evidence.part.agents if evidence.part is not None else None) or ()
        self._ratchet: Ratchet | None = None
        self._next = 0
        self._wrong: list[tuple[int, str]] = []
        self._left_out: list[int] = []  # bare entries with the tag of an agent of the case
        self._bare: int | None = None  # the segment's first bare entry with a tag
        self._tried = 0  # how many of them were held against the agents
        self.segment: SegmentKeys | None = None
        self.key: bytes | None = None

    def open_epoch(
        self, custody: Custody, note: EpochNote, shares: list[SealedShare], segment: int, seq: int | None
    ) -> None:
        """Open the epoch's seed and take the keys of ``segment``; a bad share or seed is TAMPERED at ``seq``."""
        self._ratchet = None
        if self._evidence.open_seed is None or not custody.custodians:
            return
        try:
            seed = self._evidence.open_seed(custody, note.chain_id, note.epoch, shares)
        except CustodianMissing as error:  # the verifier's own keys are at fault, not the ledger
            if self._evidence.disclosure is None:
                self._coverage.leave(f"HMAC tags of epoch {note.epoch}: {error}")
                return
            self._disclosure = self._evidence.disclosure
            self.begin_segment(note.chain_id, segment)
            return
        except CustodyError as error:
            self._findings.add(Verdict.TAMPERED, segment, seq, f"seed of epoch {note.epoch}: {error}")
            return
        if seed_commit(note.chain_id, note.epoch, seed) != note.seed_commit:
            reason = f"seed of epoch {note.epoch}: what the custodians opened is not what the epoch note commits to"
            self._findings.add(Verdict.TAMPERED, segment, seq, reason)
            return
        self._coverage.seeds += 1
        self._ratchet, self._next = Ratchet(note.chain_id, note.epoch, seed, note.segment), note.segment
        self.begin_segment(note.chain_id, segment)

    def close_epoch(self) -> None:
        """Forget the epoch's keys."""
        self._ratchet = self.segment = self.key = None

    def begin_segment(self, chain_id: bytes | None, segment: int) -> None:
        """Take the keys of ``segment``, from whatever source there is."""
        self._wrong.clear()
        self._left_out, self._bare, self._tried = [], None, 0
        self.segment = self._ratcheted(segment)
        if self.segment is None and self._disclosure is not None and self._disclosure.chain_id == chain_id:
            self.segment = self._disclosure.segments.get(segment)
        self.key = None if self.segment is None else self.segment.mac_key

    def _ratcheted(self, segment: int) -> SegmentKeys | None:
        if self._ratchet is None or not 0 <= segment - self._next <= _FARTHEST:
            return None
        self._ratchet.skip(segment - self._next)
        self._next = segment + 1
        return self._ratchet.advance()

    def fits(self, header: bytes, tag: bytes, seq: int) -> bool:
        """Whether ``tag`` is right under the next key, which is thereby used. True where it is not yet decided."""
        key = self.key
        if key is None:
            return True
        due, self.key = tag_and_next(key, header)
        right = due == tag  # nothing secret to leak: the tag is public
        self._coverage.tags += 1
        return right or self._decide_later(seq, "its tag is wrong")

    def fit(self, bodies: Sequence[bytes]) -> bool:
        """Whether the tags of the next entries (stored) are all right; if so, their keys are used."""
        key = self.key
        if key is None:
            return True
        for body in bodies:
            due, key = tag_and_next(key, body[:HEADER_SIZE])
            if due != body[HEADER_SIZE:TAGGED]:
                return False
        self.key = key
        self._coverage.tags += len(bodies)
        return True

    def agent_fits(self, tag: bytes, seq: int, agent_id: str) -> bool:
        """Whether the agent's blinded name is right; True where there is no key or it is not yet decided."""
        if self.segment is None:
            return True
        right = agent_tag(self.segment.tag_key, seq, agent_id) == tag
        return right or self._decide_later(seq, "its agent tag is not that of the agent in its payload")

    def _decide_later(self, seq: int, reason: str) -> bool:
        if self._ratchet is not None:
            return False
        if len(self._wrong) < MAX_FINDINGS:
            self._wrong.append((seq, reason))
        return True

    def withheld(self, tag: bytes, seq: int) -> None:
        """A bare entry that bears this tag: it must not be one of the agents' that the case is of."""
        if self._bare is None:
            self._bare = seq
        if self.segment is None:
            return
        self._tried += 1
        tags = (agent_tag(self.segment.tag_key, seq, agent) for agent in self._agents)
        if tag in tags and len(self._left_out) < MAX_FINDINGS:
            self._left_out.append(seq)

    def skip(self, entries: int) -> None:
        """Pass over the keys of entries that are missing or condemned already."""
        if self.key is None or entries > SEGMENT_ENTRIES:
            self.key = None
            return
        for _ in range(entries):
            self.key = evolve(self.key)

    def end_segment(self, segment: int, seal: Seal | None) -> None:
        """Hold the keys against the seal's commitments. ``seal``: one whose signature is good, or None."""
        good = self._ratchet is not None and self.segment is not None
        if seal is not None and seal.mac_key is not None:
            good = self._hold(segment, seal) or good
        elif good:
            self._coverage.name(self._coverage.uncommitted, segment)
        elif self.segment is not None:
            self._coverage.name(self._coverage.unused_keys, segment)
        self._judge_withheld(segment, good=good)
        self._wrong.clear()
        self.segment = self.key = None

    def _judge_withheld(self, segment: int, *, good: bool) -> None:
        """``good``: the segment's tag key is known to be its own."""
        if not self._agents or self._bare is None:
            return
        if not good:
            reason = "its tag key is not here, so nothing shows that entries from here on are not of the case's agents"
            self._findings.add(Verdict.INCOMPLETE, segment, self._bare, reason)
        else:
            self._coverage.held_out += self._tried
        for seq in self._left_out if good else ():
            self._findings.add(Verdict.INCOMPLETE, segment, seq, "it is of an agent of the case, and was left out")

    def _hold(self, segment: int, seal: Seal) -> bool:
        """Whether disclosed keys are those of the seal."""
        given = self._evidence.disclosure
        disclosed = given.segments.get(segment) if given is not None and given.chain_id == seal.chain_id else None
        if self._ratchet is not None and self.segment is not None and not _committed(self.segment, seal):
            self._findings.add(Verdict.TAMPERED, segment, None, "the seal commits to other keys than the seed gives")
        if disclosed is None:
            return False
        if not _committed(disclosed, seal):
            self._findings.add(Verdict.TAMPERED, segment, None, "the disclosed keys are not those the seal commits to")
            return False
        self._coverage.disclosed += 1
        for seq, reason in self._wrong:
            self._findings.add(Verdict.TAMPERED, segment, seq, reason)
        return True


def _committed(keys: SegmentKeys, seal: Seal) -> bool:
    return mac_key_commit(keys.mac_key) == seal.mac_key and tag_key_commit(keys.tag_key) == seal.tag_key
