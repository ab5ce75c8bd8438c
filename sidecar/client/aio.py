"""The guard for agents on asyncio: the same promises as `Guard`, awaited."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Unpack

from sidecar.client.answer import read_answer, read_batch
from sidecar.client.calls import AsyncCalls
from sidecar.client.decision import Decision, Effect, Obligation
from sidecar.client.guarded import AsyncGuarded
from sidecar.client.obligations import check_known, take, unmet
from sidecar.client.outcome import NOTHING, Permit, Status, Unreported, UnreportedOutcome, outcome_of
from sidecar.client.question import Arguments, Question, Resource
from sidecar.client.receipts import LastReceipt
from sidecar.client.refusals import ApprovalRequired, NoDecision, raise_unless_permitted
from sidecar.client.retry import ATTEMPTS, REAL, Pace, Patience
from sidecar.client.signing import Signer, Signing
from sidecar.client.stream import DecisionStream
from sidecar.client.target import check_address, check_timeout
from sidecar.client.tls import Tls
from sidecar.client.waiting import Wait, again
from sidecar.client.wire import About, Ask, Asked, asked, batch
from sidecar.v1 import decision_pb2 as pb

AsyncHandler = Callable[[Obligation, Decision], Awaitable[object] | object]


class AsyncGuard:
    """`Guard` for asyncio; every argument is as there, and a handler of an obligation may be a coroutine function.

    It opens its channel when first used, so it can be made outside a loop; from then on it serves that loop only.
    """

    def __init__(
        self,
        address: str,
        *,
        agent: str,
        timeout: float = 2.0,
        attempts: int = ATTEMPTS,
        obligations: Mapping[str, AsyncHandler] | None = None,
        on_unreported: Callable[[UnreportedOutcome], object] | None = None,
        shadow: bool = False,
        key: Signer | None = None,
        chain: str | None = None,
        tls: Tls | None = None,
        pace: Pace = REAL,
    ) -> None:
        self._patience = Patience(check_address(address), check_timeout(timeout), attempts, pace)
        signing = None if key is None else Signing(agent, key, chain)
        self._calls = AsyncCalls(self._patience, signing, tls)
        self._agent = agent
        self._handlers = dict(obligations or {})
        self._shadow = shadow
        self._unreported = Unreported(on_unreported)
        self._last = LastReceipt()

    @property
    def unreported(self) -> int:
        """How many outcomes could not be reported."""
        return self._unreported.count

    async def close(self) -> None:
        """Closes the channel. A question asked afterwards opens a new one."""
        await self._calls.close()

    async def __aenter__(self) -> AsyncGuard:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def check(
        self, action: str, resource: Resource, arguments: Arguments | None = None, **about: Unpack[About]
    ) -> Decision:
        """As `Guard.check`. A cancelled question raises CancelledError: no permission."""
        return await self._permitted(await self.ask(action, resource, arguments, **about))

    async def _permitted(self, decision: Decision) -> Decision:
        raise_unless_permitted(decision, shadow=self._shadow)
        if decision.effect is Effect.ALLOW:
            await self._meet(decision)
        return decision

    async def ask(
        self, action: str, resource: Resource, arguments: Arguments | None = None, **about: Unpack[About]
    ) -> Decision:
        """As `Guard.ask`: whatever was decided, also a DENY. It permits nothing."""
        return await self._decided(asked(self._agent, self._last.receipt, Ask(action, resource, arguments, **about)))

    async def _decided(self, question: Asked) -> Decision:
        decision = read_answer(await self._calls.decide(question), question)
        self._last.take(decision.receipt)
        return decision

    async def ask_many(self, questions: Sequence[Ask]) -> list[Decision | NoDecision]:
        """As `Guard.ask_many`: up to 64 questions in one call."""
        last = self._last.receipt
        whole = [asked(self._agent, last, question) for question in questions]
        if not whole:
            return []
        answers = read_batch(await self._calls.decide_batch(batch(whole), last), whole, self._patience)
        self._last.take_all(answers)
        return answers

    async def wait_for_approval(self, what: ApprovalRequired | Decision, timeout: float) -> Decision:
        """As `Guard.wait_for_approval`."""
        await self.approved(what, timeout)
        return await self.under_approval(what)

    async def approved(self, what: ApprovalRequired | Decision, timeout: float) -> None:
        """Waits as `wait_for_approval` does, and asks nothing: cancelled, it leaves the approval as it is."""
        wait = Wait(what, check_timeout(timeout), self._patience)
        again(what)  # where that cannot be asked, there is nothing to wait for
        await self._calls.wait(self._agent, wait)

    async def under_approval(self, what: ApprovalRequired | Decision) -> Decision:
        """Asks the same again under its approvals, which an ALLOW uses up. Raises as `check` does."""
        return await self._permitted(await self._decided(asked(self._agent, b"", again(what))))

    def stream(self) -> DecisionStream:
        """`async with guard.stream() as stream`: many questions over one call. See DecisionStream."""
        return DecisionStream(self._agent, self._calls, self._patience, self._last)

    async def report(self, decision_id: str, status: Status, response: object = NOTHING) -> int:
        """As `Guard.report`: returns the seq of the OUTCOME entry."""
        return await self._send(outcome_of(self._agent, decision_id, status, response))

    async def _send(self, report: pb.ReportOutcomeRequest) -> int:
        taken = await self._calls.report(report)
        self._last.take(taken.receipt)
        return int(taken.seq)

    def guarded(
        self,
        action: str,
        resource: Resource | Callable[..., Resource],
        arguments: Arguments | Callable[..., Arguments] | None = None,
        **about: Unpack[About],
    ) -> AsyncGuarded:
        """As `Guard.guarded`: an asynchronous context manager, and a decorator.

        It decorates coroutine functions and whatever else returns an awaitable (a partial, a decorator's function):
        that is awaited before its outcome is reported. What a plain function does holds up the event loop.
        """
        return AsyncGuarded(self, Question(action, resource, arguments, about))

    @asynccontextmanager
    async def permitted(self, resource: Resource, arguments: Arguments, asked: Question) -> AsyncIterator[Permit]:
        """One run of a guarded body."""
        async with self.acting(await self.check(asked.action, resource, arguments, **asked.about)) as permit:
            yield permit

    @asynccontextmanager
    async def acting(self, decision: Decision) -> AsyncIterator[Permit]:
        """As `Guard.acting`."""
        raise_unless_permitted(decision, shadow=self._shadow)
        take(decision)
        if decision.effect is Effect.ALLOW:
            await self._meet(decision)
        permit = Permit(decision)
        try:
            yield permit
        except BaseException:  # a cancelled action has run in part: FAILED, whatever stopped it
            await self._report(permit, permit.raised)
            raise
        await self._report(permit, Status.EXECUTED)

    async def _meet(self, decision: Decision) -> None:
        if decision.leave.met:
            return
        try:
            check_known(decision, self._handlers)
            for obligation in decision.obligations:
                with unmet(decision, obligation):
                    done = self._handlers[obligation.kind](obligation, decision)
                    if inspect.isawaitable(done):
                        await done
        except BaseException:  # also a cancellation while meeting one: the action will not run
            decision.leave.take()
            await self._report(Permit(decision), Status.BLOCKED)
            raise
        decision.leave.met = True

    async def _report(self, permit: Permit, status: Status) -> None:
        if permit.decision.permit:
            return  # its executor reports
        report = permit.outcome(self._agent, status)
        await self._unreported.sent(lambda: self._send(report), permit.decision.decision_id, status)
