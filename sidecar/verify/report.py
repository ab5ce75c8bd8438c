"""What the judgement says: verdicts, findings at their place, what was checked, what was not, what one may claim."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

MAX_FINDINGS = 1_000
"""How many findings, and how many notes, a report keeps. More are counted: a hostile ledger cannot fill the memory."""

_RECENT = 32  # how far back the blame rule can name an entry that is already condemned


_Kept = TypeVar("_Kept")


class Verdict(enum.IntEnum):
    """The verdicts of proto/LEDGER.md, "Verification", worst last."""

    OK = 0
    REDACTED = 1
    PRUNED = 2
    UNANCHORED = 3
    INCOMPLETE = 4
    CLOCK = 5
    FORK = 6
    TAMPERED = 7
    MALFORMED = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. ``segment`` and ``seq`` are its place; a seal has no seq, the whole ledger has neither.
    ``accepted``: with the authority's consent."""

    verdict: Verdict
    segment: int | None
    seq: int | None
    reason: str
    accepted: bool = False

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {"verdict": self.verdict.name, "segment": self.segment, "seq": self.seq, "reason": self.reason}


def _in_order(finding: Finding) -> tuple[bool, int, bool, int, int]:
    segment, seq = finding.segment, finding.seq
    return (segment is None, segment or 0, seq is None, seq or 0, -finding.verdict)


class Findings:
    """Findings as they come: the first :data:`MAX_FINDINGS` are kept, all are counted; the worst is remembered, and by
    place the first that is worse than UNANCHORED."""

    __slots__ = ("_first", "_kept", "_recent", "_worst", "total")

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._recent: deque[tuple[int | None, int | None]] = deque(maxlen=_RECENT)
        self._worst: Finding | None = None
        self._first: Finding | None = None
        self.total = 0

    def add(
        self, verdict: Verdict, segment: int | None, seq: int | None, reason: str, *, accepted: bool = False
    ) -> None:
        """Record one finding."""
        finding = Finding(verdict, segment, seq, reason, accepted)
        self.total += 1
        if len(self._kept) < MAX_FINDINGS:
            self._kept.append(finding)
        if self._worst is None or verdict > self._worst.verdict:
            self._worst = finding
        if verdict > Verdict.UNANCHORED and (self._first is None or _in_order(finding) < _in_order(self._first)):
            self._first = finding
        if verdict >= Verdict.TAMPERED:
            self._recent.append((segment, seq))

    def condemned(self, segment: int | None, seq: int | None) -> bool:
        """Whether this place was found TAMPERED or MALFORMED among the latest findings."""
        return (segment, seq) in self._recent

    def worst(self) -> Verdict:
        """The worst verdict so far, OK if nothing was found."""
        return Verdict.OK if self._worst is None else self._worst.verdict

    def in_order(self) -> tuple[Finding, ...]:
        """The kept findings by place: segment, then seq; what has no seq after its segment's entries; worst first.

        The first bad one and the first of the worst verdict are among them, however many came before.
        """
        return tuple(sorted(bounded(self._kept, self._worst, self._first), key=_in_order))


def bounded(kept: Sequence[_Kept], *surely: _Kept | None) -> list[_Kept]:
    """At most :data:`MAX_FINDINGS` of those kept, ``surely`` these, whether they were kept or not."""
    first = list({id(each): each for each in surely if each is not None}.values())
    rest = [each for each in kept if all(each is not other for other in first)]
    return [*first, *rest[: MAX_FINDINGS - len(first)]]


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement on one stream. ``findings_total`` counts also those beyond the ones kept.

    ``decisions``: how many are ``non_repudiable`` (signed by a key that the trust file pins), ``signed`` (by one that
    the ledger's own registry names), ``authenticated_in_transit``, ``vouched`` (named by a gateway), ``unopened``
    (signed, but whether over this request only an opening of its personal fields tells), ``asserted``.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    findings_total: int
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]
    notes: tuple[str, ...]
    entries: int
    segments: int
    chain_id: bytes | None
    claim: str
    decisions: Mapping[str, int]

    def first_bad(self) -> Finding | None:
        """The first finding, by place, that is worse than UNANCHORED."""
        return next((f for f in self.findings if f.verdict > Verdict.UNANCHORED), None)

    def to_json(self) -> Mapping[str, Any]:
        """The report as a JSON object; member names are stable."""
        return {
            "verdict": self.verdict.name,
            "findings": [f.to_json() for f in self.findings],
            "findings_total": self.findings_total,
            "checked": list(self.checked),
            "not_checked": list(self.not_checked),
            "entries": self.entries,
            "segments": self.segments,
            "chain": None if self.chain_id is None else self.chain_id.hex(),
            "claim": self.claim,
            "decisions": dict(self.decisions),
            "notes": list(self.notes),
        }
