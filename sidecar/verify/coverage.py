"""What the judgement looked at and what it could not look at, in words a person reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.chain.printable import number_of
from sidecar.verify.evidence import Evidence
from sidecar.verify.report import MAX_FINDINGS, Verdict

_SHOWN = 20  # segments listed by number


@dataclass(slots=True)
class Coverage:
    """Counts kept while reading. ``tags`` counts every tag tried, under confirmed keys or not."""

    entries: int = 0
    segments: int = 0
    tags: int = 0
    seeds: int = 0
    disclosed: int = 0
    notes_signed: int = 0
    receipts: int = 0
    logged: int = 0
    anchored: int | None = None  # the last segment whose seal a pinned log holds
    complete: str | None = None  # when a roll-call of that log named the ledger's end
    asserted: int = 0
    bare: int = 0  # entries whose payload is not here
    tagless: int = 0  # of these, such as bear no agent's tag
    held_out: int = 0  # bare entries held against the agents of the case
    permits: int = 0
    opened: int = 0  # personal fields
    sealed: int = 0
    sealed_entries: int = 0
    grants: int = 0
    outcomes: int = 0
    whole: bool = True  # from the chain's start on
    single: bool = False  # one segment's file
    unvouched: bool = False  # the segment's signing key is named by the file's own context alone
    broken: bool = False
    epochs: int = 0
    last_seq: int | None = None
    uncommitted: list[int] = field(default_factory=list)
    unused_keys: list[int] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something the reader should know that is no finding."""
        if len(self.notes) < MAX_FINDINGS:
            self.notes.append(text)

    def leave(self, text: str) -> None:
        """Something that could not be checked."""
        if len(self.unchecked) < MAX_FINDINGS:
            self.unchecked.append(text)

    def name(self, segments: list[int], segment: int) -> None:
        """Add to one of the lists of segments, which stay short enough to be read."""
        if len(segments) <= _SHOWN:
            segments.append(segment)

    def checked(self, evidence: Evidence) -> tuple[str, ...]:
        """Plain lines: what was checked."""
        if not self.entries:
            return ()
        lines = [
            f"structure, order, links and payload commitments of {number_of(self.entries, 'entry', 'entries')}",
            f"signatures of {number_of(self.notes_signed, 'epoch note, head or seal', 'epoch notes, heads and seals')}"
            + (", the segment's by a key that only its context names" if self.unvouched else ""),
            "boot-time and wall clocks of the entries against each other",
        ]
        if self.seeds:
            tags, epochs = number_of(self.tags, "entry", "entries"), number_of(self.seeds, "epoch")
            lines.append(f"HMAC tags of {tags} and agent tags (custodian's key, {epochs})")
        elif self.disclosed:
            lines.append(f"HMAC tags of the entries of {number_of(self.disclosed, 'segment')} (disclosed keys)")
        if self.outcomes:
            lines.append(f"outcomes against their decisions: {self.outcomes}")
        if self.held_out:
            lines.append(
                f"withheld entries for the tag of an agent of the case, which none may bear: {self.held_out:,}"
            )
        if self.permits:
            permits = number_of(self.permits, "outcome")
            lines.append(f"permits of {permits} against the identity key and what the outcomes say")
        if self.opened:
            opened = number_of(self.opened, "sealed personal field")
            lines.append(f"openings of {opened}, and what their entries say with them")
        if self.grants:
            lines.append(f"authority notes by the key that GENESIS names: {self.grants}")
        if self.receipts:
            lines.append(f"receipts against their entries: {self.receipts}")
        if evidence.trust is not None:
            lines.append("chain and identity key against the trust file")
        if self.anchored is not None:
            lines.append(f"receipts of the pinned log, up to segment {self.anchored}")
        if self.complete is not None:
            lines.append(f"that nothing was missing at the end at {self.complete}: a roll-call of the pinned log")
        return tuple(lines)

    def not_checked(self, evidence: Evidence) -> tuple[str, ...]:
        """Plain lines: what was not checked, and why."""
        bare = [f"payloads that are not here: {self.bare:,}"] if self.bare else []
        return (*bare, *self._keys(evidence), *self._outside(evidence), *self.unchecked)

    def _keys(self, evidence: Evidence) -> list[str]:
        lines = []
        if evidence.open_seed is None and evidence.disclosure is None:
            lines.append("HMAC tags and agent tags: no key was given")
        elif self.tags < self.entries or (not self.seeds and self.disclosed < self.segments):
            lines.append("HMAC tags of the entries whose keys were not given or could not be opened")
        if self.unused_keys:
            lines.append(f"tags under the disclosed keys of {_list(self.unused_keys)}: no seal commits to these keys")
        if self.uncommitted:
            lines.append(f"keys of {_list(self.uncommitted)} against a commitment: open, or ended by a crash")
        return lines

    def _outside(self, evidence: Evidence) -> list[str]:
        lines = []
        if self.anchored is None:
            lines.append("that nobody rewrote the whole ledger: no receipt of a pinned log")
        if self.complete is None and self.whole:
            lines.append(
                f"that nothing after {_end(self.last_seq)} was cut off: only a later receipt or a log can tell"
            )
        elif self.complete is not None:
            lines.append(
                f"that nothing was added after {self.complete} and cut off since: only a later roll-call can tell"
            )
        if self.sealed:
            fields = number_of(self.sealed, "sealed personal field")
            lines.append(
                f"{fields} of {number_of(self.sealed_entries, 'entry', 'entries')}, and the digests, statements and "
                "permits that need their values: there is no opening"
            )
        if self.asserted:
            lines.append(f"whether asserted agent names are true ({number_of(self.asserted, 'decision')})")
        if evidence.trust is None:
            lines.append("that this is the chain you expect: no trust file was given")
        if not evidence.receipts:
            lines.append("that callers were told what is recorded: no receipt was given")
        if self.broken:
            lines.append("whatever follows the place where the stream could no longer be read")
        return lines


def _end(seq: int | None) -> str:
    return "the start" if seq is None else f"entry {seq}"


def _list(segments: list[int]) -> str:
    shown = ", ".join(str(s) for s in segments[:_SHOWN])
    more = " and more" if len(segments) > _SHOWN else ""
    return f"segment{'s' if len(segments) > 1 else ''} {shown}{more}"


def claim(verdict: Verdict, coverage: Coverage) -> str:
    """What one may claim on the strength of the report."""
    if verdict > Verdict.UNANCHORED:
        return f"Nothing beyond the findings: the ledger is {verdict.name}."
    signed = (
        "The bytes are whole and match a key that only the file itself names: by that alone anybody may have made it"
        if coverage.unvouched
        else "The bytes match the signatures of the key GENESIS names, and nothing is missing between first and last"
    )
    tagged = ""
    if coverage.unvouched and (coverage.seeds or coverage.disclosed):
        tagged = (
            "; the HMAC tags checked were made by the sidecar or by somebody who has the keys they were checked with"
        )
    elif coverage.seeds or coverage.disclosed:
        tagged = "; the HMAC tags checked were made with the sidecar's own keys"
    keyless = "" if tagged else "; without a key nothing is said of the tags"
    gone = f"; nothing is said of what is not here ({number_of(coverage.bare, 'payload')})" if coverage.bare else ""
    told = "; the receipts compared agree with what is recorded" if coverage.receipts else ""
    return f"{signed}{gone}{tagged}{keyless}{told}. {_since(coverage)}"


def _since(coverage: Coverage) -> str:
    """What the log adds to the claim, and what it does not."""
    if coverage.anchored is None:
        return "It does not show that the ledger was never made anew or cut at its end."
    kept = f"Nobody rewrote anything up to segment {coverage.anchored} since the pinned log took its seal"
    if coverage.complete is not None:
        return f"{kept}, and at {coverage.complete} nothing was missing at its end."
    return f"{kept}. It does not show that the ledger was never cut at its end." if coverage.whole else f"{kept}."
