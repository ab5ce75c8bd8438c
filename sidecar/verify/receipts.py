"""Receipts in callers' hands: signed heads, held against the entries they name (LEDGER.md rule 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.chain import lines, note
from sidecar.chain.head import Head
from sidecar.chain.request import recorded
from sidecar.errors import Malformed, SignatureInvalid
from sidecar.verify.authority import Authority
from sidecar.verify.coverage import Coverage
from sidecar.verify.report import Findings, Verdict

Decided = tuple[str, str, str]
"""A decision's id, effect and request digest (hex), as its payload gives them."""

WITHHELD: Decided = ("", "", "")
"""Stands for what an entry decided whose payload is not here."""


@dataclass(frozen=True, slots=True)
class _Receipt:
    number: int
    data: bytes
    head: Head

    @property
    def place(self) -> tuple[int, int]:
        return self.head.segment, self.head.seq


def _read(data: bytes) -> Head:
    """A head with one signature line, by what its text says the name of its segment's key. Raises `Malformed`."""
    parsed = note.parse(data)
    head = Head.parse(parsed.text)
    due = lines.segment_name(head.chain_id, head.segment), 64
    if [(each.name, len(each.signature)) for each in parsed.signatures] != [due]:
        raise Malformed("it is not signed under the name of its segment's key, and by that alone")
    return head


class Receipts:
    """All receipts given. ``due`` holds those of the segment being read, by seq; their signatures are not checked."""

    __slots__ = ("_authority", "_coverage", "_epoch", "_findings", "_key", "_waiting", "due")

    def __init__(self, given: Sequence[bytes], findings: Findings, coverage: Coverage, authority: Authority) -> None:
        self._findings, self._coverage, self._authority = findings, coverage, authority
        self._waiting: dict[int, list[_Receipt]] = {}
        self._epoch = 0
        self._key: bytes | None = None
        self.due: dict[int, list[_Receipt]] = {}
        for number, data in enumerate(given, 1):
            try:
                receipt = _Receipt(number, data, _read(data))
            except Malformed as error:
                findings.add(Verdict.MALFORMED, None, None, f"receipt {number}: {error}")
                continue
            self._waiting.setdefault(receipt.head.segment, []).append(receipt)

    def _say(self, verdict: Verdict, receipt: _Receipt, reason: str) -> None:
        self._findings.add(verdict, *receipt.place, f"receipt {receipt.number}: {reason}")

    def belong(self, chain_id: bytes) -> None:
        """The chain is known: set aside what is of another."""
        for segment, receipts in list(self._waiting.items()):
            for receipt in receipts:
                if receipt.head.chain_id != chain_id:
                    self._say(Verdict.TAMPERED, receipt, "it is of another chain")
            self._waiting[segment] = [r for r in receipts if r.head.chain_id == chain_id]

    def begin_segment(self, segment: int, epoch: int, key: bytes | None) -> None:
        """Receipts of this segment are due; ``key`` None: it is not known."""
        self._epoch, self._key = epoch, key
        for receipt in self._waiting.pop(segment, ()):
            self.due.setdefault(receipt.head.seq, []).append(receipt)

    def drop_segment(self) -> None:
        """The segment that was begun is not in the ledger: nothing of it is there."""
        for receipts in self.due.values():
            for receipt in receipts:
                self._waiting.setdefault(receipt.head.segment, []).append(receipt)
        self.due.clear()

    def _counts(self, receipt: _Receipt) -> bool:
        """Whether it is signed by the key of its segment, and of its epoch; if not, that is said."""
        if self._key is None:
            segment = receipt.head.segment
            self._coverage.leave(f"receipt {receipt.number}: the signing key of segment {segment} is not known")
            return False
        if not self._signed(receipt, self._key):
            return False
        if receipt.head.epoch != self._epoch:
            self._say(Verdict.FORK, receipt, "validly signed, but for another epoch")
            return False
        return True

    def _signed(self, receipt: _Receipt, key: bytes) -> bool:
        try:
            note.verify_single(receipt.data, lines.segment_name(receipt.head.chain_id, receipt.head.segment), key)
        except SignatureInvalid:
            if self._authority.lost(receipt.head.segment):
                self._coverage.leave(
                    f"receipt {receipt.number}: it may be of what was lost with the authority's consent"
                )
                return False
            self._say(Verdict.TAMPERED, receipt, "it is not signed by the key of its segment")
        else:
            return True
        return False

    def compare(self, seq: int, leaf: bytes, decided: Decided | None, payload: Mapping[str, Any] | None) -> None:
        """Hold the receipts due at ``seq`` against the entry there. ``payload``: None if it is unusable."""
        for receipt in self.due.pop(seq, ()):
            if not self._counts(receipt):
                continue
            if receipt.head.leaf != leaf:
                self._say(Verdict.FORK, receipt, "validly signed, but for another entry at this place")
                continue
            self._coverage.receipts += 1
            named = receipt.head.decided
            if named is None or payload is None:
                continue
            if (named.decision_id, named.effect, named.request.hex()) != decided:
                self._say(Verdict.TAMPERED, receipt, "the caller was told another decision than the one recorded")
            elif not payload["sealed"] and request_digest(payload) != named.request:
                self._say(Verdict.TAMPERED, receipt, "the request recorded is not the one the digest was made of")

    def end_segment(self, first: int, following: int) -> None:
        """The segment holds the entries from ``first`` up to ``following``, which is excluded."""
        for seq, receipts in self.due.items():
            for receipt in filter(self._counts, receipts):
                if seq >= following:
                    self._say(Verdict.INCOMPLETE, receipt, f"the segment ends before it, at entry {following - 1}")
                elif seq < first:
                    self._say(Verdict.FORK, receipt, "validly signed, but for a place before its segment")
        self.due.clear()

    def finish(self, *, to_end: bool, first: int) -> None:
        """The stream is at its end; it starts with segment ``first``. ``to_end``: it claims to reach its chain's."""
        for segment, receipts in self._waiting.items():
            for receipt in receipts:
                if to_end and segment >= first:
                    self._say(Verdict.INCOMPLETE, receipt, f"the ledger does not reach its segment {segment}")
                else:
                    self._coverage.leave(f"receipt {receipt.number}: its segment {segment} was not read")
        self._waiting.clear()


def request_digest(payload: Mapping[str, Any]) -> bytes:
    """The request digest over the request as a checked DECISION payload records it."""
    return recorded(payload).digest()
