"""A sidecar that answers from a script, to put faults where a real one has none; it keeps what it hears."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc_testing

from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc

_SERVICE = pb.DESCRIPTOR.services_by_name["DecisionService"]
_EFFECT_NAMES = {pb.EFFECT_ALLOW: "ALLOW", pb.EFFECT_DENY: "DENY", pb.EFFECT_REQUIRE_APPROVAL: "REQUIRE_APPROVAL"}


@dataclass(frozen=True)
class Abort:
    """An answer that is a gRPC status."""

    code: grpc.StatusCode
    details: str = "said by the script"


class Silence:
    """No answer until the caller gives up (asyncio server only)."""


def receipt(decision_id: str, effect: str) -> bytes:
    """A note of the right form; its signature is of nobody, and this client does not check it."""
    lines = f"sidecar/v1/head\nchain 00\nseq 7\ndecision {decision_id}\neffect {effect}\n"
    return f"{lines}\n— sidecar.example/test AAAAAAAA\n".encode()


def answer(effect: int, decision_id: str = "d-1", **fields: object) -> pb.DecideResponse:
    whole = {"receipt": receipt(decision_id, _EFFECT_NAMES.get(effect, "ALLOW")), "seq": 7, **fields}
    return pb.DecideResponse(effect=effect, decision_id=decision_id, **whole)


def allow(decision_id: str = "d-1", **fields: object) -> pb.DecideResponse:
    return answer(pb.EFFECT_ALLOW, decision_id, **fields)


def deny(decision_id: str = "d-1", **fields: object) -> pb.DecideResponse:
    fields.setdefault("reasons", [pb.Reason(code="amount_over_limit", message="120 is over\nthe limit of 100")])
    return answer(pb.EFFECT_DENY, decision_id, **fields)


Scripted = pb.DecideResponse | Abort | Silence


class FakeSidecar:
    """``asked`` and ``told`` are the requests that arrived, in order; ``report_fault`` answers every report."""

    def __init__(self, *answers: Scripted, report_fault: Abort | Silence | None = None) -> None:
        self.asked: list[pb.DecideRequest] = []
        self.told: list[pb.ReportOutcomeRequest] = []
        self.deadlines: list[float | None] = []  # seconds left when a call came over a real socket
        self._answers = deque(answers)
        self._report_fault = report_fault

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """What was reported: decision id and status."""
        return [(t.decision_id, pb.OutcomeStatus.Name(t.status).removeprefix("OUTCOME_STATUS_")) for t in self.told]

    def decide(self, request: pb.DecideRequest) -> Scripted:
        self.asked.append(request)
        return self._answers.popleft() if self._answers else Abort(grpc.StatusCode.UNKNOWN, "the script has ended")

    def report(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse | Abort | Silence:
        self.told.append(request)
        return self._report_fault or pb.ReportOutcomeResponse(seq=8, receipt=b"after " + request.decision_id.encode())


def scripted_channel(sidecar: FakeSidecar) -> grpc.Channel:
    """grpcio-testing's channel, answered from the script by one thread for each method."""
    channel = grpc_testing.channel([_SERVICE], grpc_testing.strict_real_time())
    for name, handle in (("Decide", sidecar.decide), ("ReportOutcome", sidecar.report)):
        method = _SERVICE.methods_by_name[name]
        threading.Thread(target=_serve, args=(channel, method, handle), daemon=True).start()
    return channel


def _serve(channel, method, handle) -> None:
    while True:
        _metadata, request, rpc = channel.take_unary_unary(method)
        reply = handle(request)
        rpc.send_initial_metadata(())
        if isinstance(reply, Abort):
            rpc.terminate(None, (), reply.code, reply.details)
        else:
            rpc.terminate(reply, (), grpc.StatusCode.OK, "")


class _AsyncServicer(decision_pb2_grpc.DecisionServiceServicer):
    def __init__(self, sidecar: FakeSidecar) -> None:
        self._sidecar = sidecar
        self.silent = asyncio.Event()

    async def Decide(self, request, context):
        self._sidecar.deadlines.append(context.time_remaining())
        return await self._reply(self._sidecar.decide(request), context)

    async def ReportOutcome(self, request, context):
        self._sidecar.deadlines.append(context.time_remaining())
        return await self._reply(self._sidecar.report(request), context)

    async def _reply(self, reply, context):
        if isinstance(reply, Silence):
            self.silent.set()
            await asyncio.Event().wait()  # ends when the caller's deadline or cancellation ends the call
        if isinstance(reply, Abort):
            await context.abort(reply.code, reply.details)
        return reply


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
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(servicer, server)
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
        return self._reply(self._sidecar.decide(request), context)

    def ReportOutcome(self, request, context):
        self._sidecar.deadlines.append(context.time_remaining())
        return self._reply(self._sidecar.report(request), context)

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
