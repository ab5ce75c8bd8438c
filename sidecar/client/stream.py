"""Many questions over one call: answers in any order, each matched to its question by a correlation id.

Questions that are asked while a message is on its way go together in the next one. When the stream is lost, a new one
is opened, and what was not answered is sent again under the same idempotency key: the sidecar decides it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Unpack

import grpc

from sidecar.client.answer import read_one
from sidecar.client.calls import AsyncCalls, StreamCall
from sidecar.client.decision import Decision
from sidecar.client.failure import code_of, no_decision
from sidecar.client.question import Arguments, Resource
from sidecar.client.receipts import LastReceipt
from sidecar.client.refusals import NoDecision
from sidecar.client.retry import AGAIN, Patience
from sidecar.client.wire import About, Ask, Asked, asked
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb

_LOST: Final = AGAIN | {grpc.StatusCode.INTERNAL}
"""gRPC says INTERNAL of a connection that is lost while it writes to it, too."""

_MOST: Final = 32  # questions in a message
_ENOUGH: Final = 16 * 1024  # bytes: nothing is put to a message that has so many; signatures come on top


@dataclass(slots=True, eq=False)
class _Waiting:
    """A question that has no answer yet. ``sent``: how often it was written to a stream."""

    question: pb.StreamQuestion
    answer: asyncio.Future[pb.Answer] = field(default_factory=asyncio.Future)
    sent: int = 0
    renewed: bool = False  # signed again for another epoch


class DecisionStream:
    """What `AsyncGuard.stream` returns: enter it, then ask as often and as many at once as there is need.

    The call is opened with the first question. Each question has the guard's timeout and its number of attempts. As
    with `ask`, a decision permits nothing by itself. Leaving it ends what is still asked with NoDecision.
    """

    def __init__(self, agent: str, calls: AsyncCalls, patience: Patience, last: LastReceipt) -> None:
        self._agent = agent
        self._calls = calls
        self._patience = patience
        self._last = last
        self._serving: asyncio.Task[None] | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._next = 1
        self._some = asyncio.Event()
        self._outgoing: asyncio.Queue[int] | None = None  # of the stream that is open
        self._failures = 0
        self._trouble: Callable[[], NoDecision] | None = None  # why there is no stream now

    async def __aenter__(self) -> DecisionStream:
        if self._serving is not None:
            raise UsageError("a stream is entered once; call stream() for each `async with`")
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        for number in list(self._waiting):
            self._fail(number, self._unreachable("the stream was closed before the answer came"))

    async def ask(
        self, action: str, resource: Resource, arguments: Arguments | None = None, **about: Unpack[About]
    ) -> Decision:
        """Whatever was decided, also a DENY.

        Raises NoDecision when no usable answer came, RequestError when the question cannot be sent, UsageError outside
        of `async with`.
        """
        if self._serving is None or self._serving.done():
            raise UsageError("ask a stream inside its `async with`")
        question = asked(self._agent, self._last.receipt, Ask(action, resource, arguments, **about))
        decision = read_one(await self._answer(question), question, self._patience)
        self._last.take(decision.receipt)
        return decision

    async def _answer(self, question: Asked) -> pb.Answer:
        number, self._next = self._next, self._next + 1
        waiting = self._waiting[number] = _Waiting(pb.StreamQuestion(correlation_id=number, request=question.request))
        self._some.set()
        if self._outgoing is not None:
            self._outgoing.put_nowait(number)
        try:
            async with asyncio.timeout(self._patience.timeout):
                return await waiting.answer
        except TimeoutError:
            raise (self._trouble or self._late)() from None
        finally:
            self._waiting.pop(number, None)

    async def _serve(self) -> None:
        while True:
            await self._some.wait()
            self._lost(await self._converse())
            await self._patience.pace.sleep_async(self._patience.pace.pause(self._failures))

    async def _converse(self) -> Exception | None:
        """One stream from its opening to its loss; returns what ended it, None where no error did."""
        try:
            async with self._calls.stream(waits=self._trouble is not None) as (call, superseded):
                return await self._hold(call, superseded)
        except Exception as error:
            return error

    async def _hold(self, call: StreamCall, superseded: Callable[[], bool]) -> Exception | None:
        outgoing = self._outgoing = asyncio.Queue()
        for number in self._waiting:
            outgoing.put_nowait(number)
        writer = asyncio.create_task(self._write(call, superseded, outgoing))
        try:
            async for response in call:
                for each in response.answers:
                    self._answered(each)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # else the guard was closed under the stream: gRPC cancels its call, not this task
        finally:
            self._outgoing = None
            call.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return None

    async def _write(self, call: StreamCall, superseded: Callable[[], bool], outgoing: asyncio.Queue[int]) -> None:
        # One writer: gRPC takes one message at a time, and cancelling one that is being written ends the call.
        while True:
            first = await outgoing.get()
            if superseded():  # what is asked from now on goes over the newer connection; this one answers, then ends
                await call.done_writing()
                return
            message = self._message(first, outgoing)
            if message.questions:
                try:
                    raw = await self._calls.signed(message, self._patience.timeout)
                except Exception:
                    call.cancel()  # no epoch to sign for: the stream is opened again
                    raise
                await call.write(raw)

    def _message(self, first: int, outgoing: asyncio.Queue[int]) -> pb.DecideStreamRequest:
        """That question and those behind it, as far as they may go together; without those that ran out of time."""
        message, length, number = pb.DecideStreamRequest(), 0, first
        while True:
            if (waiting := self._waiting.get(number)) is not None:
                waiting.sent += 1
                message.questions.append(waiting.question)
                length += waiting.question.ByteSize()
            if outgoing.empty() or length >= _ENOUGH or len(message.questions) == _MOST:
                return message
            number = outgoing.get_nowait()

    def _answered(self, answered: pb.StreamAnswer) -> None:
        self._failures, self._trouble = 0, None
        known = self._waiting.get(answered.correlation_id)
        if known is not None and not known.renewed and self._calls.outdated(answered.answer):
            known.renewed = True
            if self._outgoing is not None:
                self._outgoing.put_nowait(answered.correlation_id)
            return
        waiting = self._waiting.pop(answered.correlation_id, None)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(answered.answer)

    def _lost(self, error: Exception | None) -> None:
        self._failures += 1
        if error is None:
            trouble = partial(self._unreachable, "the stream ended")
        else:
            trouble = partial(no_decision, error, self._patience.address, self._patience.timeout)
        self._trouble = trouble
        again = error is None or code_of(error) in _LOST
        for number, waiting in list(self._waiting.items()):
            if not again or waiting.sent >= self._patience.attempts:
                self._fail(number, trouble())
        if not self._waiting:
            self._some.clear()

    def _fail(self, number: int, why: NoDecision) -> None:
        waiting = self._waiting.pop(number)
        if not waiting.answer.done():
            waiting.answer.set_exception(why)

    def _unreachable(self, what: str) -> NoDecision:
        return NoDecision("unreachable", f"{what} (sidecar at {self._patience.address}); ask again")

    def _late(self) -> NoDecision:
        timeout, address = self._patience.timeout, self._patience.address
        return NoDecision("timeout", f"none within {timeout:g} s (sidecar at {address}); see whether it is overloaded")
