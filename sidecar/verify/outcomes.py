"""Outcomes across entries: each held against the decision that it is about (LEDGER.md rule 10).

Memory is bounded: the last decisions are remembered, and of each only what an outcome must agree with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.chain.digests import arguments_digest
from sidecar.verify.coverage import Coverage
from sidecar.verify.plain import Plain
from sidecar.verify.report import Findings, Verdict
from sidecar.verify.statements import is_sealed
from sidecar.verify.unread import Unread

REMEMBERED: Final = 32_768
"""Decisions; about 12 MB."""

_NONE: Final = "it is about a decision that may have no outcome: no ALLOW, and enforced"
_SECOND: Final = "it is the second outcome of its decision"
_SAID: Final = ("agent", "proof", "by", "arguments_digest", "permit")


def due(value: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What the outcome of a checked DECISION must say: decision id, agent, its proof, reporter, arguments digest (""
    where they are sealed), when its permit ends ("" without one). None: there may be none."""
    if value["effect"] != "ALLOW" and value["enforced"]:
        return None
    agent, permit = value["agent"], value["permit"]
    reporter = agent["id"] if permit is None else value["executor"]["id"]
    digest = "" if value["sealed"] else arguments_digest(value["request"]["arguments"].encode()).hex()
    ends = "" if permit is None else permit["not_after"]
    return value["decision_id"], agent["id"], agent["proof"], reporter, digest, ends


class Outcomes:
    """Told of each DECISION and OUTCOME whose payload is in order, in their order."""

    def __init__(self, unread: Unread, findings: Findings, coverage: Coverage) -> None:
        self._unread, self._findings, self._coverage = unread, findings, coverage
        self._decisions: dict[int, Plain | Sequence[str] | str] = {}
        self._seqs: deque[int] = deque()  # theirs: a dict takes long to find its first key when many before it went
        self._forgotten = -1
        self._unknown = 0

    def decision(self, told: Plain | Sequence[str] | None, seq: int) -> None:
        """``told``: as :func:`due`, or what tells it."""
        if seq not in self._decisions:
            self._seqs.append(seq)
        self._decisions[seq] = _NONE if told is None else told
        if len(self._seqs) > REMEMBERED:
            self._forgotten = self._seqs.popleft()
            del self._decisions[self._forgotten]

    def outcome(self, value: Mapping[str, Any], segment: int, seq: int) -> None:
        """One OUTCOME."""
        about = value["decision_seq"]
        found = self._decisions.get(about)
        if isinstance(found, Plain):
            found = found.due() or _NONE
        if found is None and (about <= self._forgotten or about in self._unread):
            self._unknown += 1
            return
        self._coverage.outcomes += 1
        fault = "it is about an entry that is no decision" if found is None else _fault(value, found)
        if fault:
            self._findings.add(Verdict.TAMPERED, segment, seq, fault)
        if found is not None:
            self._decisions[about] = _SECOND if found is not _NONE else found

    def finish(self) -> None:
        """The stream has ended."""
        if self._unknown:
            told = "outcomes against their decisions, which are not in what was read, or too far before them"
            self._coverage.leave(f"{told}: {self._unknown:,}")


def _fault(value: Mapping[str, Any], found: Sequence[str] | str) -> str | None:
    """What is wrong with an outcome of a decision, or None."""
    if isinstance(found, str):
        return found
    decision_id, *expected, ends = found
    if value["decision_id"] != decision_id:
        return "it names another decision than the one that it refers to"
    agent, digest, permit = value["agent"], value["arguments_digest"], value["permit"]
    if (digest is None and not ends) or is_sealed(value, "/arguments_digest") or not expected[-1]:
        digest = expected[-1]
    permitted = f"\nnot_after {ends}\n" in permit if ends else not permit
    permitted = permitted or is_sealed(value, "/permit")
    said = (agent["id"], agent["proof"], value["by"]["id"], digest, permitted)
    wrong = [name for name, one, other in zip(_SAID, said, (*expected, True), strict=True) if one != other]
    return f"it does not go with its decision: {', '.join(wrong)}" if wrong else None
