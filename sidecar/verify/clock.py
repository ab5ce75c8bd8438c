"""Clocks: boot time strictly rises within an epoch, wall time departs from it only on record (LEDGER.md rule 6)."""

from __future__ import annotations

from sidecar.chain.limits import CLOCK_STEP_NS
from sidecar.chain.seal import Span
from sidecar.verify.report import Findings, Verdict


class ClockRule:
    """Judges ``wall_ns`` and ``mono_ns`` entry by entry. ``base`` is the accepted difference of the two, ns."""

    __slots__ = ("_findings", "_late", "_new", "base", "mono", "wall")

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._new = False
        self._late: tuple[int, int] | None = None
        self.base: int | None = None
        self.mono = -1
        self.wall: int | None = None

    def begin_epoch(self) -> None:
        """The next entry is the first of another boot or process: its clocks start anew."""
        self.settle()
        self._new, self.base, self.mono = True, None, -1

    def resume(self, span: Span | None) -> None:
        """A segment file starts within or after an epoch whose last clocks known are these; the base is not known."""
        self._new, self.base = False, None
        if span is not None:
            self.wall, self.mono = span.wall_last, span.mono_last

    def entry(self, segment: int, seq: int, wall: int, mono: int, is_clock: bool) -> None:
        """The next entry in its place."""
        if self._late is not None:
            if is_clock:
                self._late = None
            self.settle()
        if mono <= self.mono:
            self._findings.add(Verdict.TAMPERED, segment, seq, "the boot-time clock did not rise")
        d = wall - mono
        if self._new:
            self._new, self.base = False, d
            if self.wall is not None and self.wall - wall > CLOCK_STEP_NS:
                self._late = (segment, seq)
        elif is_clock:
            self.base = d
        elif self.base is not None and abs(d - self.base) > CLOCK_STEP_NS:
            step = (d - self.base) / 1e9
            self._findings.add(
                Verdict.CLOCK, segment, seq, f"the wall clock stepped by {step:+.3f} s and no CLOCK entry says so"
            )
            self.base = d
        self.wall, self.mono = wall, mono

    def steady(self, mono: int, apart: tuple[int, int]) -> bool:
        """Whether nothing is to be said of the next entries, none of which is a CLOCK, nor first of an epoch.

        ``mono``: the first one's, from which on it rises; ``apart``: least and greatest difference of their clocks.
        """
        if self._new or self._late is not None or mono <= self.mono:
            return False
        return self.base is None or (self.base - CLOCK_STEP_NS <= apart[0] and apart[1] <= self.base + CLOCK_STEP_NS)

    def settle(self) -> None:
        """No CLOCK entry will follow an OPEN whose wall clock lies before the epoch before."""
        if self._late is not None:
            self._findings.add(
                Verdict.CLOCK, *self._late, "the epoch starts before the end of the last and no CLOCK entry says so"
            )
            self._late = None
