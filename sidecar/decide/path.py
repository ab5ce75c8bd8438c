"""The one path: authenticate, evaluate, record, answer. Nothing is answered before it is durable.

    check_request → caller → judge (engine) → ledger.record → Answer

A call cancelled before its entry is handed to the ledger leaves nothing; afterwards it leaves a whole entry. Every
error raised here has left no permission anywhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from sidecar.chain import payload as payloads
from sidecar.chain.digests import Outcome, read_digest
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import NO_SEQ
from sidecar.chain.request import Request
from sidecar.decide import ask, delegations, entries
from sidecar.decide.approvals import Pending
from sidecar.decide.approving import Approvals
from sidecar.decide.entries import Answer, Asking, Caller, Judgement, Refusal
from sidecar.decide.in_force import InForce, same
from sidecar.decide.judge import denied, judge
from sidecar.decide.observer import Observer, Stages, Unobserved
from sidecar.decide.outcomes import REFUSED, Outcomes, id_in
from sidecar.decide.receipts import Receipts
from sidecar.decide.refusals import RefusalBook
from sidecar.decide.repeats import Repeats, repeat_key
from sidecar.decide.tracing import Tracing, Untraced
from sidecar.decide.whole import Whole
from sidecar.errors import EngineError, SidecarError
from sidecar.identity import ANYBODY, REPORTERS, Claim, Prover, Shown, Terms, owner_of
from sidecar.ledger import Draft, Ledger, Recorded
from sidecar.policy import Engine

_MIXED = 3  # times that options are judged anew when the policy changed between them


@dataclass(frozen=True, slots=True)
class Settings:
    """``development`` accepts names that callers merely assert; ``evaluate_timeout`` in seconds, 0.001 to 60.

    ``enforced`` False is shadow enforcement: a guard configured for it may go on whatever the effect. ``require``: of
    signature and mtls, what callers must be proved by otherwise; ``signature_window``: seconds, 1 to 300;
    ``permit_seconds``: how long a permit is good, 1 to 3,600; ``approval_seconds``: how long an approval may take where
    the policy does not say.
    """

    development: bool
    evaluate_timeout: float = 1.0
    enforced: bool = True
    limits: ask.Limits = field(default_factory=ask.Limits)
    require: tuple[str, ...] = ("signature",)
    signature_window: float = 60.0
    permit_seconds: int = 60
    approval_seconds: int = 3600

    @property
    def proof(self) -> Terms:
        """What callers must be proved by. Raises ValueError for what cannot be required."""
        return Terms(frozenset(self.require), self.signature_window, self.development)

    def __post_init__(self) -> None:
        if not 0.001 <= self.evaluate_timeout <= 60:
            raise ValueError("evaluate_timeout must be from 0.001 to 60 seconds")
        if not 1 <= self.permit_seconds <= 3_600:
            raise ValueError("permit_seconds must be from 1 to 3600")


class DecisionPath:
    """``new_id`` gives UUIDv7s, ``wall_ns`` the wall clock in ns."""

    def __init__(
        self,
        engine: Engine,
        in_force: InForce,
        ledger: Ledger,
        settings: Settings,
        *,
        new_id: Callable[[], str],
        observer: Observer | None = None,
        tracing: Tracing | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._in_force = in_force
        self._ledger = ledger
        self._settings = settings
        self._new_id = new_id
        self._observer: Observer = observer or Unobserved()
        self._tracing: Tracing = tracing or Untraced()
        self._wall_ns = wall_ns
        at = ledger.position()
        self._prover = Prover(settings.proof, at.chain_id, at.epoch, wall_ns)
        self._refusals = RefusalBook(monotonic)
        self._repeats = Repeats(ledger)
        self._receipts = Receipts(ledger)
        self._whole = Whole()
        self._outcomes = Outcomes(ledger, in_force, int(settings.signature_window * 1e9), wall_ns)
        self.approvals = Approvals(
            ledger, in_force, self._caller, self._again, self._observer, wall_ns, settings.approval_seconds
        )  # fmt: skip

    @property
    def limits(self) -> ask.Limits:
        """The limits on requests."""
        return self._settings.limits

    async def decide(self, request: Request, shown: Shown, remaining: float | None = None) -> Answer:
        """One decision, recorded. ``remaining``: seconds until the caller stops waiting, if it said so.

        Raises:
            RequestError, CallerUnproved, NotPermitted, WrongState: refused, and recorded as such by :meth:`refuse`.
            LedgerError: it could not be recorded; there is no answer.
        """
        arrived = time.monotonic_ns()
        read = ask.check_request(request)
        ask.check_door(read.context, served=shown.voucher is not None)
        digest = request.digest()
        with self._tracing.step("authenticate"):
            # Before the answer to its key is sought.
            caller = self._caller(Claim("request", request.agent, digest), shown)
        try:
            return await self._asked(request, read, digest, caller, remaining, arrived)
        except SidecarError as error:
            error.principal = error.principal or caller.tagged or ""
            raise

    async def _asked(
        self,
        request: Request,
        read: ask.Documents,
        digest: bytes,
        caller: Caller,
        remaining: float | None,
        arrived: int,
    ) -> Answer:
        """The decision that a proved caller asked for, made now or before."""
        at = payloads.policy_time(self._wall_ns())
        asking = self._asking(request, caller, at)  # before the answer to its key is sought, too
        foreign = self._receipts.is_foreign(request.last_receipt)

        key = repeat_key(request) if request.idempotency_key else None
        made_now = False

        def fresh() -> Coroutine[Any, Any, Answer]:
            nonlocal made_now
            made_now = True
            budget = self._budget(remaining)
            return self._under(
                request, asking, at, lambda asking, pending, at: self._fresh(
                    request, read, digest, key, asking, pending, at, foreign=foreign, budget=budget, arrived=arrived
                )
            )  # fmt: skip

        answer = await (fresh() if key is None else self._repeats.once(request, key, digest, caller, fresh))
        if not made_now:
            self._observer.repeated(answer)
        return answer

    def _under(
        self, request: Request, asking: Asking, at: str,
        fresh: Callable[[Asking, Pending | None, str], Coroutine[Any, Any, Answer]],
    ) -> Coroutine[Any, Any, Answer]:  # fmt: skip
        """As it is, or under the approvals of the decision that the request names, one at a time."""
        if not request.approval_of:
            return fresh(asking, None, at)

        def in_turn(pending: Pending) -> Coroutine[Any, Any, Answer]:
            """By the registry and the time of this moment: another may have been decided long before it."""
            now = payloads.policy_time(self._wall_ns())
            return fresh(self._asking(request, self._again(asking.caller), now), pending, now)

        return self.approvals.under(request, asking.caller, in_turn)

    async def _fresh(
        self,
        request: Request,
        read: ask.Documents,
        digest: bytes,
        key: bytes | None,
        asking: Asking,
        pending: Pending | None,
        at: str,
        *,
        foreign: bool,
        budget: float,
        arrived: int,
    ) -> Answer:
        started = time.monotonic_ns()
        with self._tracing.step("evaluate"):
            asking, judged, others = await self._judge_all(asking, pending, request, read, at, budget)
        took = time.monotonic_ns() - started

        async def recorded() -> Answer:
            decision_id = self._new_id()
            enforced, caller = self._settings.enforced, asking.caller
            until = self._wall_ns() + self._settings.permit_seconds * 1_000_000_000
            with self.approvals.room_for(judged.verdict, request.agent) as terms:
                payload = entries.decision(
                    decision_id, at, asking, request, digest, judged, others, took, enforced, until, terms
                )  # fmt: skip
                if foreign:
                    payload["receipt_check"] = "foreign"
                draft = Draft(
                    EntryType.DECISION,
                    payload,
                    ref_seq=NO_SEQ if pending is None else pending.seq,
                    repeat_key=key,
                    read=read.texts,
                )
                handed_over = time.monotonic_ns()
                with self._tracing.step("commit"):
                    entry = await self._ledger.record(draft, lambda: self._in_force.knows(caller.registry))
                self.approvals.recorded(entry.seq, payload, pending)
            self._receipts.give(entry.receipt)
            permit = self._ledger.permit(entry.seq, payload)
            answer = Answer(decision_id, judged, tuple(others), caller, entry, enforced, permit, terms)
            now = time.monotonic_ns()
            stages = Stages(took / 1e9, (now - handed_over) / 1e9, (now - arrived) / 1e9)
            asyncio.get_running_loop().call_soon(self._observer.decided, answer, stages)  # after the answer
            return answer

        if judged.verdict.effect != "REQUIRE_APPROVAL":
            return await recorded()
        return await self._whole.done(recorded())  # what is on disk waits, and counts, also if nobody hears of it

    async def report(self, outcome: Outcome, shown: Shown) -> Recorded:
        """Record what became of an allowed action.

        Raises:
            RequestError, CallerUnproved, NotPermitted, NotFound, OutcomeRefused: it is not taken, as `Outcomes.take`.
        """
        ask.check_name("agent", outcome.by)
        ask.check_outcome(outcome)
        caller = self._caller(Claim("outcome", outcome.by, outcome.digest(), REPORTERS), shown)
        try:
            recorded = await self._outcomes.take(outcome, caller)
        except REFUSED as error:
            error.principal, error.decision_id = caller.tagged or "", id_in(outcome)
            raise
        self._receipts.give(recorded.receipt)
        return recorded

    def reader(self, by: str, what: str, parameter: str, shown: Shown) -> str | None:
        """Who reads the ledger; None with --dev, where anybody may. Raises CallerUnproved, NotPermitted."""
        if self._settings.development:
            return None
        return self._caller(Claim("read", by, read_digest(by, what, parameter), ANYBODY), shown).agent

    def known(self, agent: str, shown: Shown) -> str:
        """The agent whom a gateway names, if it may ask at all. Raises CallerUnproved, NotPermitted."""
        return self._caller(Claim("request", agent, b""), shown).agent

    def gateway(self, shown: Shown) -> str:
        """The gateway itself, as it would report. Raises CallerUnproved, NotPermitted."""
        assert shown.voucher is not None
        return self._caller(Claim("outcome", shown.voucher.gateway, b"", REPORTERS), shown).agent

    def holder(self, spiffe_id: str) -> str:
        """The principal whose SPIFFE id a gateway saw, by the registry in force. Raises CallerUnproved."""
        registry = self._in_force.registry
        return owner_of(spiffe_id, None if registry is None else registry.read, payloads.policy_time(self._wall_ns()))

    async def refuse(self, peer: str, refusal: Refusal) -> None:
        """Record a refused request, within the peer's budget. Raises LedgerError if it cannot be."""
        self._observer.refused(refusal.code, refusal.field, refusal.why)
        draft = self._refusals.note(peer, refusal)
        if draft is not None:
            await self._ledger.record(draft)

    async def record_remainder(self, *, everything: bool = False) -> None:
        """Write the counts of refusals that had no entry of their own. Raises LedgerError."""
        for draft in self._refusals.remainder(everything=everything):
            await self._ledger.record(draft)

    def _caller(self, claim: Claim, shown: Shown) -> Caller:
        registry = self._in_force.registry
        proved = self._prover.prove(claim, shown, None if registry is None else registry.read)
        return Caller(proved, shown.transport.peer, registry)

    def _again(self, caller: Caller) -> Caller:
        """The same caller by the registry in force now. Raises as `Prover.again`."""
        registry = self._in_force.registry
        proved = self._prover.again(caller.proved, None if registry is None else registry.read)
        return Caller(proved, caller.peer, registry)

    def _asking(self, request: Request, caller: Caller, at: str) -> Asking:
        """What the caller's registry says of who gave its delegations. Raises RequestError or NotPermitted."""
        read, chain = None if caller.registry is None else caller.registry.read, self._ledger.position().chain_id.hex()
        givers = delegations.delegators(request, read, chain_id=chain, at=at)
        return Asking(caller, tuple(delegations.member(giver) for giver in givers))

    def _budget(self, remaining: float | None) -> float:
        own = self._settings.evaluate_timeout
        return own if remaining is None else max(0.001, min(own, remaining * 0.8))

    async def _judge_all(
        self, asking: Asking, pending: Pending | None, request: Request, read: ask.Documents, at: str, timeout: float
    ) -> tuple[Asking, Judgement, list[Judgement]]:
        """All options, by one policy and the registry that goes with it: where it changed meanwhile, all over again."""
        options = (request.wanted, *request.alternatives)
        for _ in range(_MIXED):
            if pending is not None:
                granted = self.approvals.granted(pending, request, asking.caller.registry)
                asking = dataclasses.replace(asking, approval=granted.member())
            documents = [
                entries.policy_input(asking, request, option, arguments, read.context, at)
                for option, arguments in zip(options, read.arguments, strict=True)
            ]
            first, *others = await self._judged(documents, timeout)
            versions = [first.version, *(other.version for other in others)]
            if pending is not None and first.verdict.effect != "DENY":
                versions.append(pending.policy)  # by another policy, what was approved is stale
            if same(versions) and self._in_force.goes_with(first.version, asking.caller.registry):
                return asking, first, others
            asking = self._asking(request, self._again(asking.caller), at)
        mixed = EngineError("the policy changed again and again while the options were judged")
        return asking, denied(mixed, first.version), [denied(mixed, first.version) for _ in others]

    async def _judged(self, documents: list[dict[str, Any]], timeout: float) -> list[Judgement]:
        if len(documents) == 1:  # without a task of its own
            return [await judge(self._engine, self._in_force, documents[0], timeout)]
        each = (judge(self._engine, self._in_force, document, timeout) for document in documents)
        return await asyncio.gather(*each)
