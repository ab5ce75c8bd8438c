"""The calls of DecisionService, each tried until it is answered, refused or out of time.

A request is turned into bytes once; every attempt sends those.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio

from sidecar.client.channels import Channels, Line
from sidecar.client.refusals import NoDecision
from sidecar.client.retry import QUESTION_AGAIN, REPORT_AGAIN, Patience, Tries
from sidecar.client.tls import Tls
from sidecar.client.wire import Asked
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb

_SERVICE: Final = "/sidecar.v1.DecisionService/"
_READERS: Final = {
    "Decide": pb.DecideResponse.FromString,
    "DecideBatch": pb.DecideBatchResponse.FromString,
    "ReportOutcome": pb.ReportOutcomeResponse.FromString,
}

StreamCall = grpc.aio.StreamStreamCall[bytes, pb.DecideStreamResponse]


class Calls:
    """For threads. ``channel`` is one that somebody else closes; without it, one to the address is opened here."""

    def __init__(self, patience: Patience, channel: grpc.Channel | None = None, tls: Tls | None = None) -> None:
        self._patience = patience
        self._given = Line(channel, None) if channel is not None else None
        self._channels = Channels(patience, tls, grpc.secure_channel, grpc.insecure_channel)
        self._closed = False

    def close(self) -> None:
        """Closes what was opened here."""
        self._closed = True
        for channel in self._channels.end():
            channel.close()

    def decide(self, asked: Asked) -> pb.DecideResponse:
        """The answer. NoDecision when there is none."""
        answer: pb.DecideResponse = self._tried("Decide", asked.request, self._question(asked.last_receipt))
        return answer

    def decide_batch(self, request: pb.DecideBatchRequest, receipt: bytes) -> pb.DecideBatchResponse:
        """The answers. NoDecision when there are none; ``receipt`` is the last receipt that was sent."""
        answers: pb.DecideBatchResponse = self._tried("DecideBatch", request, self._question(receipt))
        return answers

    def report(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        """Where it was recorded. NoDecision when it was not taken."""
        taken: pb.ReportOutcomeResponse = self._tried("ReportOutcome", request, Tries(self._patience, REPORT_AGAIN))
        return taken

    def _question(self, receipt: bytes) -> Tries:
        return Tries(self._patience, QUESTION_AGAIN, receipt)

    def _tried(self, method: str, request: Any, tries: Tries) -> Any:
        raw = request.SerializeToString()
        while True:
            with self._line() as line:
                try:
                    return _method(line, method)(raw, timeout=tries.seconds, wait_for_ready=tries.waits)
                except Exception as error:  # gRPC's errors, and ValueError from a closed channel
                    pause = tries.pause_after(error)
            self._patience.pace.sleep(pause)

    @contextmanager
    def _line(self) -> Iterator[Line[grpc.Channel]]:
        if self._given is not None:
            yield self._given
            return
        if self._closed:
            raise NoDecision("unreachable", f"this guard is closed (sidecar at {self._patience.address}); make another")
        line = self._channels.take()
        try:
            yield line
        finally:
            for channel in self._channels.give_back(line):
                channel.close()


class AsyncCalls:
    """For one event loop; the channel is opened when first used."""

    def __init__(self, patience: Patience, tls: Tls | None = None) -> None:
        self._patience = patience
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels = Channels(patience, tls, grpc.aio.secure_channel, grpc.aio.insecure_channel)

    async def close(self) -> None:
        """Closes the channels. A call afterwards opens a new one."""
        self._loop = None
        for channel in self._channels.end():
            await channel.close()

    async def decide(self, asked: Asked) -> pb.DecideResponse:
        """The answer. NoDecision when there is none."""
        answer: pb.DecideResponse = await self._tried("Decide", asked.request, self._question(asked.last_receipt))
        return answer

    async def decide_batch(self, request: pb.DecideBatchRequest, receipt: bytes) -> pb.DecideBatchResponse:
        """The answers. NoDecision when there are none; ``receipt`` is the last receipt that was sent."""
        answers: pb.DecideBatchResponse = await self._tried("DecideBatch", request, self._question(receipt))
        return answers

    async def report(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        """Where it was recorded. NoDecision when it was not taken."""
        tries = Tries(self._patience, REPORT_AGAIN)
        taken: pb.ReportOutcomeResponse = await self._tried("ReportOutcome", request, tries)
        return taken

    @asynccontextmanager
    async def stream(self, *, waits: bool) -> AsyncIterator[tuple[StreamCall, Callable[[], bool]]]:
        """A new DecideStream; each question on it has its own deadline. ``waits``: for a sidecar to be there.

        Besides it a function that says whether a new stream would go over a newer connection.
        """
        async with self._line() as line:
            method: Any = line.channel.stream_stream(
                _SERVICE + "DecideStream", response_deserializer=pb.DecideStreamResponse.FromString
            )
            call: StreamCall = method(wait_for_ready=waits)
            yield call, partial(self._channels.superseded, line)

    def _question(self, receipt: bytes) -> Tries:
        return Tries(self._patience, QUESTION_AGAIN, receipt)

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[Line[grpc.aio.Channel]]:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise UsageError("this AsyncGuard serves another event loop: close it there, or make one for each loop")
        self._loop = loop
        if not self._channels.prepared:
            await asyncio.to_thread(self._channels.prepare)
        line = self._channels.take()
        try:
            yield line
        finally:
            for channel in self._channels.give_back(line):
                await channel.close()

    async def _tried(self, method: str, request: Any, tries: Tries) -> Any:
        raw = request.SerializeToString()
        while True:
            async with self._line() as line:
                try:
                    return await _method(line, method)(raw, timeout=tries.seconds, wait_for_ready=tries.waits)
                except Exception as error:
                    pause = tries.pause_after(error)
            await self._patience.pace.sleep_async(pause)


def _method(line: Line[Any], name: str) -> Any:
    """What calls the method over this line; made once."""
    found = line.methods.get(name)
    if found is None:
        found = line.methods[name] = line.channel.unary_unary(_SERVICE + name, response_deserializer=_READERS[name])
    return found
