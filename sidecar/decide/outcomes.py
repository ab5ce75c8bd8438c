"""Which outcomes are taken: from the right one, under the decision's own permit, for its arguments, once (SIGNING.md).

An outcome that is handed to the ledger ends, whoever goes on waiting for it; until then no other of its decision is
looked at. So there is one, also of two at once, and after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakValueDictionary

from sidecar.chain.digests import Outcome, arguments_digest
from sidecar.chain.entry import EntryType
from sidecar.decide import entries
from sidecar.decide.entries import Caller
from sidecar.decide.in_force import InForce
from sidecar.decide.repeats import recorded_at
from sidecar.decide.whole import Whole
from sidecar.errors import CallerUnproved, NotFound, NotPermitted, OutcomeRefused, RequestError, SidecarError
from sidecar.ledger import Decision, Draft, Ledger, Recorded, unopened

REFUSED: Final = (RequestError, CallerUnproved, NotPermitted, NotFound, OutcomeRefused)
"""What refuses an outcome."""

WHYS: Final = frozenset(
    {"unproved", "malformed", "unknown", "reporter", "no allow", "permit", "arguments", "time", "second", "erased"}
)
"""Why outcomes are refused, as metrics say it."""

_WORDS: Final = (
    (RequestError, "malformed"), (CallerUnproved, "unproved"), (NotPermitted, "reporter"), (NotFound, "unknown"),
)  # fmt: skip
_ID: Final = re.compile(r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class Outcomes:
    """Takes outcomes into one ledger, on one event loop. ``window``: the signature window, ns; ``wall_ns``: a clock."""

    def __init__(self, ledger: Ledger, in_force: InForce, window: int, wall_ns: Callable[[], int]) -> None:
        self._ledger, self._in_force, self._window, self._wall_ns = ledger, in_force, window, wall_ns
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._whole = Whole()

    async def take(self, said: Outcome, caller: Caller) -> Recorded:
        """Record an outcome, or give the answer that this very one got before.

        Raises:
            NotFound: no such decision. NotPermitted: another reports it. OutcomeRefused: why it is not taken.
            LedgerError: it could not be recorded.
        """
        decided = self._ledger.decision(said.decision_id)
        self._check(said, caller, decided)
        return await self._whole.done(self._once(said, caller, decided))

    def _check(self, said: Outcome, caller: Caller, decided: Decision) -> None:
        decision = decided.payload
        permitted = decision["permit"] is not None
        reporter = decision["executor"]["id"] if permitted else decision["agent"]["id"]
        if caller.agent != reporter:
            raise NotPermitted("agent: is not the one who reports what became of this decision", "name")
        if decision["effect"] != "ALLOW" and decision["enforced"]:
            cause = f"decision_id: the decision was {decision['effect']}; only an ALLOW has an outcome"
            raise OutcomeRefused(cause, "no allow")
        if unopened(decision) and (permitted or said.permit or said.arguments_digest):
            cause = "decision_id: its personal fields were erased, so that no permit or digest can be held against them"
            raise OutcomeRefused(cause, "erased")
        if said.permit != self._ledger.permit(decided.seq, decision):
            raise OutcomeRefused("permit: is not the one that this decision gave", "permit")
        done = arguments_digest(decision["request"]["arguments"].encode())
        if said.arguments_digest != done and (permitted or said.arguments_digest):
            raise OutcomeRefused("arguments_digest: is not that of the arguments decided on", "arguments")
        if said.status == "blocked":
            if said.started_ns:
                raise OutcomeRefused("started_ns: what was blocked was not begun", "time")
        elif said.started_ns or permitted:
            self._check_begun(said.started_ns, decided.wall_ns, decision["permit"])

    def _check_begun(self, started: int, decided: int, permit: Mapping[str, str] | None) -> None:
        if not decided - self._window <= started <= self._wall_ns() + self._window:
            raise OutcomeRefused("started_ns: is before the decision, or still to come", "time")
        if permit is not None and started >= int(permit["not_after"]):
            raise OutcomeRefused("started_ns: is not before the permit ended", "time")

    async def _once(self, said: Outcome, caller: Caller, decided: Decision) -> Recorded:
        seq = decided.seq
        async with self._locks.setdefault(seq, asyncio.Lock()):
            for place, kind in self._ledger.about(seq):
                if kind is EntryType.OUTCOME:
                    return self._again(said, place)
            payload = entries.outcome(caller, said, seq, decided.payload["agent"])
            draft = Draft(EntryType.OUTCOME, payload, ref_seq=seq, about=decided, repeat_key=_repeat_key(said))
            return await self._ledger.record(draft, lambda: self._in_force.knows(caller.registry))

    def _again(self, said: Outcome, place: int) -> Recorded:
        """The answer to the outcome at ``place``, if it is this very one."""
        if Outcome.of(self._ledger.payload(place)).digest() != said.digest():
            raise OutcomeRefused("outcome: the decision has another one already", "second")
        return recorded_at(self._ledger, place, _repeat_key(said))


def why(error: SidecarError) -> str:
    """The word of :data:`WHYS` for an outcome that was refused, also before it was one."""
    if isinstance(error, OutcomeRefused):
        return error.why
    return next((word for kind, word in _WORDS if isinstance(error, kind)), "malformed")


def id_in(said: Outcome) -> str:
    """The decision id that an outcome names, where it is the form of one: what a caller writes goes no further."""
    return said.decision_id if _ID.match(said.decision_id) else ""


def _repeat_key(said: Outcome) -> bytes:
    return hashlib.sha256(b"sidecar/v1/outcome-repeat\0" + said.digest()).digest()[:16]
