"""What the authority allowed: payloads that were pruned, a loss that was accepted (LEDGER.md rule 13).

Notes come before the key that signs them, which GENESIS names, so they wait for it. What an entry without payload rests
on is known only at the seal that its note names; until then it is held as one of a group, never each by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain import authority_note
from sidecar.chain.acts import AcceptLoss, Erase, Prune, Run
from sidecar.chain.authority_note import Grant
from sidecar.chain.entry import EntryType
from sidecar.chain.epoch import EpochNote
from sidecar.chain.printable import number_of
from sidecar.chain.pruning import PRUNABLE
from sidecar.chain.retention import least_ns
from sidecar.chain.rollcall import Standing
from sidecar.chain.seal import Seal, seal_hash
from sidecar.errors import Malformed, SignatureInvalid
from sidecar.verify.coverage import Coverage
from sidecar.verify.personal import PersonalFields
from sidecar.verify.report import Findings, Verdict
from sidecar.verify.stamps import spelt

MAX_NOTES: Final = 4_096
MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True)
class _Group:
    """Entries without payload that the same runs cover."""

    first: tuple[int, int]
    last_segment: int
    entries: int = 0


class Authority:
    """The authority notes of a stream, and what they are needed for."""

    def __init__(self, findings: Findings, coverage: Coverage, personal: PersonalFields) -> None:
        self._findings, self._coverage, self._personal = findings, coverage, personal
        self._waiting: list[bytes] = []
        self._key: tuple[bytes, bytes | None] | None = None  # chain id and the authority's key, once they are known
        self._count = self._bytes = 0
        self._last = b""
        self._over = False
        self._runs: list[tuple[Run, Grant]] = []
        self._confirmed: dict[int, bool] = {}  # by index of the run: whether the seal that it names is the ledger's
        self._early: set[int] = set()  # runs that were allowed before the chain's retention profile does
        self._least: int | None = 0
        self._groups: dict[tuple[int, ...], _Group] = {}
        self._grants: dict[bytes, Grant] = {}
        self.losses: list[tuple[AcceptLoss, int]] = []
        """What was lost with the authority's consent, and when it signed that, ns."""

    # --- the notes

    def feed(self, record: bytes) -> None:
        """One authority record.

        Raises:
            Malformed: out of its place or order, or one too many.
        """
        named = hashlib.sha256(record).digest()
        self._count, self._bytes = self._count + 1, self._bytes + len(record)
        if self._over or named <= self._last:
            raise Malformed("an authority note that stands where it must not, or not in its order")
        if self._count > MAX_NOTES or self._bytes > MAX_BYTES:
            raise Malformed("an authority note too many")
        self._last = named
        self._waiting.append(record)
        self._settle()

    def end(self) -> None:
        """Another record than context, attachments and authority notes was read."""
        self._over = True

    def known(self, chain_id: bytes, key: bytes | None, profile: str) -> None:
        """GENESIS was read: the chain, its authority's key, if it has one, and its retention profile."""
        self._key, self._least = (chain_id, key), least_ns(profile)
        self._settle()

    def _settle(self) -> None:
        if self._key is None:
            return
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            self._take(record, *self._key)

    def _take(self, record: bytes, chain_id: bytes, key: bytes | None) -> None:
        try:
            read = authority_note.read(record)
            if key is None or read.note.chain_id != chain_id:
                why = "GENESIS names no authority" if key is None else "it is of another chain"
                self._say(Verdict.INCOMPLETE, f"an authority note counts for nothing: {why}")
                return
            grant = authority_note.verify(record, chain_id, key)
        except SignatureInvalid:
            reason = "an authority note counts for nothing: the authority that GENESIS names did not sign it"
            self._say(Verdict.INCOMPLETE, reason)
        except Malformed as error:
            self._say(Verdict.MALFORMED, str(error))
        else:
            self._count_on(grant)

    def _count_on(self, grant: Grant) -> None:
        self._grants[grant.hash] = grant
        self._coverage.grants += 1
        if grant.act is None:
            self._coverage.leave(f"an authority note {grant.note.act}: this version knows no such act")
        elif isinstance(grant.act, Prune):
            self._runs += [(run, grant) for run in grant.act.runs]
        elif isinstance(grant.act, Erase):
            self._personal.erase(grant.act, None, None)
        elif isinstance(grant.act, AcceptLoss):
            self.losses.append((grant.act, grant.note.time))

    # --- pruning

    def covers(self, kind: EntryType, segment: int) -> bool:
        """Whether a note allows that an entry of this type and segment comes without its payload."""
        return kind in PRUNABLE and bool(self._covering(segment))

    def _covering(self, segment: int) -> tuple[int, ...]:
        return tuple(i for i, (run, _) in enumerate(self._runs) if run.first <= segment <= run.last)

    def bare(self, kind: EntryType, segment: int, seq: int) -> None:
        """An entry whose payload is not here."""
        covering = self._covering(segment)
        if kind not in PRUNABLE:
            reason = f"its payload is not here, and that of a {kind.name} must stay"
            self._findings.add(Verdict.INCOMPLETE, segment, seq, reason)
        elif not covering:
            self._findings.add(
                Verdict.INCOMPLETE, segment, seq, "its payload is not here, and no authority allowed that"
            )
        else:
            group = self._groups.setdefault(covering, _Group((segment, seq), segment))
            group.last_segment, group.entries = segment, group.entries + 1

    def sealed(self, seal: Seal) -> None:
        """A well-signed seal of the ledger."""
        for i, (run, grant) in enumerate(self._runs):
            if run.last == seal.segment:
                self._confirmed[i] = run.seal == seal_hash(seal.text())
                if self._least is not None and grant.note.time < seal.time + self._least:
                    self._early.add(i)

    def finish(self, *, anchored: int | None, pinned: bool) -> None:
        """The stream is at its end. ``anchored``: the last segment that receipts of the ``pinned`` log cover."""
        if self._waiting:
            self._coverage.leave("authority notes: GENESIS, which names the key, was not found")
        for covering, group in self._groups.items():
            fault = self._fault(covering, group, anchored, pinned)
            if fault is not None:
                self._findings.add(Verdict.INCOMPLETE, *group.first, fault)
                continue
            _, grant = self._runs[next((i for i in covering if self._confirmed.get(i)), covering[0])]
            when, why = spelt(grant.note.time // 10**9), grant.act.reason if isinstance(grant.act, Prune) else ""
            last = f"up to segment {group.last_segment}"
            what = number_of(group.entries, f"payload {last} was pruned", f"payloads {last} were pruned")
            self._findings.add(Verdict.PRUNED, *group.first, f"{what}; the authority allowed it at {when}: {why}")

    def _fault(self, covering: tuple[int, ...], group: _Group, anchored: int | None, pinned: bool) -> str | None:
        known = [self._confirmed[i] for i in covering if i in self._confirmed]
        if known and not any(known) and len(known) == len(covering):
            return "payloads are not here, and the authority's note for it names the seal of another history"
        if self._early.issuperset(covering):
            return "payloads were pruned before the retention profile of the chain allows it"
        if self._least is None:
            self._coverage.leave("how long payloads had to stay: the retention profile is not known here")
        if not any(known):
            self._coverage.leave(f"that the note by which segment {group.first[0]} was pruned is of this history")
        if not pinned:
            self._coverage.leave("that what was pruned was receipted before: no log is pinned")
        elif anchored is None or anchored < group.last_segment:
            return "payloads were pruned of segments that no receipt of the pinned log covers"
        return None

    # --- loss

    def opened(self, value: Mapping[str, Any], segment: int, seq: int, start: EpochNote | None) -> None:
        """An OPEN entry, and the epoch note before it if that is known."""
        named = value.get("accepted_loss")
        if named is None:
            return
        grant = self._grants.get(bytes.fromhex(named))
        act = None if grant is None else grant.act
        if not isinstance(act, AcceptLoss):
            self._findings.add(
                Verdict.INCOMPLETE, segment, seq, "the note that accepts a loss, which it names, is not here"
            )
            return
        place = segment if start is None else start.segment
        at = seq if start is None else start.seq
        if start is not None and not _goes_on(act, start):
            self._findings.add(Verdict.TAMPERED, segment, seq, "the loss that it names was accepted for another place")
            return
        until = f"entries up to {act.lost.seq - 1}" if act.lost.seq > act.kept.seq else "seals"
        reason = f"{until} that the collector had acknowledged were lost before this, which the authority accepted"
        reason = f"{reason}: {act.reason}"
        self._findings.add(Verdict.INCOMPLETE, place, at, reason, accepted=True)

    def lost(self, segment: int) -> bool:
        """Whether another history of this segment may be one that was lost."""
        return any(act.kept.segment <= segment <= act.lost.segment for act, _ in self.losses)

    def lost_at(self, call: int, standing: Standing) -> bool:
        """Whether a roll-call of the time ``call``, ns, may tell of what was lost."""
        sealed, seq = standing.sealed, standing.seq
        return any(
            call <= time
            and (
                (sealed is not None and act.kept.segment <= sealed <= act.lost.segment)
                or (seq is not None and act.kept.seq <= seq < act.lost.seq)
            )
            for act, time in self.losses
        )

    def _say(self, verdict: Verdict, reason: str) -> None:
        self._findings.add(verdict, None, None, reason)


def _goes_on(act: AcceptLoss, start: EpochNote) -> bool:
    recovered = start.recovered is not None
    return (start.seq, start.leaf, start.segment) == (act.kept.seq, act.kept.leaf, act.kept.segment + recovered)
