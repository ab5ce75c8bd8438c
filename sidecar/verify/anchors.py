"""What the fleet log says of a ledger: receipts of a pinned log against its seals, roll-calls against its end.

proto/LOG.md, "What a verifier draws from it". Nothing of a receipt is believed before its proof, its log's signature
and its quorum of witnesses were checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.chain import merkle
from sidecar.chain.consistency import Consistency
from sidecar.chain.epoch import EpochNote
from sidecar.chain.logged import Logged
from sidecar.chain.rollcall import RollCall, Standing
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import Malformed, ProofRejected, SignatureInvalid
from sidecar.verify.authority import Authority
from sidecar.verify.coverage import Coverage
from sidecar.verify.evidence import Evidence
from sidecar.verify.one_log import OneLog
from sidecar.verify.policy import Policy, Vouched
from sidecar.verify.receipts import Decided
from sidecar.verify.report import Findings, Verdict
from sidecar.verify.stamps import judge_stamps, spelt

_NOTHING = (
    "no receipt of a pinned log: whoever has the disk and the identity key can have made it all anew, or cut its end"
)


@dataclass(frozen=True, slots=True)
class _Receipt:
    """One receipt that counts."""

    number: int
    logged: Logged


class Anchors:
    """All receipts given, and how far the ledger is anchored by them."""

    def __init__(self, evidence: Evidence, findings: Findings, coverage: Coverage, authority: Authority) -> None:
        self._findings, self._coverage, self._evidence = findings, coverage, evidence
        self._authority = authority
        self._excused: set[int] = set()
        self._seals: dict[int, list[_Receipt]] = {}
        self._epochs: dict[int, list[_Receipt]] = {}
        self._rolls: list[tuple[int, RollCall, Standing]] = []
        self._resting: dict[str, Vouched] = {}
        self._judged: dict[bytes, Vouched] = {}
        self._anchored: int | None = None
        self._complete: int | None = None  # the time of the roll-call that names the end
        self._last: tuple[int, bytes, int] | None = None  # last sealed segment, its seal's hash, the seq after it
        self.last_sealed = -1
        """The segment of the last well-signed seal, context included; -1: there is none."""
        self.sealed_at: int | None = None
        """The time of that seal, ns since 1970."""
        policy = None if evidence.trust is None else evidence.trust.policy
        if policy is None:
            if evidence.logged:
                coverage.leave(f"receipts of logs ({len(evidence.logged):,}): no log is pinned, so they prove nothing")
            return
        log = OneLog(policy, findings, coverage)
        for number, data in enumerate(evidence.logged, 1):
            self._take(number, data, policy, log)
        log.join(self._files())
        log.finish()
        judge_stamps(evidence.timestamps, evidence.check_timestamp, self._resting, findings, coverage)

    # --- which receipts count

    def _take(self, number: int, data: bytes, policy: Policy, log: OneLog) -> None:
        try:
            proof = TlogProof.parse(data)
            logged = Logged.parse(proof.extra or b"")
        except Malformed as error:
            self._findings.add(Verdict.MALFORMED, None, None, f"receipt {number} of the log: {error}")
            return
        try:
            vouched = self._judged.get(proof.checkpoint) or policy.judge(proof.checkpoint)
            self._judged[proof.checkpoint] = vouched
            proof.verify(merkle.leaf_hash(logged.text.encode()), vouched.checkpoint)
            if isinstance(logged.entry, RollCall) and logged.answer is not None:
                if logged.entry.log != vouched.checkpoint.origin:
                    raise ProofRejected("the roll-call names another log than the one that holds it")
                logged.answer.verify(logged.entry)
        except (Malformed, SignatureInvalid, ProofRejected) as error:
            self._findings.add(Verdict.TAMPERED, _segment(logged), None, f"receipt {number} of the log: {error}")
            return
        if not vouched.enough:
            reason = f"receipt {number} of the log: its checkpoint is not cosigned by the quorum of witnesses"
            self._findings.add(Verdict.UNANCHORED, _segment(logged), None, reason)
            return
        log.rest_on(vouched)
        self._resting[vouched.checkpoint.text()] = vouched
        self._place(_Receipt(number, logged))

    def _place(self, receipt: _Receipt) -> None:
        entry, answer = receipt.logged.entry, receipt.logged.answer
        if isinstance(entry, Seal):
            self._seals.setdefault(entry.segment, []).append(receipt)
        elif isinstance(entry, EpochNote):
            self._epochs.setdefault(entry.epoch, []).append(receipt)
        elif answer is not None:
            self._rolls.append((receipt.number, entry, answer.standing))

    def _files(self) -> list[tuple[int, Consistency]]:
        files = []
        for number, data in enumerate(self._evidence.consistency, 1):
            try:
                files.append((number, Consistency.parse(data)))
            except Malformed as error:
                self._findings.add(Verdict.MALFORMED, None, None, f"consistency file {number}: {error}")
        return files

    # --- against the ledger

    def belong(self, chain_id: bytes) -> None:
        """The chain is known: set aside what is of another."""
        for kept in (self._seals, self._epochs):
            for place, receipts in kept.items():
                for each in receipts:
                    if each.logged.chain_id != chain_id:
                        self._foreign(each.number, _segment(each.logged))
                kept[place] = [each for each in receipts if each.logged.chain_id == chain_id]
        for number, _, standing in self._rolls:
            if standing.chain_id != chain_id:
                self._foreign(number, None)
        self._rolls = [each for each in self._rolls if each[2].chain_id == chain_id]

    def _foreign(self, number: int, segment: int | None) -> None:
        self._findings.add(Verdict.TAMPERED, segment, None, f"receipt {number} of the log: it is of another chain")

    def epoch(self, epoch: int, segment: int, text: str) -> None:
        """A well-signed epoch note of the ledger."""
        for each in self._epochs.pop(epoch, ()):
            self._compare(each, segment, text)

    def before(self, seal: Seal) -> None:
        """A seal of the context, which holds."""
        self.last_sealed, self.sealed_at = seal.segment, seal.time

    def sealed(self, segment: int, text: str, following: int, time: int) -> None:
        """A well-signed seal of the ledger; ``following`` is the seq after its segment, ``time`` its own."""
        found = seal_hash(text)
        self.last_sealed, self.sealed_at = segment, time
        self._last = segment, found, following
        for each in self._seals.pop(segment, ()):
            if self._compare(each, segment, text):
                self._anchored = segment
        for number, call, standing in self._rolls:
            if standing.sealed == segment:
                if standing.seal == found:
                    self._anchored = segment
                elif not self._roll_lost(number, call, standing):
                    reason = f"receipt {number} of the log: the roll-call names another seal"
                    self._findings.add(Verdict.TAMPERED, segment, None, reason)

    def _compare(self, receipt: _Receipt, segment: int, text: str) -> bool:
        self._coverage.logged += 1
        if receipt.logged.text == text:
            return True
        if self._was_lost(receipt):
            return False
        reason = f"receipt {receipt.number} of the log: the log was shown another text for this place"
        self._findings.add(Verdict.TAMPERED, segment, None, reason)
        return False

    def end_segment(self, segment: int, first: int, entries: Sequence[tuple[bytes, int, Decided | None]]) -> None:
        """The entries from ``first`` on, each with its leaf first, are those of the segment, or its last ones."""
        for number, call, standing in self._rolls:
            at = -1 if standing.seq is None else standing.seq - first
            if 0 <= at < len(entries) and entries[at][0] != standing.leaf:
                if self._roll_lost(number, call, standing):
                    continue
                reason = f"receipt {number} of the log: the roll-call names another entry"
                self._findings.add(Verdict.TAMPERED, segment, standing.seq, reason)

    # --- the end

    def shown(self, following: int) -> int | None:
        """When a roll-call that counts named the last seal as the last, with nothing after ``following``; ns."""
        named = (None if self._last is None else self._last[0], None if self._last is None else self._last[1])
        calls = [c.time for _, c, s in self._rolls if (s.sealed, s.seal) == named and (s.seq or -1) < following]
        return max(calls, default=None) if self._last is not None else None

    def finish(self, *, to_end: bool, broken: bool, following: int, first: int) -> None:
        """The stream is at its end; ``following`` is the seq after its last entry, ``first`` its first segment.
        ``to_end``: it claims to reach the end of its chain."""
        outside = 0
        for kept in (self._seals, self._epochs):
            for place, receipts in list(kept.items()):
                read = [each for each in receipts if to_end and not broken and (_segment(each.logged) or 0) >= first]
                outside += len(receipts) - len(read)
                kept[place] = read
        if outside:
            self._coverage.leave(f"receipts of the log whose places were not read: {outside:,}")
        if to_end and not broken:
            self._beyond(following)
        self._judge_end(whole=to_end, following=following)
        self._coverage.anchored = self._anchored
        self._coverage.complete = None if self._complete is None else spelt(self._complete // 10**9)

    def _beyond(self, following: int) -> None:
        """What the log holds of this chain and the ledger does not."""
        last = self.last_sealed
        for segment, receipts in sorted(self._seals.items()):
            for each in receipts:
                if not self._was_lost(each):
                    self._lost(each.number, segment, None, f"the ledger has no such seal of segment {segment}")
        for epoch, receipts in sorted(self._epochs.items()):
            for each in receipts:
                if not self._was_lost(each):
                    self._lost(each.number, _segment(each.logged), None, f"the ledger does not reach its epoch {epoch}")
        for number, call, standing in self._rolls:
            said = f"at {spelt(call.time // 10**9)}"
            if self._roll_lost(number, call, standing):
                continue
            if standing.sealed is not None and standing.sealed > last:
                self._lost(number, standing.sealed, None, f"{said} segment {standing.sealed} was sealed")
            if standing.seq is not None and standing.seq >= following:
                self._lost(number, None, standing.seq, f"{said} the chain had entry {standing.seq}")

    def _was_lost(self, receipt: _Receipt) -> bool:
        """Whether a receipt may be of what was lost with the authority's consent; that is said, and no finding."""
        segment = _segment(receipt.logged)
        return segment is not None and self._authority.lost(segment) and self._leave_lost(receipt.number)

    def _roll_lost(self, number: int, call: RollCall, standing: Standing) -> bool:
        return self._authority.lost_at(call.time, standing) and self._leave_lost(number)

    def _leave_lost(self, number: int) -> bool:
        if number not in self._excused:
            self._excused.add(number)
            said = "it may be of what was lost with the authority's consent"
            self._coverage.leave(f"receipt {number} of the log: {said}")
        return True

    def _lost(self, number: int, segment: int | None, seq: int | None, reason: str) -> None:
        self._findings.add(Verdict.INCOMPLETE, segment, seq, f"receipt {number} of the log: {reason}")

    def _judge_end(self, *, whole: bool, following: int) -> None:
        if self._anchored is None or self._last is None:
            self._findings.add(Verdict.UNANCHORED, None, None, _NOTHING)
            return
        last, found, after = self._last
        if self._anchored < last or following > after:
            reason = "no receipt of the log covers what follows here"
            self._findings.add(Verdict.UNANCHORED, self._anchored + 1, None, reason)
        elif whole:
            calls = [call.time for _, call, s in self._rolls if (s.sealed, s.seal) == (last, found)]
            self._complete = max(calls, default=None)
            if self._complete is None:
                reason = f"no roll-call names segment {last} as the last: what follows may have been cut off"
                self._findings.add(Verdict.UNANCHORED, None, None, reason)


def _segment(logged: Logged) -> int | None:
    return None if isinstance(logged.entry, RollCall) else logged.entry.segment
