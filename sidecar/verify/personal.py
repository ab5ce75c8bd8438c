"""Sealed personal fields across entries: which were opened, which were erased by the authority, which are merely not
there (proto/LEDGER.md rule 13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.chain import acts, authority_note
from sidecar.chain.retention import NEVER_ERASED
from sidecar.errors import Malformed, SignatureInvalid
from sidecar.verify.coverage import Coverage
from sidecar.verify.openings import ChainOpenings, Openings
from sidecar.verify.report import Findings, Verdict

REMEMBERED: Final = 100_000
"""Subjects without opening that are remembered; entries of further ones are found INCOMPLETE at once."""

_MISSING: Final = "a personal field of subject {} has no opening, and no authority had it erased"


class PersonalFields:
    """Told of each entry with sealed fields, and of each TOMBSTONE."""

    def __init__(self, openings: Openings | None, findings: Findings, coverage: Coverage) -> None:
        self._all, self._findings, self._coverage = openings, findings, coverage
        self.given = ChainOpenings()
        self._unused = 0
        self._missing: dict[str, tuple[int, int]] = {}
        self._erased: set[str] = set()
        self._authority: bytes | None = None
        self._chain_id = b""
        self._retained = False

    def belong(self, chain_id: bytes) -> None:
        """The chain is known: its openings are at hand."""
        self._chain_id = chain_id
        if self._all is not None:
            self.given = self._all.chains.get(chain_id, ChainOpenings())
        self._unused = len(self.given.entries)

    def genesis(self, value: Mapping[str, Any]) -> None:
        """A GENESIS payload in order."""
        self._authority = None if value["authority"] is None else bytes.fromhex(value["authority"])
        self._retained = value["retention"] in NEVER_ERASED

    def entry(self, value: Mapping[str, Any], count: int, segment: int, seq: int) -> None:
        """One entry that may have sealed fields, ``count`` of them, its payload in order."""
        if seq in self.given.entries:
            self._unused -= 1
            self._coverage.opened += count
            if not count:
                self._findings.add(
                    Verdict.TAMPERED, segment, seq, "an opening is given for it, and it has no sealed field"
                )
        elif count:
            self._coverage.sealed += count
            self._coverage.sealed_entries += 1
            if self.given.complete:
                self._miss(value["sealed"]["subject"], segment, seq)

    def _miss(self, subject: str, segment: int, seq: int) -> None:
        if subject in self._missing or subject in self._erased:
            return
        if len(self._missing) < REMEMBERED:
            self._missing[subject] = segment, seq
        else:
            self._findings.add(Verdict.INCOMPLETE, segment, seq, _MISSING.format(subject))

    def tombstone(self, value: Mapping[str, Any], segment: int, seq: int) -> None:
        """A TOMBSTONE, its payload in order."""
        record = authority_note.join(value["note"].encode(), value["body"].encode())
        try:
            act = authority_note.read(record).act
        except Malformed as error:
            self._findings.add(Verdict.MALFORMED, segment, seq, str(error))
            return
        if not isinstance(act, acts.Erase) or act.subject.hex() != value["subject"]:
            self._findings.add(Verdict.INCOMPLETE, segment, seq, "its authority note allows something else")
        elif not self._signed(record):
            reason = "its authority note is not signed by the authority that GENESIS names, for this chain"
            self._findings.add(Verdict.INCOMPLETE, segment, seq, reason)
        else:
            self.erase(act, segment, seq)

    def _signed(self, record: bytes) -> bool:
        if self._authority is None:
            return False
        try:
            authority_note.verify(record, self._chain_id, self._authority)
        except (Malformed, SignatureInvalid):
            return False
        return True

    def erase(self, act: acts.Erase, segment: int | None, seq: int | None) -> None:
        """The authority signed this, as a TOMBSTONE there says, or a note of the stream."""
        subject = act.subject.hex()
        if self._retained:
            reason = f"subject {subject} was erased, which the retention profile of the chain does not let happen"
            self._findings.add(Verdict.INCOMPLETE, segment, seq, reason)
            return
        self._erased.add(subject)
        self._findings.add(Verdict.REDACTED, segment, seq, f"the authority had subject {subject} erased: {act.reason}")

    def finish(self) -> None:
        """The stream has ended."""
        for subject, (segment, seq) in self._missing.items():
            if subject not in self._erased:
                self._findings.add(Verdict.INCOMPLETE, segment, seq, _MISSING.format(subject))
        if self._unused:
            self._coverage.leave(f"openings whose entries, or the payloads of them, were not read: {self._unused:,}")
