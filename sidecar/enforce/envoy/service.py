"""The services that Envoy calls: `Check` before a request goes on, the access log once it ended. No rules here.

Whatever goes wrong in `Check` is answered with a response in place of the action, and counted; what is the caller's
fault is recorded besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from sidecar.chain.digests import Outcome, arguments_digest
from sidecar.chain.strictjson import parse_object
from sidecar.decide import FAILED, Answer, DecisionPath, Observer, Unobserved, check_size, outcome_why, refusal_of
from sidecar.enforce.envoy import answers
from sidecar.enforce.envoy.asked import CUT, request_of
from sidecar.enforce.envoy.callers import named
from sidecar.enforce.envoy.conditions import CannotMeet, conditions_of
from sidecar.enforce.envoy.ended import Ended, ended
from sidecar.enforce.envoy.settings import EnvoySettings
from sidecar.enforce.envoy.v3 import access_log_pb2 as logs
from sidecar.enforce.envoy.v3 import ext_authz_pb2 as pb
from sidecar.enforce.refused import fault_of
from sidecar.errors import RequestError, SidecarError
from sidecar.identity import Shown, Transport, Voucher
from sidecar.ledger import Ledger

AUTHORIZATION: Final = "envoy.service.auth.v3.Authorization"
ACCESS_LOG: Final = "envoy.service.accesslog.v3.AccessLogService"

Context = grpc.aio.ServicerContext[bytes, Message]


class EnvoyDoor:
    """The door over one path and one ledger. ``transport``: what it proves of a call, or raises
    CallerUnproved; ``peer``: where a call comes from."""

    def __init__(
        self,
        path: DecisionPath,
        ledger: Ledger,
        settings: EnvoySettings,
        transport: Callable[[Any], Transport],
        peer: Callable[[Any], str],
        observer: Observer | None = None,
    ) -> None:
        self._path, self._ledger, self._settings = path, ledger, settings
        self._transport, self._peer = transport, peer
        self._observer: Observer = observer or Unobserved()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a server registers: raw bytes in, messages out."""
        check: grpc.RpcMethodHandler[bytes, Message] = grpc.unary_unary_rpc_method_handler(
            self._check, response_serializer=_serialized
        )
        log: grpc.RpcMethodHandler[bytes, Message] = grpc.stream_unary_rpc_method_handler(
            self._log, response_serializer=_serialized
        )
        return [
            grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": check}),
            grpc.method_handlers_generic_handler(ACCESS_LOG, {"StreamAccessLogs": log}),
        ]

    # --- before

    async def _check(self, raw: bytes, context: Context) -> Message:
        try:
            return await self._answered(raw, context)
        except asyncio.CancelledError:
            self._observer.unanswered("Check", grpc.StatusCode.CANCELLED.name)
            raise
        except Exception as error:
            return await self._refused(error, context)

    async def _answered(self, raw: bytes, context: Context) -> pb.CheckResponse:
        check_size(len(raw), self._path.limits)
        try:
            attributes = pb.CheckRequest.FromString(raw).attributes
        except DecodeError:
            raise RequestError("request", "is not a CheckRequest in protobuf wire form") from None
        agent, voucher = named(attributes.source, self._settings, self._path.holder)
        shown = Shown(self._transport(context), voucher=voucher)
        try:
            request = request_of(attributes, agent, self._settings)
        except RequestError as error:
            error.principal = self._path.known(agent, shown)  # who is nobody hears that; else `decide` proves it
            raise
        answer = await self._path.decide(request, shown, context.time_remaining())
        if answer.judged.verdict.effect != "ALLOW":
            return answers.denied(answer)
        return await self._allowed(answer, request.executor, context)

    async def _allowed(self, answer: Answer, executor: str, context: Context) -> pb.CheckResponse:
        """Go on, if all that the ALLOW asks can be done; else that is the outcome."""
        try:
            conditions = conditions_of(answer.judged.verdict.obligations)
        except CannotMeet as error:
            self._observer.unanswered("Check", grpc.StatusCode.FAILED_PRECONDITION.name)
            blocked = Ended(answer.decision_id, "blocked", "an obligation was not met")
            await self._ended(blocked, context, lambda: self._shown(context))
            return answers.unmet(answer, str(error))
        return answers.allowed(answer, conditions, permit=executor != self._settings.gateway)

    async def _refused(self, error: Exception, context: Context) -> pb.CheckResponse:
        """A response in place of the action, whatever went wrong."""
        try:
            theirs = fault_of(error)
            if theirs is not None and isinstance(error, SidecarError):
                code, status = theirs
                await self._path.refuse(self._peer(context), refusal_of(error, code, "Check"))
                self._observer.unanswered("Check", code)
                cut = isinstance(error, RequestError) and error.field == CUT
                return answers.refused(413 if cut else status, "refused", str(error))
        except Exception as worse:
            error = worse
        fault = "" if isinstance(error, SidecarError) else type(error).__name__
        self._observer.unanswered("Check", grpc.StatusCode.UNAVAILABLE.name, fault)
        return answers.refused(answers.UNDECIDED, "undecided", str(error) if not fault else FAILED)

    # --- after

    async def _log(self, raw: AsyncIterator[bytes], context: Context) -> Message:
        """The stream goes on as long as Envoy does: who it is was proved when it began, for its certificate may end."""
        proved = cache(lambda: self._shown(context))
        async for each in raw:
            try:
                entries = logs.StreamAccessLogsMessage.FromString(each).http_logs.log_entry
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request: is not a StreamAccessLogsMessage")
            told = [found for entry in entries if (found := ended(entry)) is not None]
            await asyncio.gather(*(self._ended(one, context, proved) for one in told))
        return logs.StreamAccessLogsResponse()

    def _shown(self, context: Context) -> Shown:
        """What proves the gateway of a call. Raises CallerUnproved."""
        return Shown(self._transport(context), voucher=Voucher(self._settings.gateway, self._settings.proof))

    async def _ended(self, said: Ended, context: Context, proved: Callable[[], Shown]) -> None:
        """Record one outcome; one that is not taken is refused as any other, and the stream goes on."""
        try:
            outcome = self._outcome(said)
            if outcome is None:
                return
            await self._path.report(outcome, proved())
        except SidecarError as error:
            await self._outcome_refused(error, context)
        except Exception as error:
            self._observer.unanswered("StreamAccessLogs", grpc.StatusCode.INTERNAL.name, type(error).__name__)

    def _outcome(self, said: Ended) -> Outcome | None:
        """What the gateway reports, under its permit; None where another executor reports."""
        found = self._ledger.decision(said.decision_id)
        decision = found.payload
        executor = decision["executor"]
        if executor is not None and executor["id"] != self._settings.gateway:
            return None
        arguments = decision["request"]["arguments"].encode()
        status, told = said.status, said.downstream_status
        if _more(arguments, said):
            status, told = "failed", f"unknown {told}: more was sent than was judged"[:256]
        return Outcome(
            self._settings.gateway,
            said.decision_id,
            status,
            said.response,
            permit=self._ledger.permit(found.seq, decision),
            arguments_digest=arguments_digest(arguments),
            downstream_status=told,
            started_ns=said.started_ns,
            duration_ns=said.duration_ns,
        )

    async def _outcome_refused(self, error: SidecarError, context: Context) -> None:
        code, _ = fault_of(error) or ("", 0)
        self._observer.unanswered("StreamAccessLogs", code or grpc.StatusCode.UNAVAILABLE.name)
        if not code:
            return  # the ledger's: the outcome is missing, and shows as that
        self._observer.outcome_refused(outcome_why(error))
        try:
            await self._path.refuse(self._peer(context), refusal_of(error, code, "ReportOutcome"))
        except SidecarError:
            self._observer.unanswered("StreamAccessLogs", grpc.StatusCode.UNAVAILABLE.name)


def _more(arguments: bytes, said: Ended) -> bool:
    """Whether the request's body was longer than the one that was judged."""
    judged = parse_object(arguments).get("body_size")
    return said.status != "blocked" and isinstance(judged, int) and said.sent > judged


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
