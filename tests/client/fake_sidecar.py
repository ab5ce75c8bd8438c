"""A sidecar that answers from a script, to put faults where a real one has none; it keeps what it hears."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc_testing

from sidecar.api.messages import request_of
from sidecar.client.retry import Pace
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc

_SERVICE = pb.DESCRIPTOR.services_by_name["DecisionService"]
_EFFECT_NAMES = {pb.EFFECT_ALLOW: "ALLOW", pb.EFFECT_DENY: "DENY", pb.EFFECT_REQUIRE_APPROVAL: "REQUIRE_APPROVAL"}

AT_ONCE = Pace(sleep=lambda _seconds: None, sleep_async=lambda _seconds: asyncio.sleep(0))
"""Tries again without a pause."""


@dataclass(frozen=True)
class Abort:
    """An answer that is a gRPC status: of the call, or the end of a stream."""

    code: grpc.StatusCode
    details: str = "said by the script"


@dataclass(frozen=True)
class Refuse:
    """A Refusal: one question's share of a batch or a stream."""

    code: int
    message: str = "said by the script"


class Silence:
    """No answer until the caller gives up (asyncio server only)."""


def unspoilt(receipt: bytes) -> bytes:
    return receipt


@dataclass(frozen=True)
class Said:
    """A decision. ``spoil`` changes the receipt that goes with it; ``held``: on a stream, after the next answer."""

    response: pb.DecideResponse
    spoil: Callable[[bytes], bytes] = unspoilt
    held: bool = False

    def to(self, request: pb.DecideRequest, seq: int) -> pb.DecideResponse:
        effect = _EFFECT_NAMES.get(self.response.effect, "ALLOW")
        good = receipt(seq, self.response.decision_id, effect, request_of(request).digest().hex())
        whole = pb.DecideResponse(seq=seq, receipt=self.spoil(good))
        whole.MergeFrom(self.response)
        return whole


def receipt(seq: int, decision_id: str = "-", effect: str = "-", request: str = "-", chain: str = "00") -> bytes:
    """A note of the right form; its signature is of nobody, and this client does not check it."""
    lines = f"sidecar/v1/head\nchain {chain}\nseq {seq}\ndecision {decision_id}\neffect {effect}\nrequest {request}\n"
    return f"{lines}\n— sidecar.example/test AAAAAAAA\n".encode()


def answer(
    effect: int,
    decision_id: str = "d-1",
    spoil: Callable[[bytes], bytes] = unspoilt,
    held: bool = False,
    **fields: object,
) -> Said:
    return Said(pb.DecideResponse(effect=effect, decision_id=decision_id, **fields), spoil, held)


def allow(decision_id: str = "d-1", **more: object) -> Said:
    return answer(pb.EFFECT_ALLOW, decision_id, **more)


def deny(decision_id: str = "d-1", **more: object) -> Said:
    more.setdefault("reasons", [pb.Reason(code="amount_over_limit", message="120 is over\nthe limit of 100")])
    return answer(pb.EFFECT_DENY, decision_id, **more)


Scripted = Said | Refuse | Abort | Silence


class FakeSidecar:
    """``asked`` and ``told`` are the requests that arrived, in order; ``report_fault`` answers every report.

    ``raw`` are the questions' bytes, ``given`` the receipts that went out. The first entry written is at seq 7.
    """

    def __init__(self, *answers: Scripted, report_fault: Abort | Silence | None = None) -> None:
        self.asked: list[pb.DecideRequest] = []
        self.raw: list[bytes] = []
        self.together: list[int] = []  # how many questions each message of a stream had
        self.told: list[pb.ReportOutcomeRequest] = []
        self.given: list[bytes] = []
        self.deadlines: list[float | None] = []  # seconds left when a call came over a real socket
        self._answers = deque(answers)
        self.report_fault = report_fault
        self._seq = 6

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """What was reported: decision id and status."""
        return [(t.decision_id, pb.OutcomeStatus.Name(t.status).removeprefix("OUTCOME_STATUS_")) for t in self.told]

    def next(self, request: pb.DecideRequest, raw: bytes) -> pb.DecideResponse | Refuse | Abort | Silence:
        """The script's next answer, for this question."""
        self.asked.append(request)
        self.raw.append(raw)
        if not self._answers:
            return Abort(grpc.StatusCode.UNKNOWN, "the script has ended")
        scripted = self._answers.popleft()
        if not isinstance(scripted, Said):
            return scripted
        self._seq += 1
        whole = scripted.to(request, self._seq)
        self.given.append(whole.receipt)
        return whole

    @property
    def holds_next(self) -> bool:
        """Whether the next answer is one to be held."""
        return bool(self._answers) and isinstance(self._answers[0], Said) and self._answers[0].held

    def decide(self, raw: bytes) -> pb.DecideResponse | Refuse | Abort | Silence:
        return self.next(pb.DecideRequest.FromString(raw), raw)

    def decide_batch(self, raw: bytes) -> pb.DecideBatchResponse | Abort | Silence:
        answers = []
        for request in pb.DecideBatchRequest.FromString(raw).requests:
            said = self.next(request, raw)
            if isinstance(said, Abort | Silence):
                return said
            answers.append(_answer(said))
        return pb.DecideBatchResponse(answers=answers)

    def report(self, raw: bytes) -> pb.ReportOutcomeResponse | Abort | Silence:
        self.told.append(pb.ReportOutcomeRequest.FromString(raw))
        if self.report_fault:
            return self.report_fault
        self._seq += 1
        self.given.append(receipt(self._seq))
        return pb.ReportOutcomeResponse(seq=self._seq, receipt=self.given[-1])


def _answer(said: pb.DecideResponse | Refuse) -> pb.Answer:
    if isinstance(said, Refuse):
        return pb.Answer(refusal=pb.Refusal(code=said.code, message=said.message))
    return pb.Answer(decision=said)


class _Channel:
    """grpcio-testing's channel is always ready, and its calls know no `wait_for_ready`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, path, response_deserializer):
        method = self._channel.unary_unary(path, response_deserializer=response_deserializer)
        return lambda raw, *, timeout, wait_for_ready, metadata=None: method(raw, timeout=timeout, metadata=metadata)


def scripted_channel(sidecar: FakeSidecar) -> grpc.Channel:
    """grpcio-testing's channel, answered from the script by one thread for each method."""
    channel = grpc_testing.channel([_SERVICE], grpc_testing.strict_real_time())
    methods = {"Decide": sidecar.decide, "DecideBatch": sidecar.decide_batch, "ReportOutcome": sidecar.report}
    for name, handle in methods.items():
        method = _SERVICE.methods_by_name[name]
        threading.Thread(target=_serve, args=(channel, method, handle), daemon=True).start()
    return _Channel(channel)


def _serve(channel, method, handle) -> None:
    while True:
        _metadata, request, rpc = channel.take_unary_unary(method)
        reply = handle(request)
        rpc.send_initial_metadata(())
        if isinstance(reply, Abort):
            rpc.terminate(None, (), reply.code, reply.details)
        else:
            rpc.terminate(reply, (), grpc.StatusCode.OK, "")


class _AsyncServicer:
    """Takes and gives bytes, so that what a client sent is seen as it was sent."""

    def __init__(self, sidecar: FakeSidecar) -> None:
        self._sidecar = sidecar
        self.silent = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler:
        unary = {
            "Decide": self._sidecar.decide,
            "DecideBatch": self._sidecar.decide_batch,
            "ReportOutcome": self._sidecar.report,
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(self._unary(handle), response_serializer=_bytes)
            for name, handle in unary.items()
        }
        stream = grpc.stream_stream_rpc_method_handler(self._stream, response_serializer=_bytes)
        return grpc.method_handlers_generic_handler(_SERVICE.full_name, {**methods, "DecideStream": stream})

    def _unary(self, handle):
        async def call(raw, context):
            self._sidecar.deadlines.append(context.time_remaining())
            return await self._reply(handle(raw), context)

        return call

    async def _stream(self, messages, context):
        held = []
        async for raw in messages:
            questions = pb.DecideStreamRequest.FromString(raw).questions
            self._sidecar.together.append(len(questions))
            for question in questions:
                hold = self._sidecar.holds_next
                said = self._sidecar.next(question.request, question.SerializeToString())
                if isinstance(said, Silence):
                    self.silent.set()
                    continue
                if isinstance(said, Abort):
                    await context.abort(said.code, said.details)
                held.append(pb.StreamAnswer(correlation_id=question.correlation_id, answer=_answer(said)))
                if not hold:
                    yield pb.DecideStreamResponse(answers=held[::-1])
                    held.clear()

    async def _reply(self, reply, context):
        if isinstance(reply, Silence):
            self.silent.set()
            await asyncio.Event().wait()  # ends when the caller's deadline or cancellation ends the call
        if isinstance(reply, Abort):
            await context.abort(reply.code, reply.details)
        return reply


def _bytes(message) -> bytes:
    return message.SerializeToString()


@dataclass(frozen=True)
class Running:
    address: str
    server: grpc.aio.Server
    silent: asyncio.Event  # set once a call has arrived that will not be answered


@asynccontextmanager
async def running(sidecar: FakeSidecar, directory: Path) -> AsyncIterator[Running]:
    """The script served by a real grpc.aio server on a unix socket."""
    address = f"unix:{directory / 'sidecar.sock'}"
    server = grpc.aio.server()
    servicer = _AsyncServicer(sidecar)
    server.add_generic_rpc_handlers((servicer.handler(),))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield Running(address, server, servicer.silent)
    finally:
        await server.stop(None)


class _Servicer(decision_pb2_grpc.DecisionServiceServicer):
    def __init__(self, sidecar: FakeSidecar) -> None:
        self._sidecar = sidecar

    def Decide(self, request, context):
        self._sidecar.deadlines.append(context.time_remaining())
        return self._reply(self._sidecar.decide(request.SerializeToString()), context)

    def ReportOutcome(self, request, context):
        self._sidecar.deadlines.append(context.time_remaining())
        return self._reply(self._sidecar.report(request.SerializeToString()), context)

    def _reply(self, reply, context):
        if isinstance(reply, Abort):
            context.abort(reply.code, reply.details)
        return reply


@contextmanager
def running_threads(sidecar: FakeSidecar, directory: Path) -> Iterator[str]:
    """The script served by a real grpc server with threads; yields its address."""
    address = f"unix:{directory / 'sidecar.sock'}"
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        decision_pb2_grpc.add_DecisionServiceServicer_to_server(_Servicer(sidecar), server)
        server.add_insecure_port(address)
        server.start()
        try:
            yield address
        finally:
            server.stop(None).wait()
