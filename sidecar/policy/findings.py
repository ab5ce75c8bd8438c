"""What a step of the gate found: where in the policy directory, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

MOST_FINDINGS: Final = 100  # of one step; a hostile policy could make any number
_MOST_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """``file`` is relative to the policy directory, "" for the whole of it; ``line`` counts from 1, 0 is no line."""

    file: str
    line: int
    message: str

    def to_json(self) -> dict[str, Any]:
        """As POLICY entries and ``--json`` have it."""
        return {"file": self.file, "line": self.line, "message": self.message}


class Refused(Exception):
    """A policy that may not be used: a source, the trust in it, or a step of the gate says so. Never leaves the room.

    ``revision`` is what was refused, where it is known.
    """

    def __init__(self, *findings: Finding, revision: str = "") -> None:
        super().__init__(findings[0].message)
        self.findings = findings
        self.revision = revision


def refused(message: str, file: str = "", line: int = 0) -> Refused:
    """A failure with one finding."""
    return Refused(Finding(file, line, message))


def bounded(findings: list[Finding]) -> tuple[Finding, ...]:
    """At most `MOST_FINDINGS`, in one printable line of bounded length each; what is left out is counted."""
    kept = [Finding(_plain(f.file), f.line, _plain(f.message)) for f in findings[:MOST_FINDINGS]]
    if left := len(findings) - len(kept):
        kept.append(Finding("", 0, f"and {left} more"))
    return tuple(kept)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_MOST_CHARACTERS]).strip()
