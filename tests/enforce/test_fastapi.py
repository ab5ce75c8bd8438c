"""The executor's door before FastAPI: nothing of an application runs without a permit, and its true end is reported."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, UploadFile, WebSocket
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.websockets import WebSocketDisconnect

from sidecar.client import AgentKey
from sidecar.client.reporter import AsyncReporter
from sidecar.enforce.asgi import PermitMiddleware
from sidecar.enforce.wanted import FREE, Free, Wanted
from tests.enforce.test_executors import EXECUTOR, Place, header, placed
from tests.people import key


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("fastapi")) as served:
        yield served


JSON = {"content-type": "application/json"}


class Customer(BaseModel):
    name: str


async def connection(request: Request) -> AsyncIterator[str]:
    request.app.state.ran.append("opened")
    yield "connection"
    request.app.state.ran.append("closed")


@dataclass
class Service:
    """``ran``: each piece of the application that has run."""

    ran: list[str] = field(default_factory=list)

    def application(self) -> FastAPI:
        app = FastAPI()
        ran = self.ran

        @app.post("/customers/{name}")
        async def write(
            name: str, customer: Customer, later: BackgroundTasks, held: Annotated[str, Depends(connection)]
        ) -> dict[str, str]:
            ran.append(f"wrote {customer.name}")
            if customer.name == "conflict":
                raise HTTPException(409, "no")
            if customer.name == "broken":
                raise ValueError("broke")
            later.add_task(self.afterwards, customer.name)
            return {"name": name, "held": held}

        @app.post("/streams/{name}")
        def stream(name: str) -> StreamingResponse:
            def pieces() -> Iterator[str]:
                yield "one"
                ran.append("streamed")
                if name == "breaks":
                    raise ValueError("broke within")
                yield "two"

            return StreamingResponse(pieces())

        @app.post("/uploads/{name}")
        async def upload(name: str, file: UploadFile) -> dict[str, int]:
            content = await file.read()
            ran.append(f"uploaded {content.decode()}")
            return {"size": len(content)}

        @app.post("/files/{name}")
        async def file(name: str) -> FileResponse:
            ran.append("file")
            return FileResponse(__file__)

        @app.get("/health")
        async def health() -> str:
            return "fine"

        @app.websocket("/socket")
        async def socket(socket: WebSocket) -> None:
            ran.append("socket")
            await socket.accept()

        within = FastAPI()
        within.post("/customers/{name}")(write)
        app.mount("/within", within)
        app.state.ran = within.state.ran = ran
        return app

    async def afterwards(self, name: str) -> None:
        self.ran.append("afterwards")
        if name == "late":
            raise ValueError("broke afterwards")


def wanted(scope: Any, body: bytes) -> Wanted | Free | None:
    path = scope["path"]
    if path == "/health":
        return FREE
    what, _, name = path.strip("/").rpartition("/")
    if what == "uploads":  # what is judged of a file is its digest, which the agent asked about
        return Wanted("crm.read", ("customer", name), {"sha256": hashlib.sha256(body).hexdigest()})
    return Wanted("crm.read", ("customer", name), body) if what else None


@asynccontextmanager
async def served(place: Place) -> AsyncIterator[tuple[Service, httpx.AsyncClient, FastAPI]]:
    service = Service()
    app = service.application()
    async with AsyncReporter(
        place.address, executor=EXECUTOR, key=AgentKey(key(EXECUTOR)), chain=place.chain, timeout=30.0
    ) as reporter:
        app.add_middleware(PermitMiddleware, permits=place.permits(), reporter=reporter, wanted=wanted)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://crm") as client:
            yield service, client, app


def body_of(name: str) -> bytes:
    return json.dumps({"name": name}).encode()


@pytest.mark.parametrize(
    ("path", "name", "status", "outcome", "ran"),
    [
        ("/customers/a", "fine", 200, "executed", ["opened", "wrote fine", "afterwards", "closed"]),
        ("/customers/a", "late", 200, "failed", ["opened", "wrote late", "afterwards"]),
        ("/customers/a", "conflict", 409, "failed", ["opened", "wrote conflict"]),
        ("/customers/a", "broken", 500, "failed", ["opened", "wrote broken"]),
        ("/within/customers/a", "fine", 200, "executed", ["opened", "wrote fine", "afterwards", "closed"]),
        ("/streams/a", "any", 200, "executed", ["streamed"]),
        ("/streams/breaks", "any", 200, "failed", ["streamed"]),
    ],
)  # fmt: skip
def test_nothing_runs_without_a_permit_and_with_one_all_of_it_once(
    place: Place, path: str, name: str, status: int, outcome: str, ran: list[str]
) -> None:
    """Dependencies, background tasks and what is streamed are the request's, also where they break after the answer."""

    async def story() -> None:
        async with served(place) as (service, client, _):
            for without in ({}, {"sidecar-permit": "AAAA"}):
                refused = await client.post(path, content=body_of(name), headers={**JSON, **without})
                assert refused.status_code == 403 and service.ran == []
            decision, permit = await asyncio.to_thread(place.allowed, path.rpartition("/")[2], body_of(name))
            brought = {**JSON, **header(permit)}
            other = await client.post(path, content=body_of("other"), headers=brought)
            assert (other.status_code, other.json()["cause"]) == (403, "arguments") and service.ran == []
            done = await client.post(path, content=body_of(name), headers=brought)
            assert done.status_code == status and sorted(service.ran) == sorted(ran)
            told = place.outcome(decision)
            assert told is not None and told["status"] == outcome
            again = await client.post(path, content=body_of(name), headers=brought)
            assert (again.status_code, again.json()["cause"]) == (403, "used") and len(service.ran) == len(ran)

    asyncio.run(story())


def test_an_upload_runs_under_a_permit_for_its_digest(place: Place) -> None:
    async def story() -> None:
        async with served(place) as (service, client, _):
            form = client.build_request("POST", "/uploads/a", files={"file": ("a.txt", b"content")})
            body = await form.aread()
            judged = {"sha256": hashlib.sha256(body).hexdigest()}
            decision, permit = await asyncio.to_thread(place.allowed, "a", judged)
            kind = {"content-type": form.headers["content-type"]}
            changed = await client.post(
                "/uploads/a", content=body.replace(b"content", b"CONTENT"), headers={**header(permit), **kind}
            )
            assert changed.status_code == 403 and service.ran == []
            done = await client.post("/uploads/a", content=body, headers={**header(permit), **kind})
            assert done.json() == {"size": 7} and service.ran == ["uploaded content"]
            told = place.outcome(decision)
            assert told is not None and told["status"] == "executed"

    asyncio.run(story())


def test_a_caller_that_goes_in_the_middle_of_an_answer_leaves_a_failed_action(place: Place) -> None:
    async def story() -> None:
        async with served(place) as (service, _, app):
            decision, permit = await asyncio.to_thread(place.allowed, "a", body_of("any"))
            with pytest.raises(Exception):  # noqa: B017 the server's affair
                await app(scope("/streams/a", permit), *connection_of(broken=b"two"))
            told = place.outcome(decision)
            assert service.ran == ["streamed"] and told is not None and told["status"] == "failed"

    asyncio.run(story())


def test_a_file_that_the_server_is_told_to_send_ends_the_answer(place: Place) -> None:
    async def story() -> None:
        async with served(place) as (service, _, app):
            decision, permit = await asyncio.to_thread(place.allowed, "a", body_of("any"))
            able = {"extensions": {"http.response.pathsend": {}}}
            await app({**scope("/files/a", permit), **able}, *connection_of())
            told = place.outcome(decision)
            assert service.ran == ["file"] and told is not None and told["status"] == "executed"

    asyncio.run(story())


def scope(path: str, permit: bytes) -> dict[str, Any]:
    """A request as a server gives it to an application."""
    ((_, value),) = header(permit).items()
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "POST",
        "path": path, "raw_path": path.encode(), "query_string": b"", "server": ("crm", 80), "scheme": "http",
        "headers": [(b"sidecar-permit", value.encode())],
    }  # fmt: skip


def connection_of(broken: bytes | None = None) -> tuple[Any, Any]:
    """Its body comes, then its caller goes; ``broken``: the piece of the answer that no longer arrives."""
    coming = iter([{"type": "http.request", "body": body_of("any"), "more_body": False}])

    async def receive() -> Any:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        if broken is not None and message.get("body") == broken:
            raise OSError("the connection is gone")

    return receive, send


def test_what_fastapi_serves_by_itself_and_sockets_are_refused(place: Place) -> None:
    service = Service()
    app = service.application()
    reporter = AsyncReporter(place.address, executor=EXECUTOR, key=AgentKey(key(EXECUTOR)), chain=place.chain)
    app.add_middleware(PermitMiddleware, permits=place.permits(), reporter=reporter, wanted=wanted)
    client = TestClient(app)
    assert client.get("/health").json() == "fine"
    assert {client.get(path).status_code for path in ("/docs", "/openapi.json", "/nowhere")} == {403}
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/socket"):
        pass
    assert closed.value.code == 1008 and service.ran == []
