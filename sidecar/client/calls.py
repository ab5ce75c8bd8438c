"""The calls of DecisionService, each tried until it is answered, refused or out of time.

A request is turned into bytes once and every attempt sends those; where the guard signs, each attempt is signed anew.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import grpc.aio

from sidecar.client.refusals import NoDecision
from sidecar.client.retry import QUESTION_AGAIN, REPORT_AGAIN, Patience, Tries
from sidecar.client.signing import HEAD, Signed, Signing
from sidecar.client.target import CHANNEL_OPTIONS
from sidecar.client.waiting import Wait
from sidecar.client.wire import Asked
from sidecar.errors import SidecarError, UsageError
from sidecar.v1 import decision_pb2 as pb

_SERVICE: Final = "/sidecar.v1.DecisionService/"
_APPROVALS: Final = "/sidecar.v1.ApprovalService/"
_METHODS: Final = {
    "Decide": (_SERVICE, pb.DecideResponse.FromString),
    "DecideBatch": (_SERVICE, pb.DecideBatchResponse.FromString),
    "ReportOutcome": (_SERVICE, pb.ReportOutcomeResponse.FromString),
    "ListApprovals": (_APPROVALS, pb.ListApprovalsResponse.FromString),
    "Approve": (_APPROVALS, pb.ApproveResponse.FromString),
}
_WATCH: Final = _APPROVALS + "WatchApproval"

StreamCall = grpc.aio.StreamStreamCall[bytes, pb.DecideStreamResponse]


class Calls:
    """For threads. ``channel`` is one that somebody else closes; without it, one to the address is opened here."""

    def __init__(self, patience: Patience, channel: grpc.Channel | None = None, signing: Signing | None = None) -> None:
        self._patience, self._signing = patience, signing
        self._own: grpc.Channel | None = None
        if channel is None:
            channel = self._own = grpc.insecure_channel(patience.address, options=CHANNEL_OPTIONS)
        self._methods: dict[str, Any] = {
            name: channel.unary_unary(service + name, response_deserializer=reader)
            for name, (service, reader) in _METHODS.items()
        }
        self._channel = channel
        self._head: Any = channel.unary_unary(HEAD, response_deserializer=pb.HeadResponse.FromString)

    def close(self) -> None:
        """Closes the channel opened here."""
        if self._own is not None:
            self._own.close()

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

    def list_approvals(self, request: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
        """What waits. NoDecision when there is no answer."""
        listed: pb.ListApprovalsResponse = self._tried("ListApprovals", request, self._question(b""))
        return listed

    def approve(self, request: pb.ApproveRequest) -> pb.ApproveResponse:
        """Where it was recorded. NoDecision when it was not taken, or not known to be."""
        taken: pb.ApproveResponse = self._tried("Approve", request, Tries(self._patience, REPORT_AGAIN))
        return taken

    def wait(self, by: str, wait: Wait) -> None:
        """Return once it is approved. NotApproved when it will not be; NoDecision when it cannot be watched."""
        request = pb.WatchApprovalRequest(by=by, decision_id=wait.decision.decision_id)
        watch: Any = self._channel.unary_stream(_WATCH, response_deserializer=pb.ApprovalState.FromString)
        signing = self._signing
        while True:
            failed: Exception | None = None
            try:
                if signing is not None:
                    if not signing.ready:
                        signing.learn(self._head(b"", timeout=wait.seconds, wait_for_ready=True))
                    signing.sign(request)
                for state in watch(request.SerializeToString(), timeout=wait.seconds, wait_for_ready=True):
                    if wait.over(state):
                        return
            except SidecarError:
                raise
            except Exception as error:
                if signing is not None and signing.outdated_by(error):
                    continue
                failed = error
            self._patience.pace.sleep(wait.pause_after(failed))

    def _question(self, receipt: bytes) -> Tries:
        return Tries(self._patience, QUESTION_AGAIN, receipt)

    def _tried(self, method: str, request: Any, tries: Tries) -> Any:
        raw, call = request.SerializeToString(), self._methods[method]
        signing, renewed = self._signing, False
        while True:
            try:
                if signing is not None:
                    if not signing.ready:
                        signing.learn(self._head(b"", timeout=tries.seconds, wait_for_ready=tries.waits))
                    signing.sign(request)
                    raw = request.SerializeToString()
                answer = call(raw, timeout=tries.seconds, wait_for_ready=tries.waits)
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


class AsyncCalls:
    """For one event loop; the channel is opened when first used."""

    def __init__(self, patience: Patience, signing: Signing | None = None) -> None:
        self._patience, self._signing = patience, signing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None

    async def close(self) -> None:
        """Closes the channel. A call afterwards opens a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
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

    async def wait(self, by: str, wait: Wait) -> None:
        """As `Calls.wait`."""
        request = pb.WatchApprovalRequest(by=by, decision_id=wait.decision.decision_id)
        watch: Any = self._open().unary_stream(_WATCH, response_deserializer=pb.ApprovalState.FromString)
        while True:
            failed: Exception | None = None
            try:
                raw = await self.signed(request, wait.seconds, waits=True)
                async for state in watch(raw, timeout=wait.seconds, wait_for_ready=True):
                    if wait.over(state):
                        return
            except SidecarError:
                raise
            except Exception as error:
                if self._signing is not None and self._signing.outdated_by(error):
                    continue
                failed = error
            await self._patience.pace.sleep_async(wait.pause_after(failed))

    def stream(self, *, waits: bool) -> StreamCall:
        """A new DecideStream; each question on it has its own deadline. ``waits``: for a sidecar to be there."""
        method: Any = self._open().stream_stream(
            _SERVICE + "DecideStream", response_deserializer=pb.DecideStreamResponse.FromString
        )
        call: StreamCall = method(wait_for_ready=waits)
        return call

    def _question(self, receipt: bytes) -> Tries:
        return Tries(self._patience, QUESTION_AGAIN, receipt)

    def _open(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop = loop
            self._channel = grpc.aio.insecure_channel(self._patience.address, options=CHANNEL_OPTIONS)
        if self._loop is not loop:
            raise UsageError("this AsyncGuard serves another event loop: close it there, or make one for each loop")
        return self._channel

    async def _tried(self, method: str, request: Any, tries: Tries) -> Any:
        raw = request.SerializeToString()
        service, reader = _METHODS[method]
        call: Any = self._open().unary_unary(service + method, response_deserializer=reader)
        signing, renewed = self._signing, False
        while True:
            try:
                if signing is not None:
                    raw = await self.signed(request, tries.seconds, waits=tries.waits)
                answer = await call(raw, timeout=tries.seconds, wait_for_ready=tries.waits)
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

    async def signed(self, message: Signed, seconds: float, *, waits: bool = False) -> bytes:
        """A message in bytes, signed afresh where this guard signs; Head is asked within ``seconds`` where it must."""
        signing = self._signing
        if signing is not None:
            if not signing.ready:
                head: Any = self._open().unary_unary(HEAD, response_deserializer=pb.HeadResponse.FromString)
                signing.learn(await head(b"", timeout=seconds, wait_for_ready=waits))
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
