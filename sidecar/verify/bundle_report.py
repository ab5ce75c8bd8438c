"""What the judgement of an evidence bundle says (proto/EVIDENCE.md, "Verification")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.verify.case import Case
from sidecar.verify.report import MAX_FINDINGS, Finding, Verdict, bounded

Placed = tuple[bytes | None, Finding]
"""A finding and the chain that it is of; None: of the bundle."""


@dataclass(frozen=True, slots=True)
class BundleReport:
    """The judgement on a bundle. ``findings`` with the chain that each is of, None: of the bundle, in their order;
    ``findings_total`` counts also those not kept. ``chains``: verdict, entries, segments of each."""

    verdict: Verdict
    findings: tuple[tuple[bytes | None, Finding], ...]
    findings_total: int
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]
    notes: tuple[str, ...]
    chains: tuple[tuple[bytes, Verdict, int, int], ...]
    claim: str
    decisions: Mapping[str, int]
    case: Case | None

    @property
    def entries(self) -> int:
        """Entries of all chains."""
        return sum(each[2] for each in self.chains)

    @property
    def segments(self) -> int:
        """Segments of all chains."""
        return sum(each[3] for each in self.chains)

    def first_bad(self) -> tuple[bytes | None, Finding] | None:
        """The first finding, by chain and place, that is worse than UNANCHORED."""
        return next((each for each in self.findings if each[1].verdict > Verdict.UNANCHORED), None)

    def to_json(self) -> Mapping[str, Any]:
        """The report as a JSON object; member names are stable."""
        return {
            "verdict": self.verdict.name,
            "findings": [
                {**finding.to_json(), "chain": None if chain is None else chain.hex()}
                for chain, finding in self.findings
            ],
            "findings_total": self.findings_total,
            "checked": list(self.checked),
            "not_checked": list(self.not_checked),
            "entries": self.entries,
            "segments": self.segments,
            "chains": [
                {"chain": chain.hex(), "verdict": verdict.name, "entries": entries, "segments": segments}
                for chain, verdict, entries, segments in self.chains
            ],
            "claim": self.claim,
            "decisions": dict(self.decisions),
            "notes": list(self.notes),
        }


class Collected:
    """Findings of all chains as they come: the first ones are kept, all are counted; the worst of all and of each chain
    are remembered, and by place the first that is worse than UNANCHORED."""

    def __init__(self) -> None:
        self._kept: list[Placed] = []
        self._worst: Placed | None = None
        self._first: Placed | None = None
        self._of: dict[bytes | None, Verdict] = {}
        self.total = 0

    def say(self, chain: bytes | None, verdict: Verdict, reason: str) -> None:
        """A finding that is placed nowhere in its chain, or in the bundle."""
        self.total += 1
        self.add(chain, Finding(verdict, None, None, reason))

    def add(self, chain: bytes | None, finding: Finding) -> None:
        """One that is counted already."""
        placed = chain, finding
        if len(self._kept) < MAX_FINDINGS:
            self._kept.append(placed)
        if self._worst is None or finding.verdict > self._worst[1].verdict:
            self._worst = placed
        bad = finding.verdict > Verdict.UNANCHORED
        if bad and (self._first is None or in_order(placed) < in_order(self._first)):
            self._first = placed
        self._of[chain] = max(self.of(chain), finding.verdict)

    def worst(self) -> Verdict:
        """The worst verdict so far."""
        return Verdict.OK if self._worst is None else self._worst[1].verdict

    def of(self, chain: bytes | None) -> Verdict:
        """The worst verdict of a chain so far."""
        return self._of.get(chain, Verdict.OK)

    def in_order(self) -> tuple[Placed, ...]:
        """Those kept, the worst and the first bad one among them: by chain, segment, seq, what has none of these after;
        worst first."""
        return tuple(sorted(bounded(self._kept, self._worst, self._first), key=in_order))


def in_order(placed: tuple[bytes | None, Finding]) -> tuple[bool, bytes, bool, int, bool, int, int]:
    """The order of findings (proto/EVIDENCE.md, "Verification"): chain, segment, seq, none last, then the worst."""
    chain, finding = placed
    segment, seq = finding.segment, finding.seq
    return (
        chain is None, chain or b"", segment is None, segment or 0, seq is None, seq or 0, -finding.verdict
    )  # fmt: skip
