"""Approving: who waits for whom, an approver's word taken or refused, and what an agent may ask under it.

list ─► approve or reject (always signed) ─► APPROVAL entry ─► those who watch are told
ask again (approval_of) ─► granted(): counted anew ─► the path decides ─► used: one ALLOW
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sidecar.chain.digests import Approval, read_digest
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.registry import Principal
from sidecar.chain.request import Request
from sidecar.decide import approvals, ask, entries
from sidecar.decide.approvals import Fault, Granted, Now, Pending, What, given
from sidecar.decide.entries import Caller, Terms
from sidecar.decide.in_force import InForce
from sidecar.decide.observer import Observer
from sidecar.decide.registered import Registered
from sidecar.decide.repeats import recorded_at
from sidecar.decide.waiting import Waiting
from sidecar.decide.whole import Whole
from sidecar.errors import CallerUnproved, NotPermitted, RequestError, SidecarError
from sidecar.identity import ANYBODY, Claim, Shown
from sidecar.ledger import Draft, Ledger, Recorded, unopened
from sidecar.policy import Verdict

MOST: Final = 100
MOST_BYTES: Final = 2 * 1024 * 1024  # of requests in one list
VERDICTS: Final = frozenset({"approve", "reject"})

_NO_TERMS: Final = nullcontext(None)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class State:
    """How a decision stands that requires an approval. ``approved_by``: whose approvals count now."""

    what: What
    approved_by: tuple[str, ...]
    terms: Terms


class Approvals:
    """Approvals over one ledger. ``proved`` proves callers, ``again`` anew by the registry of that moment;
    ``default_seconds``: their time, if a policy sets none.
    """

    def __init__(
        self,
        ledger: Ledger,
        in_force: InForce,
        proved: Callable[[Claim, Shown], Caller],
        again: Callable[[Caller], Caller],
        observer: Observer,
        wall_ns: Callable[[], int],
        default_seconds: int,
    ) -> None:
        self._ledger, self._in_force, self._proved = ledger, in_force, proved
        self._again = again
        self._observer, self._wall_ns, self._default = observer, wall_ns, default_seconds
        self._waiting = Waiting(ledger, self._now)
        self._whole = Whole()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def watched(self) -> int:
        """How many watch."""
        return self._waiting.watchers

    def look_again(self) -> None:
        """Some personal fields were erased."""
        self._waiting.look_again()

    def end_watches(self) -> None:
        """The sidecar stops: those who watch are let go."""
        self._waiting.end()

    def open(self, by: str, shown: Shown) -> tuple[list[tuple[Pending, Mapping[str, Any]]], bool]:
        """What waits for an approval that ``by`` may give, with its DECISION; and whether there is more.

        Raises:
            CallerUnproved, NotPermitted: for somebody else than an approver.
        """
        approver = self._reader(by, "approvals", "", shown)
        listed: list[tuple[Pending, Mapping[str, Any]]] = []
        size = 0
        for each in self._waiting.open():
            if approvals.may_approve(each, approver) is None:
                entry = self._ledger.entry(each.seq)
                size += len(entry.payload)
                if len(listed) == MOST or (listed and size > MOST_BYTES):
                    return listed, True
                payload = self._ledger.payload(each.seq)
                if not unopened(payload):
                    listed.append((each, payload))
        return listed, False

    async def approve(self, said: Approval, shown: Shown) -> tuple[Recorded, State]:
        """Take an approver's word, recorded; or give the answer that this very one got before.

        Raises:
            RequestError, CallerUnproved, NotPermitted, NotFound, WrongState: not taken. LedgerError: not recorded.
        """
        return await self._whole.done(self._approve(said, shown))

    async def watch(self, by: str, decision_id: str, shown: Shown) -> AsyncIterator[State]:
        """How it stands, now and at each change, until it is over.

        Raises:
            NotPermitted: for others than the agent that asked and those who may approve. TooMany: so many watch.
        """
        caller = self._proved(Claim("read", by, read_digest(by, "watch", decision_id), ANYBODY), shown)
        pending = self._waiting.find(decision_id)
        if caller.agent != pending.agent["id"]:
            self._check_may(pending, caller)
        told: State | None = None
        async for _ in self._waiting.watch(pending, caller.agent):
            state = self.state(pending)
            if state != told:
                told = state
                yield state
            if state.what not in ("pending", "approved"):
                return

    def state(self, pending: Pending) -> State:
        """How it stands now."""
        now = self._now()
        by = tuple(given.by for given, _ in approvals.counted(pending, now))
        return State(approvals.standing(pending, now), by, pending.terms)

    def room_for(self, verdict: Verdict, agent: str) -> AbstractContextManager[Terms | None]:
        """What a decision of this verdict waits for; within, it is recorded. Raises TooMany where it must not wait."""
        return self._room(verdict, agent) if verdict.effect == "REQUIRE_APPROVAL" else _NO_TERMS

    @contextmanager
    def _room(self, verdict: Verdict, agent: str) -> Iterator[Terms | None]:
        with self._waiting.room(agent):
            wanted = verdict.approval
            seconds = (wanted.expires_seconds if wanted else None) or self._default
            expires = policy_time(self._wall_ns() + seconds * 1_000_000_000)
            yield Terms(wanted.count if wanted else 1, wanted.roles if wanted else (), expires)

    def recorded(self, seq: int, payload: Mapping[str, Any], under: Pending | None) -> None:
        """A DECISION is on disk; ``under``: whose approvals it was asked under."""
        if payload["terms"] is not None:
            self._waiting.add(seq, payload)
        if under is not None and payload["effect"] == "ALLOW":
            under.settled = "used"
            self._observer.approval("allowed")
            self._waiting.changed(under)

    async def under(self, request: Request, caller: Caller, decide: Callable[[Pending], Coroutine[Any, Any, T]]) -> T:
        """``decide`` what is asked under the approvals of a decision: one at a time, and not after an ALLOW.

        ``decide`` holds the request against :meth:`granted`, and tells :meth:`recorded` what became of it.
        """

        async def alone() -> T:
            with self._refusals(caller.tagged or "", request.approval_of):
                pending = self._waiting.find(request.approval_of)
                async with pending.one_at_a_time:
                    return await decide(pending)

        return await self._whole.done(alone())

    def granted(self, pending: Pending, request: Request, registry: Registered | None) -> Granted:
        """The approvals under which this request may be decided. Raises WrongState, NotPermitted or RequestError."""
        now = self._by(registry)
        self._refuse(approvals.asking_fault(pending, request, now))
        return Granted(pending, tuple(approvals.counted(pending, now)))

    async def _approve(self, said: Approval, shown: Shown) -> tuple[Recorded, State]:
        _check(said)
        with self._refusals("", said.decision_id):
            caller = self._proved(Claim("approval", said.by, said.digest(), ANYBODY), shown)
        with self._refusals(caller.tagged or "", said.decision_id):
            if not shown.statement:
                raise CallerUnproved("signature: is missing; an approval is always signed", "no signature")
            pending = self._waiting.find(said.decision_id)
            async with pending.one_at_a_time:
                caller = self._again(caller)  # a decision may have been under way for long
                before = self._before(pending, said)
                if before is not None:
                    return before, self.state(pending)
                self._refuse(approvals.approval_fault(pending, said, self._by(caller.registry)))
                recorded = await self._record(pending, said, caller)
        if said.verdict == "reject":
            pending.settled = "rejected"
        else:
            pending.approvals.append(given(recorded.seq, said.by, shown.statement.decode()))
        self._observer.approval(said.verdict)
        self._waiting.changed(pending)
        return recorded, self.state(pending)

    def _before(self, pending: Pending, said: Approval) -> Recorded | None:
        """Where these very words were recorded: their answer was lost, and they were signed again."""
        for place, kind in self._ledger.about(pending.seq):
            if kind is EntryType.APPROVAL and Approval.of(self._ledger.payload(place)) == said:
                return recorded_at(self._ledger, place, _repeat_key(said))
        return None

    async def _record(self, pending: Pending, said: Approval, caller: Caller) -> Recorded:
        payload = entries.approval(caller, said, pending.seq, pending.agent)
        draft = Draft(EntryType.APPROVAL, payload, ref_seq=pending.seq, repeat_key=_repeat_key(said))
        return await self._ledger.record(draft, lambda: self._in_force.knows(caller.registry))

    def _reader(self, by: str, what: str, parameter: str, shown: Shown) -> Principal:
        caller = self._proved(Claim("read", by, read_digest(by, what, parameter), ANYBODY), shown)
        approver = self._by(caller.registry).principal(caller.agent)
        if approver is None or approver.kind != "approver":
            raise NotPermitted(f"by: {by} is not an active approver in the registry", "kind", caller.tagged or "")
        return approver

    def _check_may(self, pending: Pending, caller: Caller) -> None:
        approver = self._by(caller.registry).principal(caller.agent)
        if approver is None or approvals.may_approve(pending, approver) is not None:
            cause = "by: it is shown to the agent that asked and to those who may approve it"
            raise NotPermitted(cause, "name", caller.tagged or "")

    def _now(self) -> Now:
        return self._by(self._in_force.registry)

    def _by(self, registry: Registered | None) -> Now:
        read = None if registry is None else registry.read
        return Now(read, policy_time(self._wall_ns()), self._in_force.current)

    def _refuse(self, fault: Fault | None) -> None:
        if fault is not None:
            self._observer.approval(fault.cause)
            raise fault.error

    @contextmanager
    def _refusals(self, principal: str, decision_id: str) -> Iterator[None]:
        """Errors say whom and what decision they are about."""
        try:
            yield
        except SidecarError as error:
            error.principal = error.principal or principal
            error.decision_id = decision_id if self._ledger.find(decision_id) is not None else ""
            raise


def _repeat_key(said: Approval) -> bytes:
    return hashlib.sha256(b"sidecar/v1/approval-repeat\0" + said.digest()).digest()[:16]


def _check(said: Approval) -> None:
    """Hold an approver's words against the limits. Raises RequestError."""
    ask.check_name("by", said.by)
    if said.verdict not in VERDICTS:
        raise RequestError("verdict", "is neither approve nor reject")
    for field, digest in (("action_digest", said.action_digest), ("arguments_digest", said.arguments_digest)):
        if len(digest) != 32:
            raise RequestError(field, "must be 32 bytes")
    ask.check_text("comment", said.comment)
