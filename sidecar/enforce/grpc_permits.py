"""The executor's door before a gRPC server: an RPC runs only under a permit for it.

    server = grpc.server(threads, interceptors=[PermitInterceptor(permits, reporter, wanted)])
    server = grpc.aio.server(interceptors=[AsyncPermitInterceptor(permits, async_reporter, wanted)])

    def wanted(method: str, request) -> Wanted | Free | None:      # what this call would do
        if method == "/bank.Payments/Transfer":
            return Wanted("payments.transfer", ("account", request.to), arguments_of(request))
        return FREE if method.startswith("/grpc.health.v1.Health/") else None    # None: nobody may

The agent asks with `arguments_of(request)` too, and sends the permit as the metadata `sidecar-permit-bin` (DOORS.md,
"Executors"). Calls whose request is a stream are refused: none of it is known when it begins.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from sidecar.chain.permit import Permit
from sidecar.client.act import Act
from sidecar.client.permits import PermitCheck, PermitRefused
from sidecar.client.reporter import AsyncReporter, Reporter
from sidecar.enforce.wanted import Free, Wanted
from sidecar.errors import RequestError

METADATA: Final = "sidecar-permit-bin"


def arguments_of(request: Message) -> bytes:
    """A message as the JSON text of arguments, the same on both sides: names as in the `.proto`, sorted.

    RequestError for one with fields that its definition does not have, also within an `Any`: they would be judged by
    nobody.
    """
    _check_known(request)
    read = MessageToDict(request, preserving_proto_field_name=True)  # a map's order differs from process to process
    return json.dumps(read, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _check_known(message: Message) -> None:
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() != message.ByteSize():
        raise RequestError("arguments", "the message has fields that its definition does not have")
    for packed in _packed(message):
        try:
            kind = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
            inner = GetMessageClass(kind).FromString(packed.value)
        except (KeyError, DecodeError):
            raise RequestError("arguments", "the message has an Any of a kind that is not known here") from None
        if inner.ByteSize() != len(packed.value):
            raise RequestError("arguments", "the message has an Any that could be written shorter")
        _check_known(inner)


def _packed(message: Message) -> Iterator[any_pb2.Any]:
    """Each `Any` in it, however deep, but for those within another."""
    if isinstance(message, any_pb2.Any):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        several = value.values() if isinstance(value, Mapping) else value if field.is_repeated else (value,)
        for each in several:
            if isinstance(each, Message):  # a map's values may be none
                yield from _packed(each)


class PermitInterceptor(grpc.ServerInterceptor):
    """``wanted`` is given the method and the request; None, or an exception of it, is PERMISSION_DENIED."""

    def __init__(
        self, permits: PermitCheck, reporter: Reporter, wanted: Callable[[str, Any], Wanted | Free | None]
    ) -> None:
        self._permits, self._reporter, self._wanted = permits, reporter, wanted

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of one RPC, guarded."""
        handler, details = continuation(handler_call_details), handler_call_details
        if handler is None:
            return None
        wire = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming:
            if handler.response_streaming:
                return grpc.stream_stream_rpc_method_handler(_no_streams, **wire)
            return grpc.stream_unary_rpc_method_handler(_no_streams, **wire)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(details, handler.unary_stream), **wire)
        return grpc.unary_unary_rpc_method_handler(self._single(details, handler.unary_unary), **wire)

    def _single(self, details: grpc.HandlerCallDetails, run: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            permit = self._permit(details, request, context)
            if permit is None:
                return run(request, context)
            try:
                with self._reporter.acting(permit) as act:
                    answer = run(request, context)
                    _check_code(act, context, answer)
                    return answer
            except _Failed as failed:
                return failed.answer

        return guarded

    def _streaming(self, details: grpc.HandlerCallDetails, run: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            permit = self._permit(details, request, context)
            if permit is None:
                yield from run(request, context)
                return
            try:
                with self._reporter.acting(permit) as act:
                    yield from run(request, context)
                    _check_code(act, context, None)
            except _Failed:
                return

        return guarded

    def _permit(self, details: grpc.HandlerCallDetails, request: Any, context: grpc.ServicerContext) -> Permit | None:
        """The permit, taken; None: none is needed. Aborts the call where there is none."""
        try:
            return _taken(self._permits, self._wanted, details, request)
        except PermitRefused as refused:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not done: {refused}")
        raise AssertionError("abort raises")


class AsyncPermitInterceptor(grpc.aio.ServerInterceptor):
    """`PermitInterceptor` for `grpc.aio`: services of coroutine functions and asynchronous generators, no others."""

    def __init__(
        self, permits: PermitCheck, reporter: AsyncReporter, wanted: Callable[[str, Any], Wanted | Free | None]
    ) -> None:
        self._permits, self._reporter, self._wanted = permits, reporter, wanted

    async def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of one RPC, guarded."""
        handler, details = await continuation(handler_call_details), handler_call_details
        if handler is None:
            return None
        wire = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        single, several = handler.unary_unary, handler.unary_stream
        if inspect.iscoroutinefunction(single):
            return grpc.unary_unary_rpc_method_handler(self._single(details, single), **wire)
        if inspect.isasyncgenfunction(several):
            return grpc.unary_stream_rpc_method_handler(self._streaming(details, several), **wire)
        kind = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
        make = getattr(grpc, f"{'_'.join(kind)}_rpc_method_handler")
        return make(_refused_stream if handler.response_streaming else _refused_single, **wire)

    def _single(self, details: grpc.HandlerCallDetails, run: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(request: Any, context: Any) -> Any:
            permit = await self._permit(details, request, context)
            if permit is None:
                return await run(request, context)
            try:
                async with self._reporter.acting(permit) as act:
                    answer = await run(request, context)
                    _check_code(act, context, answer)
                    return answer
            except _Failed as failed:
                return failed.answer

        return guarded

    def _streaming(self, details: grpc.HandlerCallDetails, run: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            permit = await self._permit(details, request, context)
            if permit is None:
                async for answer in run(request, context):
                    yield answer
                return
            try:
                async with self._reporter.acting(permit) as act:
                    async for answer in run(request, context):
                        yield answer
                    _check_code(act, context, None)
            except _Failed:
                return

        return guarded

    async def _permit(self, details: grpc.HandlerCallDetails, request: Any, context: Any) -> Permit | None:
        try:  # in a thread: what was taken may be kept in a file
            return await asyncio.to_thread(_taken, self._permits, self._wanted, details, request)
        except PermitRefused as refused:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not done: {refused}")
        raise AssertionError("abort raises")


def _taken(
    permits: PermitCheck, meant: Callable[[str, Any], Wanted | Free | None], details: Any, request: Any
) -> Permit | None:
    """The permit, taken; None: none is needed. Raises PermitRefused for whatever goes wrong."""
    try:
        wanted = meant(details.method, request)
    except RequestError as error:
        raise PermitRefused("arguments", str(error)) from None
    except Exception as error:
        raise PermitRefused("target", f"what it would do cannot be told: {type(error).__name__}") from error
    if isinstance(wanted, Free):
        return None
    if not isinstance(wanted, Wanted):
        raise PermitRefused("target", "nobody may do that here")
    brought = [value for name, value in details.invocation_metadata if name == METADATA]
    if len(brought) != 1 or not isinstance(brought[0], bytes):
        raise PermitRefused("forged", f"needs one {METADATA} in the metadata")
    try:
        return permits.check(brought[0], wanted.action, wanted.resource, wanted.arguments)
    except RequestError as error:
        raise PermitRefused("arguments", str(error)) from None


class _Failed(Exception):
    """The service has set a status that is no success."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


def _check_code(act: Act, context: Any, answer: Any) -> None:
    """Tells the status. Raises _Failed where it is no success."""
    code = context.code() or grpc.StatusCode.OK
    name = code.name if isinstance(code, grpc.StatusCode) else str(code)
    act.respond({"code": name}, status=name)
    if code not in (grpc.StatusCode.OK, 0):
        raise _Failed(answer)


def _no_streams(_: Any, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not done: streams of requests carry no permit")
    raise AssertionError("abort raises")


async def _refused_single(_: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not done: this kind of call carries no permit")


async def _refused_stream(_: Any, context: Any) -> AsyncIterator[Any]:
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not done: this kind of call carries no permit")
    yield None
