"""The gRPC services of decision.proto: parse, hand to the path, answer. No rules here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial

import grpc
import grpc.aio
from google.protobuf.message import Message

from sidecar.api import messages, wire
from sidecar.api.approvals import APPROVALS, ApprovalMethods
from sidecar.api.status import REFUSALS, code_of
from sidecar.api.streaming import Question, answers
from sidecar.api.transports import Context, Transports, peer_of, trace_parent_of
from sidecar.decide import (
    FAILED,
    Answer,
    DecisionPath,
    Observer,
    Tracing,
    Unobserved,
    Untraced,
    check_size,
    named_in,
    outcome_why,
    refusal_of,
)
from sidecar.errors import CallerUnproved, NotPermitted, OtherEpoch, RequestError, SidecarError
from sidecar.ledger import Entry, Ledger
from sidecar.v1 import decision_pb2 as pb

DECISIONS = "sidecar.v1.DecisionService"
LEDGER = "sidecar.v1.LedgerService"
NAMES = (DECISIONS, APPROVALS, LEDGER)

MAX_BATCH = 64
EPOCH = "sidecar-epoch"

Method = Callable[[bytes, Context], Awaitable[Message]]
Refuse = Callable[[SidecarError, Context, str], Awaitable[SidecarError]]


def _parents(asked: pb.DecideRequest, context: Context) -> Iterator[str]:
    """The `traceparent`s that came with a question: its own, the call's."""
    yield asked.trace_parent
    yield trace_parent_of(context)


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= MAX_BATCH:
        raise RequestError(field, f"has {count} members; from 1 to {MAX_BATCH} are allowed")


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


class _WaitedFor:
    """Tells the observer of calls whose caller went away; it may be entered for many at once."""

    def __init__(self, name: str, observer: Observer) -> None:
        self._name, self._observer = name, observer

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            self._observer.unanswered(self._name, grpc.StatusCode.CANCELLED.name)


class Services:
    """The methods of all services over one path and one ledger."""

    def __init__(
        self,
        path: DecisionPath,
        ledger: Ledger,
        observer: Observer | None = None,
        transports: Transports | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._path = path
        self._transports = transports or Transports()
        self._approvals = ApprovalMethods(path.approvals, self._transports)
        self._ledger = ledger
        self._observer: Observer = observer or Unobserved()
        self._tracing: Tracing = tracing or Untraced()
        self._chain = ledger.position().chain_id.hex()
        self._proving = asyncio.Lock()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a server registers: raw bytes in, messages out."""
        decisions: dict[str, Method] = {
            "Decide": self._decide,
            "DecideBatch": self._batch,
            "ReportOutcome": self._report,
        }
        ledger: dict[str, Method] = {"Head": self._head, "GetEntry": self._entry, "Prove": self._prove}
        methods = {name: self._unary(name, method, self._recorded) for name, method in decisions.items()}
        stream: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._stream)
        watch: grpc.RpcMethodHandler[bytes, Message] = grpc.unary_stream_rpc_method_handler(
            self._watch, response_serializer=_serialized
        )
        approvals = {
            "ListApprovals": self._unary("ListApprovals", self._approvals.list, self._answered),
            "Approve": self._unary("Approve", self._approvals.approve, self._recorded),
            "WatchApproval": watch,
        }
        return [
            grpc.method_handlers_generic_handler(APPROVALS, approvals),
            grpc.method_handlers_generic_handler(DECISIONS, {**methods, "DecideStream": stream}),
            grpc.method_handlers_generic_handler(
                LEDGER, {name: self._unary(name, method, self._answered) for name, method in ledger.items()}
            ),
        ]

    def _unary(self, name: str, method: Method, refuse: Refuse) -> grpc.RpcMethodHandler[bytes, Message]:
        return grpc.unary_unary_rpc_method_handler(self._guarded(name, method, refuse), response_serializer=_serialized)

    def _guarded(self, name: str, behaviour: Method, refuse: Refuse) -> Method:
        waited_for = _WaitedFor(name, self._observer)

        async def call(raw: bytes, context: Context) -> Message:
            with waited_for:
                try:
                    check_size(len(raw), self._path.limits)
                    return await behaviour(raw, context)
                except Exception as error:
                    code, said = await self._no_answer(name, error, refuse, context)
                await context.abort(code, said)
            raise AssertionError("abort raises")

        return call

    async def _no_answer(
        self, name: str, error: Exception, refuse: Refuse, context: Context
    ) -> tuple[grpc.StatusCode, str]:
        """What to say in place of an answer, whatever went wrong; the observer is told."""
        try:
            if isinstance(error, SidecarError):
                error = await refuse(error, context, name)
                if isinstance(error, OtherEpoch):
                    context.set_trailing_metadata(((EPOCH, str(error.epoch)),))
        except Exception as worse:
            error = worse
        if not isinstance(error, SidecarError):
            self._observer.unanswered(name, grpc.StatusCode.INTERNAL.name, type(error).__name__)
            return grpc.StatusCode.INTERNAL, FAILED
        self._observer.unanswered(name, code_of(error).name)
        return code_of(error), str(error)

    async def _answered(self, error: SidecarError, context: Context, name: str) -> SidecarError:
        """Reads leave no trace in the ledger, but for readers who are not who they must be."""
        told = isinstance(error, CallerUnproved | NotPermitted)
        return await self._recorded(error, context, name) if told else error

    async def _recorded(self, error: SidecarError, context: Context, name: str) -> SidecarError:
        """The error to answer, once a refusal of the call ``name`` that is the caller's is in the ledger."""
        if not isinstance(error, REFUSALS):
            return error
        if name == "ReportOutcome":
            self._observer.outcome_refused(outcome_why(error))
        try:
            await self._path.refuse(peer_of(context), refusal_of(error, code_of(error).name, name))
        except SidecarError as unrecorded:
            return unrecorded
        return error

    async def _decide(self, raw: bytes, context: Context) -> pb.DecideResponse:
        response = pb.DecideResponse()
        messages.write_answer(await self._made("Decide", wire.parse(pb.DecideRequest, raw), context), response)
        return response

    async def _made(self, name: str, asked: pb.DecideRequest, context: Context) -> Answer:
        with self._tracing.question(name, _parents(asked, context)) as span:
            try:
                request, with_it = messages.request_of(asked), self._transports.shown(context, asked.signature)
                answer = await self._path.decide(request, with_it, context.time_remaining())
            except SidecarError as error:
                span.failed(code_of(error).name)
                raise
            span.decided(answer, self._chain)
            return answer

    async def _batch(self, raw: bytes, context: Context) -> pb.DecideBatchResponse:
        requests = wire.parse(pb.DecideBatchRequest, raw).requests
        _check_count("requests", len(requests))
        response = pb.DecideBatchResponse()
        places = [(request, response.answers.add()) for request in requests]
        await asyncio.gather(*(self._answer("DecideBatch", context, request, 0, to) for request, to in places))
        return response

    async def _stream(self, raw: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async def asked() -> AsyncIterator[Sequence[Question]]:
            async for each in raw:
                questions = wire.parse(pb.DecideStreamRequest, each).questions
                _check_count("questions", len(questions))
                yield [(q, q.ByteSize()) for q in questions]

        with _WaitedFor("DecideStream", self._observer):
            try:
                async for each in answers(asked(), partial(self._answer, "DecideStream", context)):
                    yield each
                return
            except Exception as error:
                code, said = await self._no_answer("DecideStream", error, self._recorded, context)
            await context.abort(code, said)

    async def _watch(self, raw: bytes, context: Context) -> AsyncIterator[pb.ApprovalState]:
        with _WaitedFor("WatchApproval", self._observer):
            try:
                check_size(len(raw), self._path.limits)
                async for each in self._approvals.watch(raw, context):
                    yield each
                return
            except Exception as error:
                code, said = await self._no_answer("WatchApproval", error, self._answered, context)
            await context.abort(code, said)

    async def _answer(self, name: str, context: Context, asked: pb.DecideRequest, size: int, to: pb.Answer) -> None:
        """Write one of several: its decision, or why there is none. ``size``: of its own message, bytes."""
        try:
            check_size(size, self._path.limits)
            messages.write_answer(await self._made(name, asked, context), to.decision)
        except Exception as error:
            code, said = await self._no_answer(name, error, self._recorded, context)
            to.refusal.code, to.refusal.message = code.value[0], said  # in place of a decision, whatever is written

    async def _report(self, raw: bytes, context: Context) -> pb.ReportOutcomeResponse:
        report = wire.parse(pb.ReportOutcomeRequest, raw)
        with self._tracing.question("ReportOutcome", map(trace_parent_of, (context,))):
            recorded = await self._path.report(
                messages.outcome_of(report), self._transports.shown(context, report.signature)
            )
        return pb.ReportOutcomeResponse(seq=recorded.seq, receipt=recorded.receipt)

    async def _head(self, raw: bytes, context: Context) -> pb.HeadResponse:
        wire.parse(pb.HeadRequest, raw)
        self._transports.of(context)  # nobody need sign for this, but no certificate may be wrong
        at = self._ledger.position()
        return pb.HeadResponse(
            chain_id=at.chain_id, next_seq=at.next_seq, segment=at.segment, head=at.head, last_seal=at.last_seal,
            epoch=at.epoch,
        )  # fmt: skip

    async def _entry(self, raw: bytes, context: Context) -> pb.GetEntryResponse:
        request = wire.parse(pb.GetEntryRequest, raw)
        which = request.WhichOneof("which")
        if which is None:
            raise RequestError("which", "is not given: name a seq or a decision_id")
        parameter = str(request.seq) if which == "seq" else request.decision_id
        reader = self._path.reader(request.by, "entry", parameter, self._transports.shown(context, request.signature))
        seq = request.seq if which == "seq" else self._ledger.decision(request.decision_id).seq
        entry = self._readable(seq, reader)
        return pb.GetEntryResponse(
            seq=entry.seq,
            segment=entry.segment,
            header=entry.header,
            tag=entry.tag,
            salt=entry.salt,
            payload=entry.payload,
        )

    def _readable(self, seq: int, reader: str | None) -> Entry:
        """The entry, if ``reader`` (None: anybody) is one whom it names."""
        entry = self._ledger.entry(seq)
        if reader is not None and reader not in named_in(self._ledger.payload(seq)):
            raise NotPermitted("by: the entry names others; it is shown to those it names alone", "name", reader)
        return entry

    async def _prove(self, raw: bytes, context: Context) -> pb.ProveResponse:
        request = wire.parse(pb.ProveRequest, raw)
        reader = self._path.reader(
            request.by, "entry", str(request.seq), self._transports.shown(context, request.signature)
        )
        self._readable(request.seq, reader)
        async with self._proving:  # each reads a whole segment: many at once would have all threads that there are
            proof = await asyncio.to_thread(self._ledger.prove, request.seq)
        return pb.ProveResponse(leaf_input=proof.leaf_input, index=proof.index, path=proof.path, seal=proof.seal)
