"""The calls of DecisionService and ApprovalService, each tried until it is answered, refused or out of time.

A request is turned into bytes once and every attempt sends those; where the guard signs, each attempt is signed anew.
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
from sidecar.client.retry import Patience, Tries
from sidecar.client.signing import HEAD, Signed, Signing
from sidecar.client.tls import Tls
from sidecar.client.tracing import trace_metadata
from sidecar.client.waiting import Wait
from sidecar.client.wire import Asked
from sidecar.errors import SidecarError, UsageError
from sidecar.v1 import decision_pb2 as pb

_SERVICE: Final = "/sidecar.v1.DecisionService/"
_APPROVALS: Final = "/sidecar.v1.ApprovalService/"
_READERS: Final[dict[str, Any]] = {
    _SERVICE + "Decide": pb.DecideResponse.FromString,
    _SERVICE + "DecideBatch": pb.DecideBatchResponse.FromString,
    _SERVICE + "ReportOutcome": pb.ReportOutcomeResponse.FromString,
    _APPROVALS + "ListApprovals": pb.ListApprovalsResponse.FromString,
    _APPROVALS + "Approve": pb.ApproveResponse.FromString,
    HEAD: pb.HeadResponse.FromString,
}
_WATCH: Final = _APPROVALS + "WatchApproval"

StreamCall = grpc.aio.StreamStreamCall[bytes, pb.DecideStreamResponse]


class Calls:
    """For threads. ``channel`` is one that somebody else closes; without it, one to the address is opened here.

    Raises UsageError for a channel with ``tls`` besides, and as `Channels`.
    """

    def __init__(
        self,
        patience: Patience,
        channel: grpc.Channel | None = None,
        signing: Signing | None = None,
        tls: Tls | None = None,
    ) -> None:
        if tls is not None and channel is not None:
            raise UsageError("tls is for an address; a channel given has credentials of its own")
        self._patience, self._signing = patience, signing
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
        answer: pb.DecideResponse = self._tried(_SERVICE + "Decide", asked.request, self._question(asked.last_receipt))
        return answer

    def decide_batch(self, request: pb.DecideBatchRequest, receipt: bytes) -> pb.DecideBatchResponse:
        """The answers. NoDecision when there are none; ``receipt`` is the last receipt that was sent."""
        answers: pb.DecideBatchResponse = self._tried(_SERVICE + "DecideBatch", request, self._question(receipt))
        return answers

    def report(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        """Where it was recorded. NoDecision when it was not taken."""
        taken: pb.ReportOutcomeResponse = self._tried(_SERVICE + "ReportOutcome", request, Tries(self._patience))
        return taken

    def list_approvals(self, request: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
        """What waits. NoDecision when there is no answer."""
        listed: pb.ListApprovalsResponse = self._tried(_APPROVALS + "ListApprovals", request, self._question(b""))
        return listed

    def approve(self, request: pb.ApproveRequest) -> pb.ApproveResponse:
        """Where it was recorded. NoDecision when it was not taken, or not known to be."""
        taken: pb.ApproveResponse = self._tried(_APPROVALS + "Approve", request, Tries(self._patience))
        return taken

    def wait(self, by: str, wait: Wait) -> None:
        """Return once it is approved. NotApproved when it will not be; NoDecision when it cannot be watched."""
        request = pb.WatchApprovalRequest(by=by, decision_id=wait.decision.decision_id)
        signing = self._signing
        while True:
            failed: Exception | None = None
            with self._line() as line:
                try:
                    if signing is not None:
                        if not signing.ready:
                            signing.learn(_method(line, HEAD)(b"", timeout=wait.seconds, wait_for_ready=True))
                        signing.sign(request)
                    for state in _watch(line)(request.SerializeToString(), timeout=wait.seconds, wait_for_ready=True):
                        if wait.over(state):
                            return
                except SidecarError:
                    raise
                except Exception as error:
                    failed = None if signing is not None and signing.outdated_by(error) else error
            self._patience.pace.sleep(wait.pause_after(failed))

    def _question(self, receipt: bytes) -> Tries:
        return Tries(self._patience, receipt)

    def _tried(self, method: str, request: Any, tries: Tries) -> Any:
        raw = request.SerializeToString()
        signing, renewed = self._signing, False
        while True:
            with self._line() as line:
                try:
                    if signing is not None:
                        if not signing.ready:
                            head = _method(line, HEAD)(b"", timeout=tries.seconds, wait_for_ready=tries.waits)
                            signing.learn(head)
                        signing.sign(request)
                        raw = request.SerializeToString()
                    call = _method(line, method)
                    answer = call(raw, timeout=tries.seconds, wait_for_ready=tries.waits, metadata=trace_metadata())
                    if renewed or not _any_outdated(answer, signing):
                        return answer
                    renewed, pause = True, 0.0
                except NoDecision:
                    raise
                except Exception as error:  # gRPC's errors, and ValueError from a closed channel
                    if signing is not None and not renewed and signing.outdated_by(error):
                        renewed, pause = True, 0.0
                    else:
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

    def __init__(self, patience: Patience, signing: Signing | None = None, tls: Tls | None = None) -> None:
        self._patience, self._signing = patience, signing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels = Channels(patience, tls, grpc.aio.secure_channel, grpc.aio.insecure_channel)

    async def close(self) -> None:
        """Closes the channels. A call afterwards opens a new one."""
        self._loop = None
        for channel in self._channels.end():
            await channel.close()

    async def decide(self, asked: Asked) -> pb.DecideResponse:
        """The answer. NoDecision when there is none."""
        answer: pb.DecideResponse = await self._tried(
            _SERVICE + "Decide", asked.request, self._question(asked.last_receipt)
        )
        return answer

    async def decide_batch(self, request: pb.DecideBatchRequest, receipt: bytes) -> pb.DecideBatchResponse:
        """The answers. NoDecision when there are none; ``receipt`` is the last receipt that was sent."""
        answers: pb.DecideBatchResponse = await self._tried(_SERVICE + "DecideBatch", request, self._question(receipt))
        return answers

    async def report(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        """Where it was recorded. NoDecision when it was not taken."""
        tries = Tries(self._patience)
        taken: pb.ReportOutcomeResponse = await self._tried(_SERVICE + "ReportOutcome", request, tries)
        return taken

    async def list_approvals(self, request: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
        """As `Calls.list_approvals`."""
        tries = self._question(b"")
        listed: pb.ListApprovalsResponse = await self._tried(_APPROVALS + "ListApprovals", request, tries)
        return listed

    async def approve(self, request: pb.ApproveRequest) -> pb.ApproveResponse:
        """As `Calls.approve`."""
        taken: pb.ApproveResponse = await self._tried(_APPROVALS + "Approve", request, Tries(self._patience))
        return taken

    async def wait(self, by: str, wait: Wait) -> None:
        """As `Calls.wait`."""
        request = pb.WatchApprovalRequest(by=by, decision_id=wait.decision.decision_id)
        while True:
            failed: Exception | None = None
            async with self._line() as line:
                try:
                    raw = await self._signed(line, request, wait.seconds, waits=True)
                    async for state in _watch(line)(raw, timeout=wait.seconds, wait_for_ready=True):
                        if wait.over(state):
                            return
                except SidecarError:
                    raise
                except Exception as error:
                    failed = None if self._signing is not None and self._signing.outdated_by(error) else error
            await self._patience.pace.sleep_async(wait.pause_after(failed))

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
        return Tries(self._patience, receipt)

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[Line[grpc.aio.Channel]]:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise UsageError("it serves another event loop: close it there, or make one for each loop")
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
        signing, renewed = self._signing, False
        while True:
            async with self._line() as line:
                try:
                    if signing is not None:
                        raw = await self._signed(line, request, tries.seconds, waits=tries.waits)
                    call = _method(line, method)
                    answer = await call(
                        raw, timeout=tries.seconds, wait_for_ready=tries.waits, metadata=trace_metadata()
                    )
                    if renewed or not _any_outdated(answer, signing):
                        return answer
                    renewed, pause = True, 0.0
                except NoDecision:
                    raise
                except Exception as error:
                    if signing is not None and not renewed and signing.outdated_by(error):
                        renewed, pause = True, 0.0
                    else:
                        pause = tries.pause_after(error)
            await self._patience.pace.sleep_async(pause)

    async def signed(self, message: Signed, seconds: float) -> bytes:
        """A message in bytes, signed afresh where this guard signs; Head is asked within ``seconds`` where it must."""
        async with self._line() as line:
            return await self._signed(line, message, seconds, waits=False)

    async def _signed(self, line: Line[grpc.aio.Channel], message: Signed, seconds: float, *, waits: bool) -> bytes:
        signing = self._signing
        if signing is not None:
            if not signing.ready:
                signing.learn(await _method(line, HEAD)(b"", timeout=seconds, wait_for_ready=waits))
            signing.sign(message)
        return message.SerializeToString()

    def outdated(self, answer: pb.Answer) -> bool:
        """Whether an answer of a stream says that its question was signed for another epoch."""
        return _outdated(answer, self._signing)


def _any_outdated(response: Any, signing: Signing | None) -> bool:
    """Whether questions of a batch were signed for another epoch."""
    batch = isinstance(response, pb.DecideBatchResponse)
    return batch and any(_outdated(answer, signing) for answer in response.answers)


def _outdated(answer: pb.Answer, signing: Signing | None) -> bool:
    refused = signing is not None and answer.WhichOneof("what") == "refusal"
    return refused and signing is not None and signing.outdated(answer.refusal.code, answer.refusal.message)


def _method(line: Line[Any], path: str) -> Any:
    """What calls the method over this line; made once."""
    found = line.methods.get(path)
    if found is None:
        found = line.methods[path] = line.channel.unary_unary(path, response_deserializer=_READERS[path])
    return found


def _watch(line: Line[Any]) -> Any:
    return line.channel.unary_stream(_WATCH, response_deserializer=pb.ApprovalState.FromString)
