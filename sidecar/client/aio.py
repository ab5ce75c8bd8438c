"""The guard for agents on asyncio: the same promises as `Guard`, awaited."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

import grpc

from sidecar.client.decision import Decision, Obligation
from sidecar.client.obligations import check_known, unmet
from sidecar.client.outcome import Permit, Status, Unreported, UnreportedOutcome
from sidecar.client.question import Arguments, Question, Resource
from sidecar.client.refusals import raise_unless_allowed
from sidecar.client.target import CHANNEL_OPTIONS, check_address, check_timeout
from sidecar.client.wire import About, no_decision, question, read_answer
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2_grpc

if TYPE_CHECKING:
    from sidecar.v1.decision_pb2_grpc import DecisionServiceAsyncStub

P = ParamSpec("P")
R = TypeVar("R")

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
        obligations: Mapping[str, AsyncHandler] | None = None,
        on_unreported: Callable[[UnreportedOutcome], object] | None = None,
    ) -> None:
        self._timeout = check_timeout(timeout)
        self._address = check_address(address)
        self._agent = agent
        self._handlers = dict(obligations or {})
        self._unreported = Unreported(on_unreported)
        self._last_receipt = b""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None

    @property
    def unreported(self) -> int:
        """How many outcomes could not be reported."""
        return self._unreported.count

    async def close(self) -> None:
        """Closes the channel. A question asked afterwards opens a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> AsyncGuard:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def check(
        self, action: str, resource: Resource, arguments: Arguments | None = None, **about: Unpack[About]
    ) -> Decision:
        """As `Guard.check`. A cancelled question raises CancelledError: no permission."""
        request = question(
            self._agent, self._last_receipt, action, resource, {} if arguments is None else arguments, **about
        )
        stub = self._stub()
        try:
            response = await stub.Decide(request, timeout=self._timeout)
        except Exception as error:
            raise no_decision(error, self._address, self._timeout) from error
        decision = read_answer(response, action, about.get("alternatives", ()))
        self._last_receipt = decision.receipt
        raise_unless_allowed(decision)
        await self._meet(decision)
        return decision

    def guarded(
        self,
        action: str,
        resource: Resource | Callable[..., Resource],
        arguments: Arguments | Callable[..., Arguments] | None = None,
        **about: Unpack[About],
    ) -> AsyncGuarded:
        """As `Guard.guarded`: an asynchronous context manager, and a decorator of coroutine functions."""
        return AsyncGuarded(self, Question(action, resource, arguments, about))

    @asynccontextmanager
    async def permitted(self, resource: Resource, arguments: Arguments, asked: Question) -> AsyncIterator[Permit]:
        """One run of a guarded body."""
        permit = Permit(await self.check(asked.action, resource, arguments, **asked.about))
        try:
            yield permit
        except BaseException:  # a cancelled action has run in part: FAILED, whatever stopped it
            await self._report(permit, Status.FAILED)
            raise
        await self._report(permit, Status.EXECUTED)

    def _stub(self) -> DecisionServiceAsyncStub:
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop = loop
            self._channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        if self._loop is not loop:
            raise UsageError("this AsyncGuard serves another event loop: close it there, or make one for each loop")
        return decision_pb2_grpc.DecisionServiceStub(self._channel)

    async def _meet(self, decision: Decision) -> None:
        try:
            check_known(decision, self._handlers)
            for obligation in decision.obligations:
                with unmet(decision, obligation):
                    done = self._handlers[obligation.kind](obligation, decision)
                    if inspect.isawaitable(done):
                        await done
        except BaseException:  # also a cancellation while meeting one: the action will not run
            await self._report(Permit(decision), Status.BLOCKED)
            raise

    async def _report(self, permit: Permit, status: Status) -> None:
        try:
            request = permit.outcome(self._agent, status)
            answer = await self._stub().ReportOutcome(request, timeout=self._timeout)
        except Exception as error:  # whatever it is: the action has run, and its result or its own error must get out
            self._unreported.add(permit, status, no_decision(error, self._address, self._timeout))
        except BaseException as interrupt:
            self._unreported.add(permit, status, interrupt)
            raise
        else:
            self._last_receipt = answer.receipt or self._last_receipt


class AsyncGuarded:
    """What `AsyncGuard.guarded` returns: enter it once, or decorate with it."""

    def __init__(self, guard: AsyncGuard, asked: Question) -> None:
        self._guard = guard
        self._asked = asked
        self._run: AbstractAsyncContextManager[Permit] | None = None

    async def __aenter__(self) -> Permit:
        if self._run is not None:
            raise UsageError(
                f"guarded {self._asked.action}: a permit is for one run; call guarded() for each `async with`"
            )
        self._run = self._guard.permitted(*self._asked.plain(), self._asked)
        return await self._run.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._run is not None
        return await self._run.__aexit__(kind, error, trace)

    def __call__(self, action: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        signature = self._asked.check_decorates(action, asynchronous=True)

        @functools.wraps(action)
        async def guarded_action(*args: P.args, **kwargs: P.kwargs) -> R:
            resource, arguments = self._asked.of_call(signature, args, kwargs)
            async with self._guard.permitted(resource, arguments, self._asked):
                return await action(*args, **kwargs)

        return guarded_action
