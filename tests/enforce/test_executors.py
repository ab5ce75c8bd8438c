"""The doors of executors: a request runs only under a permit for it, once, and the executor tells what became of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.any_pb2 import Any as Any_
from google.protobuf.struct_pb2 import Struct
from google.protobuf.type_pb2 import Enum, Option
from google.protobuf.wrappers_pb2 import StringValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.client import AgentKey, Guard
from sidecar.client.permits import PermitCheck
from sidecar.client.reporter import AsyncReporter, Reporter
from sidecar.enforce.asgi import PermitMiddleware
from sidecar.enforce.grpc_permits import METADATA, AsyncPermitInterceptor, PermitInterceptor, arguments_of
from sidecar.enforce.wanted import FREE, Free, Wanted
from sidecar.errors import RequestError
from sidecar.ledger import ledger_stream
from tests.people import key, person, registry_text
from tests.program import made, serving

AGENT, EXECUTOR = "billing-agent", "crm-api"


@dataclass(frozen=True)
class Place:
    """A sidecar with an agent and an executor, and what the executor pinned of it."""

    ledger: Path
    address: str
    chain: str
    identity: str

    def entries(self, kind: str) -> list[dict[str, Any]]:
        with ledger_stream(self.ledger) as read:
            payloads = [entry(body)[1] for what, body in records(read) if what is Kind.ENTRY]
        return [payload for payload in payloads if payload["type"] == kind]

    def outcome(self, decision_id: str) -> dict[str, Any] | None:
        return next((each for each in self.entries("OUTCOME") if each["decision_id"] == decision_id), None)

    def permits(self) -> PermitCheck:
        return PermitCheck(chain=self.chain, identity=self.identity, executor=EXECUTOR)

    def allowed(self, resource: str, arguments: Any) -> tuple[str, bytes]:
        """An ALLOW of the agent's question: its decision's id and the permit."""
        with Guard(self.address, agent=AGENT, key=AgentKey(key(AGENT)), timeout=30.0) as guard:
            decision = guard.check("crm.read", ("customer", resource), arguments, executor=EXECUTOR)
        return decision.decision_id, decision.permit


@contextmanager
def placed(directory: Path) -> Iterator[Place]:
    ledger, _ = made(directory)
    registry = directory / "registry.json"
    registry.write_bytes(registry_text(person(AGENT, "agent"), person(EXECUTOR, "executor")))
    with ledger_stream(ledger) as read:
        header, genesis = next(entry(body) for what, body in records(read) if what is Kind.ENTRY)
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        yield Place(ledger, server.address, header.chain_id.hex(), genesis["identity"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("executors")) as served:
        yield served


@dataclass
class Service:
    """An application behind the door. ``ran``: the bodies that it has acted on; ``ask``: one request to it."""

    ran: list[bytes]
    ask: Callable[..., Any]


def wanted(scope: Any, body: bytes) -> Wanted | Free | None:
    path = scope["path"]
    if path == "/health":
        return FREE
    if path == "/broken":
        raise ZeroDivisionError
    return Wanted("crm.read", ("customer", path.rpartition("/")[2]), body) if path.startswith("/customers/") else None


@asynccontextmanager
async def service(place: Place, **more: Any) -> AsyncIterator[Service]:
    ran: list[bytes] = []

    async def act(request: Request) -> Response:
        ran.append(await request.body())
        if request.method == "PUT":
            raise ValueError("broke")
        if request.method == "PATCH":
            return JSONResponse({"no": "such customer"}, 404)
        return JSONResponse({"done": request.scope["sidecar.act"].permit.decision_id})

    async def health(request: Request) -> Response:
        return PlainTextResponse("fine")

    routes = [
        Route("/customers/{name}", act, methods=["POST", "PUT", "PATCH"]),
        Route("/health", health),
        Route("/other", act, methods=["POST"]),
        Route("/broken", act, methods=["POST"]),
    ]
    async with AsyncReporter(
        place.address, executor=EXECUTOR, key=AgentKey(key(EXECUTOR)), chain=place.chain, timeout=30.0
    ) as reporter:
        app = PermitMiddleware(
            Starlette(routes=routes), permits=place.permits(), reporter=reporter, wanted=wanted, **more
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://crm") as client:
            yield Service(ran, client.request)


def header(permit: bytes) -> dict[str, str]:
    return {"sidecar-permit": base64.urlsafe_b64encode(permit).decode().rstrip("=")}


BODY = b'{"name":"Acme GmbH"}'


def test_a_request_runs_once_under_a_permit_for_it_and_is_reported(place: Place) -> None:
    async def story() -> None:
        async with service(place) as it:
            ends = {"POST": (200, "executed"), "PATCH": (404, "failed"), "PUT": (500, "failed")}
            for method, (status, outcome) in ends.items():
                decision, permit = await asyncio.to_thread(place.allowed, "a", BODY)
                done = await it.ask(method, "/customers/a", content=BODY, headers=header(permit))
                assert done.status_code == status and it.ran.pop() == BODY
                told = place.outcome(decision)
                assert told is not None and told["status"] == outcome
                again = await it.ask(method, "/customers/a", content=BODY, headers=header(permit))
                assert (again.status_code, again.json()["cause"]) == (403, "used")
            assert it.ran == [] and (await it.ask("GET", "/health")).text == "fine"

    asyncio.run(story())


def test_a_request_without_its_own_permit_does_not_run(place: Place) -> None:
    async def story() -> None:
        async with service(place, body_bytes=100) as it:
            _, permit = await asyncio.to_thread(place.allowed, "a", BODY)
            good = header(permit)
            cases: list[tuple[str, bytes, Any, int, str]] = [
                ("/customers/a", BODY, {}, 403, "missing"),
                ("/customers/a", BODY, {"sidecar-permit": "not base64!"}, 403, "forged"),
                ("/customers/a", BODY, {"sidecar-permit": "AAAA"}, 403, "forged"),
                ("/customers/a", BODY, [*good.items(), *good.items()], 403, "forged"),
                ("/customers/b", BODY, good, 403, "target"),
                ("/customers/a", BODY + b" ", good, 403, "arguments"),
                ("/customers/a", BODY * 9, good, 413, "body"),
                ("/other", BODY, good, 403, "unknown"),
                ("/broken", BODY, good, 403, "unknown"),
            ]
            for path, body, headers, status, cause in cases:
                done = await it.ask("POST", path, content=body, headers=headers)
                assert (done.status_code, done.json()["cause"]) == (status, cause)
            assert it.ran == []
            assert (await it.ask("POST", "/customers/a", content=BODY, headers=good)).status_code == 200

    asyncio.run(story())


def test_a_body_that_breaks_off_and_a_web_socket_are_refused(place: Place) -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the application ran")

    async def spoken(scope: dict[str, Any], *messages: dict[str, Any]) -> list[Any]:
        sent: list[Any] = []
        coming = iter(messages)

        async def receive() -> Any:
            return next(coming)

        async def send(message: Any) -> None:
            sent.append(message)

        reporter = AsyncReporter(place.address, executor=EXECUTOR, key=None, chain=place.chain)
        door = PermitMiddleware(never, permits=place.permits(), reporter=reporter, wanted=wanted)
        await door({"path": "/customers/a", "headers": [], **scope}, receive, send)
        return sent

    part = {"type": "http.request", "body": b"{", "more_body": True}
    broken = asyncio.run(spoken({"type": "http"}, part, {"type": "http.disconnect"}))
    assert broken[0]["status"] == 400
    (closed,) = asyncio.run(spoken({"type": "websocket"}, {"type": "websocket.connect"}))
    assert closed["type"] == "websocket.close"


# --- gRPC

SERVICE = "crm.Customers"


def meant(method: str, request: Any) -> Wanted | Free | None:
    if method.endswith("/Health"):
        return FREE
    if method.endswith("/Broken"):
        raise ZeroDivisionError
    known = method.endswith(("/Write", "/List"))
    return Wanted("crm.read", ("customer", request["id"]), arguments_of(request)) if known else None


@pytest.fixture
def ran() -> list[Any]:
    return []


@pytest.fixture
def channel(place: Place, ran: list[Any]) -> Iterator[grpc.Channel]:
    """A service that takes and gives `google.protobuf.Struct`."""

    def write(request: Struct, context: grpc.ServicerContext) -> Struct:
        ran.append(request)
        if "raise" in request:
            raise ValueError("broke")
        if "abort" in request:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such customer")
        if "code" in request:
            context.set_code(grpc.StatusCode.NOT_FOUND)
        return request

    def listing(request: Struct, context: grpc.ServicerContext) -> Iterator[Struct]:
        ran.append(request)
        yield request
        if "raise" in request:
            raise ValueError("broke")
        yield request

    def health(request: Struct, context: grpc.ServicerContext) -> Struct:
        return request

    wire: dict[str, Any] = {"request_deserializer": Struct.FromString, "response_serializer": Struct.SerializeToString}
    single = dict.fromkeys(("Write", "Other", "Broken"), grpc.unary_unary_rpc_method_handler(write, **wire))
    handlers = {
        **single,
        "Health": grpc.unary_unary_rpc_method_handler(health, **wire),
        "List": grpc.unary_stream_rpc_method_handler(listing, **wire),
        "Send": grpc.stream_unary_rpc_method_handler(write, **wire),
        "Talk": grpc.stream_stream_rpc_method_handler(listing, **wire),
    }
    reporter = Reporter(place.address, executor=EXECUTOR, key=AgentKey(key(EXECUTOR)), chain=place.chain, timeout=30.0)
    door = PermitInterceptor(place.permits(), reporter, meant)
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[door])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with reporter, grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
        server.stop(None).wait()


def struct(**members: Any) -> Struct:
    made = Struct()
    made.update({"id": "a", **members})
    return made


def with_unknown(**members: Any) -> Struct:
    """A message with a field more than its definition has, which whoever hands it on would hand on too."""
    return Struct.FromString(struct(**members).SerializeToString() + b"\xc2\x3e\x01x")


def called(channel: grpc.Channel, method: str, request: Any, *permits: bytes) -> Any:
    kind = {"List": "unary_stream", "Send": "stream_unary", "Talk": "stream_stream"}.get(method, "unary_unary")
    stub = getattr(channel, kind)(f"/{SERVICE}/{method}", Struct.SerializeToString, Struct.FromString)
    given = iter([request]) if kind.startswith("stream") else request
    answer = stub(given, metadata=[(METADATA, permit) for permit in permits], timeout=30.0)
    return list(answer) if kind.endswith("stream") else answer


def runs_once(place: Place, channel: grpc.Channel, ran: list[Any], method: str, request: Struct, status: str) -> None:
    """Under its permit, and is reported; under the same permit again it does not run. ``ran`` is left empty."""
    decision, permit = place.allowed("a", arguments_of(request))
    if status == "executed":
        assert called(channel, method, request, permit)
    else:
        with pytest.raises(grpc.RpcError) as caught:
            called(channel, method, request, permit)
        assert caught.value.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND), caught.value
    assert ran == [request]
    told = place.outcome(decision)
    assert told is not None and told["status"] == status
    with pytest.raises(grpc.RpcError, match="was taken before"):
        called(channel, method, request, permit)
    assert ran == [request]
    ran.clear()


def test_the_same_message_has_the_same_arguments_whatever_the_order_of_its_maps() -> None:
    there, back = Struct(), Struct()
    there.update({"b": 1, "a": {"d": "ü", "c": [True]}})
    back.update({"a": {"c": [True], "d": "ü"}, "b": 1})
    assert arguments_of(there) == arguments_of(back) == '{"a":{"c":[true],"d":"ü"},"b":1.0}'.encode()


def test_what_an_any_holds_beside_its_json_is_refused() -> None:
    """It had the arguments of the message without it, and ran under their permit."""
    packed = Any_()
    packed.Pack(StringValue(value="x"))
    deep = Enum(options=[Option(value=packed)])
    assert b'"value":"x"' in arguments_of(packed) and b'"value":"x"' in arguments_of(deep)
    for value in (packed.value + b"\x4a\x03abc", b"\x0a\x01y" + packed.value, b"\x0a\x02y"):
        bad = Any_(type_url=packed.type_url, value=value)
        around = Any_()
        around.Pack(bad)
        for message in (bad, around, Enum(options=[Option(value=packed), Option(value=bad)])):
            with pytest.raises(RequestError, match="the message has"):
                arguments_of(message)
    with pytest.raises(RequestError, match="of a kind that is not known here"):
        arguments_of(Any_(type_url="type.googleapis.com/no.such.Kind", value=b""))


@pytest.mark.parametrize(
    ("method", "how", "status"),
    [
        ("Write", "ok", "executed"),
        ("Write", "raise", "failed"),
        ("Write", "abort", "failed"),
        ("Write", "code", "failed"),
        ("List", "ok", "executed"),
        ("List", "raise", "failed"),
    ],
)
def test_an_rpc_runs_once_under_a_permit_for_it_and_is_reported(
    place: Place, channel: grpc.Channel, ran: list[Any], method: str, how: str, status: str
) -> None:
    runs_once(place, channel, ran, method, struct(**{how: True}), status)


def test_an_rpc_without_its_own_permit_does_not_run(place: Place, channel: grpc.Channel, ran: list[Any]) -> None:
    _, permit = place.allowed("a", arguments_of(struct()))
    refused: list[tuple[str, Struct, tuple[bytes, ...], str]] = [
        ("Write", struct(), (), "needs one sidecar-permit-bin"),
        ("Write", struct(), (permit, permit), "needs one sidecar-permit-bin"),
        ("Write", struct(), (b"forged",), "not a permit of this chain"),
        ("Write", struct(more=1), (permit,), "other arguments"),
        ("Write", with_unknown(), (permit,), "fields that its definition does not have"),
        ("Write", struct(id="b"), (permit,), "another action or resource"),
        ("Other", struct(), (permit,), "nobody may do that here"),
        ("Broken", struct(), (permit,), "cannot be told: ZeroDivisionError"),
        ("Send", struct(), (permit,), "streams of requests carry no permit"),
        ("Talk", struct(), (permit,), "streams of requests carry no permit"),
    ]
    for method, request, permits, why in refused:
        with pytest.raises(grpc.RpcError, match=why) as caught:
            called(channel, method, request, *permits)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert ran == []
    assert called(channel, "Health", struct())
    assert called(channel, "Write", struct(), permit) and len(ran) == 1


def test_an_asynchronous_server_has_the_same_door(place: Place) -> None:
    ran: list[Any] = []

    async def write(request: Struct, context: Any) -> Struct:
        ran.append(request)
        if "raise" in request:
            raise ValueError("broke")
        if "code" in request:
            context.set_code(grpc.StatusCode.NOT_FOUND)
        return request

    async def listing(request: Struct, context: Any) -> AsyncIterator[Struct]:
        ran.append(request)
        yield request
        if "raise" in request:
            raise ValueError("broke")

    def plain(request: Struct, context: Any) -> Struct:
        ran.append(request)
        return request

    wire: dict[str, Any] = {"request_deserializer": Struct.FromString, "response_serializer": Struct.SerializeToString}
    handlers = {
        **dict.fromkeys(("Write", "Other", "Broken", "Health"), grpc.unary_unary_rpc_method_handler(write, **wire)),
        "List": grpc.unary_stream_rpc_method_handler(listing, **wire),
        "Plain/Write": grpc.unary_unary_rpc_method_handler(plain, **wire),
        "Send": grpc.stream_unary_rpc_method_handler(write, **wire),
        "Talk": grpc.stream_stream_rpc_method_handler(listing, **wire),
    }

    def story(port: int) -> None:
        """The client, in a thread."""
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for method, how, status in (
                ("Write", "ok", "executed"),
                ("Write", "raise", "failed"),
                ("Write", "code", "failed"),
                ("List", "ok", "executed"),
                ("List", "raise", "failed"),
            ):
                runs_once(place, channel, ran, method, struct(**{how: method}), status)
            _, permit = place.allowed("a", arguments_of(struct()))
            for method, permits in (
                ("Write", ()), ("Write", (b"forged",)), ("Other", (permit,)), ("Broken", (permit,)),
                ("Plain/Write", (permit,)), ("Send", (permit,)), ("Talk", (permit,)),
            ):  # fmt: skip
                with pytest.raises(grpc.RpcError) as caught:
                    called(channel, method, struct(), *permits)
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert ran == []
            assert called(channel, "Health", struct()) and called(channel, "Write", struct(), permit)

    async def main() -> None:
        async with AsyncReporter(
            place.address, executor=EXECUTOR, key=AgentKey(key(EXECUTOR)), chain=place.chain, timeout=30.0
        ) as reporter:
            server = grpc.aio.server(interceptors=[AsyncPermitInterceptor(place.permits(), reporter, meant)])
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            await asyncio.to_thread(story, port)
            await server.stop(None)

    asyncio.run(main())
