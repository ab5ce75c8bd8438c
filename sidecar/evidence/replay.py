"""Exact re-run: each recorded decision is put again to the policy that the ledger archived, by the engine it names.

    stream ─► bundles to disk ─► decisions in range, some at a time ─► the engine of their bundle ─► compared

What this proves is that the answer follows from what is recorded; that the record is true is for `verify`. A decision
by a policy that is not pure is not run at all (it could reach for the network), and counts for nothing. A DENY for want
of a decision has nothing to be run again; it is counted by its cause, and must be recorded as such.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sidecar.chain import note
from sidecar.chain.entry import HEADER_SIZE, EntryType, Header
from sidecar.chain.printable import number_of
from sidecar.chain.recorded import entry
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed, PolicyLoadError, UsageError
from sidecar.policy import Engine, OpaProgram, Rerun, rerun

from .archived import ArchivedPolicy, Engines
from .compare import (
    UNANSWERED,
    Difference,
    action_differences,
    alternative_differences,
    contradictions,
    differing,
    undecided,
)
from .range import Range, Restore
from .rows import sealed

_SECONDS: Final = 10.0  # for one evaluation
_AT_ONCE: Final = 16
_TOGETHER: Final = 256  # decisions held in memory
_TOGETHER_BYTES: Final = 32 << 20  # of their payloads

Inputs = Callable[[Mapping[str, Any]], list[dict[str, Any]]]
"""The documents that the policy saw for a DECISION's payload: of the action, then of each alternative."""


@dataclass(frozen=True, slots=True)
class Found:
    """A decision that is no match. ``kind``: "mismatch", "not re-run" or "impure"; ``why``: in one line."""

    kind: str
    seq: int
    decision_id: str
    agent: str
    why: str
    differences: tuple[Difference, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        told = {"kind": self.kind, "seq": self.seq, "decision_id": self.decision_id, "agent": self.agent}
        return {**told, "why": self.why, "differences": [each.to_json() for each in self.differences]}


@dataclass(slots=True)
class Tally:
    """What became of the decisions in the range. ``options``: actions and alternatives evaluated and compared;
    ``let_go``: the range begins before what the ledger keeps."""

    decisions: int = 0
    matched: int = 0
    mismatched: int = 0
    not_rerun: int = 0
    impure: int = 0
    undecided: Counter[str] = field(default_factory=Counter)
    undecided_alternatives: int = 0
    options: int = 0
    engines: Counter[tuple[str, str]] = field(default_factory=Counter)
    withheld: int = 0
    others_withheld: bool = False
    let_go: bool = False
    unreadable: int = 0
    ends_badly: str = ""

    @property
    def exit_code(self) -> int:
        """0: all that could be asked again came out the same, and that was something; 1: a mismatch; 3: neither."""
        if self.mismatched:
            return 1
        missing = self.withheld and not self.others_withheld
        left = self.not_rerun or self.impure or missing or self.let_go or self.unreadable or self.ends_badly
        return 3 if left or not self.matched else 0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "decisions": self.decisions,
            "matched": self.matched,
            "mismatched": self.mismatched,
            "not_rerun": self.not_rerun,
            "impure": self.impure,
            "undecided": dict(sorted(self.undecided.items())),
            "undecided_alternatives": self.undecided_alternatives,
            "options_compared": self.options,
            "engines": [
                {"recorded": recorded, "rerun": now, "decisions": count}
                for (recorded, now), count in sorted(self.engines.items())
            ],
            "withheld": self.withheld,
            "let_go": self.let_go,
            "unreadable": self.unreadable,
            "ends_badly": self.ends_badly,
        }


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A decision, and what is to be asked again of it: nothing where ``trouble`` says why, or its policy is impure."""

    seq: int
    payload: dict[str, Any]
    size: int
    impure: tuple[str, ...]
    documents: tuple[dict[str, Any], ...]
    trouble: str

    def found(self, kind: str, why: str, differences: Sequence[Difference] = ()) -> Found:
        payload = self.payload
        return Found(kind, self.seq, payload["decision_id"], payload["agent"]["id"], why, tuple(differences))


class Replay:
    """One re-run. ``inputs`` rebuilds what the policy saw; ``program`` finds the `opa` program when it is needed;
    ``others_withheld``: the streams are of certain agents, and what they withhold is not asked for; ``whole``: what
    was before a stream's beginning is asked for too; ``restore`` puts sealed personal values back where it can."""

    def __init__(
        self,
        inputs: Inputs,
        program: Callable[[], OpaProgram],
        within: Range | None = None,
        *,
        others_withheld: bool = False,
        whole: bool = False,
        restore: Restore = lambda _, __: None,
    ) -> None:
        self._inputs, self._program, self._range = inputs, program, within or Range()
        self._restore, self._whole = restore, whole
        self._impure: dict[str, tuple[str, ...]] = {}  # by the bundle's digest
        self.tally = Tally(others_withheld=others_withheld)

    async def run(self, stream: Iterable[tuple[Kind, bytes]]) -> AsyncIterator[Found]:
        """Every decision in range that is no match, in the ledger's order; `tally` is complete at the end.

        Of the stream no more is held than some decisions and the bundles, which are kept in files.
        """
        with tempfile.TemporaryDirectory(prefix="sidecar-replay-") as place:
            async with contextlib.AsyncExitStack() as stack:
                engines = Engines(self._program, Path(place), stack)
                for some in _together(self._decisions(stream, engines)):
                    for policy, those in itertools.groupby(some, lambda each: _policy_of(each.payload)):
                        async for found in self._all(list(those), policy, engines):
                            yield found

    def _decisions(self, stream: Iterable[tuple[Kind, bytes]], engines: Engines) -> Iterator[_Recorded]:
        try:
            for kind, body in stream:
                if kind is Kind.ATTACHMENT:
                    engines.keep(body)
                elif kind is Kind.ENTRY:
                    yield from self._entry(body)
                elif kind is Kind.CONTEXT_SEAL and self._whole:
                    self._before(Seal.parse(note.parse(body).text))
                elif kind is Kind.BARE and body[8:9] == _DECISION:
                    self._bare(body)
        except Malformed as error:
            self.tally.ends_badly = str(error)

    def _before(self, sealed: Seal) -> None:
        """A segment whose entries are not here any more."""
        start = self._range.start
        self.tally.let_go |= start is None or start <= sealed.time

    def _bare(self, body: bytes) -> None:
        try:
            self.tally.withheld += self._range.covers(Header.decode(body[:HEADER_SIZE]).wall_ns)
        except Malformed:
            self.tally.unreadable += 1

    def _entry(self, body: bytes) -> Iterator[_Recorded]:
        if body[8:9] not in (_POLICY, _DECISION):
            return
        try:
            header, payload = entry(body)
            self._restore(header, payload)
        except Malformed:
            self.tally.unreadable += 1
            return
        if header.type is EntryType.POLICY:
            self._note(payload)
        elif self._range.holds(header, payload):
            yield self._recorded(header, payload)

    def _note(self, policy: Mapping[str, Any]) -> None:
        if policy["impure_builtins"]:
            self._impure[policy["bundle_digest"]] = tuple(policy["impure_builtins"])

    def _recorded(self, header: Header, payload: dict[str, Any]) -> _Recorded:
        digest = payload["policy"]["bundle_digest"]
        impure = tuple(sorted({*payload.get("impure_builtins", ()), *self._impure.get(digest, ())}))
        documents: tuple[dict[str, Any], ...] = ()
        trouble = ""
        if not impure and _asks(payload) and (hidden := sealed(payload)):
            trouble = f"what the policy saw or said has {number_of(len(hidden), 'sealed personal value')}"
        elif not impure and _asks(payload):
            try:
                documents = tuple(self._inputs(payload)[_first(payload) :])
            except (Malformed, ValueError) as error:
                trouble = f"what the policy saw cannot be rebuilt from the entry: {error}"
        return _Recorded(header.seq, payload, header.payload_len, impure, documents, trouble)

    async def _all(self, those: list[_Recorded], policy: ArchivedPolicy, engines: Engines) -> AsyncIterator[Found]:
        """Decisions by one policy, one after the other."""
        engine, trouble = None, ""
        documents = [document for each in those for document in each.documents]
        if documents:
            try:
                engine = await engines.get(policy)
            except (PolicyLoadError, UsageError) as error:
                trouble = str(error)
        async with contextlib.aclosing(_answers(engine, documents)) as answers:
            for each in those:
                found = await self._one(each, trouble if each.documents else each.trouble, answers)
                if found is not None:
                    yield found

    async def _one(self, each: _Recorded, trouble: str, answers: AsyncIterator[Rerun]) -> Found | None:
        payload, tally = each.payload, self.tally
        tally.decisions += 1
        decided = payload["cause"] == "policy"
        differences = [] if decided else contradictions(payload)
        unanswered = trouble
        if each.documents and not trouble:
            more, unanswered = await self._compared(each, answers)
            differences += more
        if differences:
            tally.mismatched += 1
            return each.found("mismatch", differing(differences), differences)
        if unanswered:
            tally.not_rerun += 1
            return each.found("not re-run", unanswered)
        if each.impure and decided:
            tally.impure += 1
            return each.found("impure", f"uses {', '.join(each.impure)}, whose result is no function of the input")
        if decided:
            tally.matched += 1
        else:
            tally.undecided[payload["cause"]] += 1
        return None

    async def _compared(self, each: _Recorded, answers: AsyncIterator[Rerun]) -> tuple[list[Difference], str]:
        """What differs, and why an option has no answer, "" where all have."""
        payload, differences, unanswered = each.payload, [], ""
        for option in range(_first(payload), len(payload["alternatives"]) + 1):
            now = await anext(answers)
            if now.cause in UNANSWERED:
                unanswered = now.verdict.reasons[0].message
                continue
            self.tally.options += 1
            if option == 0:
                differences += action_differences(payload, now)
                self.tally.engines[payload["policy"]["engine_version"], now.version.engine_version] += 1
                continue
            alternative = payload["alternatives"][option - 1]
            found = alternative_differences(option, alternative, now)
            if found and undecided(alternative):
                self.tally.undecided_alternatives += 1
            else:
                differences += found
        return differences, unanswered


_DECISION: Final = bytes((EntryType.DECISION,))
_POLICY: Final = bytes((EntryType.POLICY,))


def _policy_of(payload: Mapping[str, Any]) -> ArchivedPolicy:
    policy = payload["policy"]
    return policy["engine"], policy["entrypoint"], policy["bundle_digest"]


def _first(payload: Mapping[str, Any]) -> int:
    """The first option that the policy may have decided."""
    return 0 if payload["cause"] == "policy" else 1


def _asks(payload: Mapping[str, Any]) -> bool:
    """Whether there is anything to ask the policy again."""
    return payload["cause"] == "policy" or not all(map(undecided, payload["alternatives"]))


async def _answers(engine: Engine | None, documents: Iterable[dict[str, Any]]) -> AsyncGenerator[Rerun, None]:
    if engine is not None:
        async for answer in rerun(engine, documents, timeout=_SECONDS, at_once=_AT_ONCE):
            yield answer


def _together(decisions: Iterator[_Recorded]) -> Iterator[list[_Recorded]]:
    some: list[_Recorded] = []
    size = 0
    for each in decisions:
        some.append(each)
        size += each.size
        if len(some) >= _TOGETHER or size >= _TOGETHER_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
