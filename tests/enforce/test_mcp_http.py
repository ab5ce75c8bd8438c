"""The gateway over HTTP, asked what no real client asks: who may ask, sessions, streams, requests by themselves."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.enforce.mcp.frame import Frame
from sidecar.enforce.mcp.heads import decoded
from sidecar.enforce.mcp.token import read_token
from sidecar.errors import UsageError
from tests.enforce.doors_http import MODERN, Web, call, event, request, web
from tests.enforce.gates import Gate, gate
from tests.enforce.sides import PATIENCE, TOOL, ServerSide, answer, pins_of

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}


class Patient(ServerSide):
    """It answers what a test lets it: `hold` in a call's arguments waits."""

    def __init__(self) -> None:
        super().__init__(self.does)
        self.cancelled = asyncio.Event()

    def does(self, message: dict[str, Any]) -> Any:
        if message["method"] == "notifications/cancelled":
            self.cancelled.set()
        if "id" not in message:
            return None
        if message["method"] == "initialize":
            return answer(message, HELLO)
        held = message["params"].get("arguments", {}).get("hold")
        return None if held else answer(message, {"content": [], "asked": message["params"].get("arguments")})


def run(
    place: Path, story: Callable[[Gate, Web], Awaitable[None]], after: Callable[[Gate], None] | None = None, **how: Any
) -> None:
    """``after``: what is to be seen once all of it has ended."""

    async def told() -> None:
        async with gate(place) as g:
            async with web(g, how.pop("make", Patient), **how) as w:
                await story(g, w)
            if after is not None:
                after(g)

    asyncio.run(told())


def ends(g: Gate) -> list[str]:
    return [each["end"] for each in g.outcomes()]


def test_who_may_not_ask_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        hello = request(0, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})

        whole = json.dumps(hello).encode()

        async def refused(status: int, data: bytes = whole, method: str = "POST", **fields: str) -> None:
            head = {**w.head(""), "Content-Type": "application/json", **fields}
            path = head.pop("Path", "/mcp")
            async with w.http.request(
                method, f"http://127.0.0.1:{w.port}{path}", data=io.BytesIO(data), headers=head
            ) as got:
                assert got.status == status, (fields, got.status, await got.text())
                assert (await got.json())["error"]["message"] and "Mcp-Session-Id" not in got.headers

        for token in ("", "Bearer", "Bearer x", "Basic a-token-of-these-tests", "Bearer a-token-of-these-testsx"):
            await refused(401, Authorization=token)
        for host in ("evil.example", "evil.example:80", "127.0.0.1", f"127.0.0.1:{w.port + 1}", f"127.0.0.1.:{w.port}"):
            await refused(421, Host=host)
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{w.port}", "http://localhost:1"):
            await refused(403, Origin=origin)
        for accept in ("application/json", "text/event-stream", "text/html", ""):
            await refused(406, Accept=accept)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            await refused(415, **{"Content-Type": kind})
        await refused(415, **{"Content-Encoding": "gzip"})
        await refused(413, data=b" " * ((4 << 20) + 1))
        for path in ("/", "/mcp/", "/mcp?a=b", "/sse"):
            await refused(404, Path=path)
        for method in ("PUT", "PATCH", "OPTIONS"):
            await refused(405, method=method)
        twice = whole.replace(b'"id"', b'"id": 1, "id"')
        for raw in (b"[]", b"[%b]" % whole, b"", b"{", twice, b"\xff", b"\x00", b"[" * 9999):
            await refused(400, data=raw)
        await refused(400, **{"Mcp-Session-Id": "x"})
        await refused(400, **{"MCP-Protocol-Version": "1999-01-01"})
        assert w.servers == []
        for fields in ({"Host": f"localhost:{w.port}"}, {"Origin": f"http://localhost:{w.port}"}, {"Accept": "*/*"}):
            async with w.post(hello, **fields) as got:
                assert got.status == 200
        assert len(w.servers) == 3

    run(tmp_path, story)


@pytest.mark.parametrize("twice", ["Authorization", "Host", "Mcp-Session-Id", "Origin"])
def test_a_field_that_occurs_twice_is_no_field(twice: str, tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        value = f"127.0.0.1:{w.port}" if twice == "Host" else "Bearer a-token-of-these-tests"
        known = {"Host": f"127.0.0.1:{w.port}", **w.head(""), "Content-Length": "0"}
        lines = [f"{name}: {text}" for name, text in known.items() if name != twice] + [f"{twice}: {value}"] * 2
        writer.write(("POST /mcp HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
        assert (await asyncio.wait_for(reader.readline(), PATIENCE)).split()[1] == b"400"
        writer.close()
        assert w.servers == []

    run(tmp_path, story)


def test_a_session_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        session = await w.begin()
        (server,) = w.servers
        async with w.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, session) as got:
            assert (got.status, await got.text()) == (202, "")
        await server.until(lambda got: any(m.get("method") == "notifications/initialized" for m in got))
        async with w.post(call(1, a=1), session, **{"MCP-Protocol-Version": "2025-11-25"}) as got:
            assert got.content_type == "application/json"
            assert (await got.json())["result"]["asked"] == {"a": 1}
        for fields, status in (
            ({"MCP-Protocol-Version": "2025-06-18"}, 400),
            ({"Mcp-Session-Id": "no-such"}, 404),
            ({"Mcp-Session-Id": ""}, 400),
        ):
            async with w.post(call(2), session, **fields) as got:
                assert (got.status, (await got.json())["id"]) == (status, 2)
        async with w.post(request(3, "initialize"), session) as got:
            assert got.status == 400
        async with w.get(session, **{"Last-Event-ID": "7"}) as got:
            assert got.status == 400 and "none is told again" in await got.text()
        async with w.get(session, Accept="application/json") as got:
            assert got.status == 406
        held = asyncio.create_task(_whole(w.post(call(4, hold=True), session)))
        await server.until(lambda got: len(server.calls) == 2)
        async with w.post(call(4), session) as got:
            assert got.status == 400 and "under way" in await got.text()
        async with w.http.delete(w.url, headers=w.head(session)) as got:
            assert got.status == 204
        assert "the client is gone" in json.dumps(await held)
        for asked in (w.post(call(5), session), w.get(session), w.http.delete(w.url, headers=w.head(session))):
            async with asked as got:
                assert got.status == 404
        assert server.gone and len(w.servers) == 1
        assert [d["arguments"] for d in g.rules.of("mcp.tool.call")] == [{"a": 1}, {"hold": True}]

    def after(g: Gate) -> None:
        assert ends(g) == ["answered", "the client is gone"]

    run(tmp_path, story, after)


async def _whole(asked: Any) -> Any:
    async with asked as got:
        return await got.json() if got.content_type == "application/json" else await event(got)


def test_each_message_goes_where_it_is_waited_for(tmp_path: Path) -> None:
    """Progress to its request, though two clients' tokens are alike; the server's own to the stream of its session."""

    async def story(g: Gate, w: Web) -> None:
        one, other = await w.begin(), await w.begin()
        calls = {}
        for session, server in zip((one, other), w.servers, strict=True):
            for number in (1, 2):
                asked = call(number, hold=True)
                asked["params"]["_meta"] = {"progressToken": number}
                calls[session, number] = asyncio.create_task(_opened(w.post(asked, session)))
                await server.until(lambda got, server=server, number=number: len(server.calls) == number)
        before = await _opened(w.get(one))
        w.servers[0].put({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}})
        assert (await event(before))["params"]["data"] == 1
        listens = await _opened(w.get(one))
        assert (await before.content.read()).strip() == b""  # the newest listens
        w.servers[0].put({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {"message": "m"}})
        assert (await event(listens))["method"] == "elicitation/create"
        async with w.post({"jsonrpc": "2.0", "id": 1, "result": {"action": "accept"}}, other) as got:
            assert got.status == 202  # of nobody's in that session
        async with w.post({"jsonrpc": "2.0", "id": 1, "result": {"action": "accept"}}, one) as got:
            assert got.status == 202
        await w.servers[0].until(lambda got: any(m.get("result") == {"action": "accept"} for m in got))
        assert not any("result" in m for m in w.servers[1].read())
        for server in w.servers:
            for number in (2, 1):
                said = {"progressToken": number, "progress": number}
                server.put({"jsonrpc": "2.0", "method": "notifications/progress", "params": said})
                server.put(answer({"id": number}, {"content": [], "n": number}))
        for (_, number), opened in calls.items():
            got = await opened
            assert (await event(got))["params"]["progress"] == number
            assert (await event(got))["result"]["n"] == number
            assert (await got.content.read()).strip() == b""
        w.servers[1].put({"jsonrpc": "2.0", "method": "notifications/resources/list_changed"})
        waited = await _opened(w.get(other))
        assert (await event(waited))["method"] == "notifications/resources/list_changed"  # it waited for a stream
        for each in (listens, waited):
            each.close()

    def after(g: Gate) -> None:
        assert "the client answers what nobody asked" in g.said()

    run(tmp_path, story, after)


async def _opened(asked: Any) -> aiohttp.ClientResponse:
    return await asked


def test_a_connection_that_is_lost_cancels_nothing_in_a_session(tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        session = await w.begin()
        (server,) = w.servers
        lost = asyncio.create_task(_opened(w.post(call(1, hold=True), session)))
        await server.until(lambda got: len(server.calls) == 1)
        lost.cancel()
        await asyncio.wait({lost})
        async with w.post(call(2), session) as got:
            assert "result" in await got.json()
        server.put(answer({"id": 1}, {"content": []}))
        await g.until(lambda: "its answer with it" in g.said())
        assert not server.cancelled.is_set()

    def after(g: Gate) -> None:
        assert ends(g) == ["answered", "answered"]

    run(tmp_path, story, after)


class Slow(Patient):
    """A notification of the roots keeps it from reading on."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()

    async def send(self, frame: Frame) -> None:
        await super().send(frame)
        if frame.method == "notifications/roots/list_changed":
            await self.reads.wait()


def test_an_answer_is_not_that_of_a_later_request_of_its_id(tmp_path: Path) -> None:
    """It comes when the connection of its own is lost, and before the gateway has taken the later one."""
    word = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}

    async def story(g: Gate, w: Web) -> None:
        session = await w.begin()
        (server,) = w.servers
        assert isinstance(server, Slow)
        lost = asyncio.create_task(_opened(w.post(call(1, hold=True), session)))
        await server.until(lambda got: len(server.calls) == 1)
        lost.cancel()
        await asyncio.wait({lost})
        async with w.post({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}, session) as got:
            assert got.status == 202
        await server.until(lambda got: "roots" in got[-1]["method"])
        server.put(word)
        while (later := await _opened(w.post(call(1, again=True), session))).status == 400:  # it is not noticed yet
            server.put(word)
        assert await event(later) == word
        server.put(answer({"id": 1}, {"content": [], "asked": "before"}))
        await g.until(lambda: "its answer with it" in g.said())
        server.reads.set()
        while "result" not in (told := await event(later)):
            assert told == word
        assert told["result"]["asked"] == {"again": True} and len(server.calls) == 2

    def after(g: Gate) -> None:
        assert ends(g) == ["answered", "answered"]

    run(tmp_path, story, after, make=Slow)


def test_a_server_that_ends_takes_its_session_with_it_and_no_other(tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        one, other = await w.begin(), await w.begin()
        held = asyncio.create_task(_whole(w.post(call(1, hold=True), one)))
        await w.servers[0].until(lambda got: len(w.servers[0].calls) == 1)
        w.servers[0].put(None)
        assert "may have been done" in json.dumps(await held)
        async with w.post(call(2), one) as got:
            assert got.status == 404
        async with w.post(call(2), other) as got:
            assert got.status == 200 and "result" in await got.json()

        alone = asyncio.create_task(_whole(w.alone(1, "tools/call", name="write", arguments={"hold": True})))
        await g.until(lambda: len(w.servers) == 3 and bool(w.servers[2].calls))
        w.servers[2].put(None)
        assert "may have been done" in json.dumps(await alone)
        async with w.alone(1, "tools/call", name="write", arguments={}) as got:  # at once: of another server
            assert got.status == 200 and "asked" in (await got.json())["result"]
        assert len(w.servers) == 4

    def after(g: Gate) -> None:
        assert [each["status"] for each in g.outcomes()] == ["failed", "executed"] * 2

    run(tmp_path, story, after)


def test_more_than_may_be_is_refused_and_who_ends_makes_room(tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        hello = request(0, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
        session = await w.begin()
        async with w.post(hello) as got:
            assert got.status == 503 and got.headers["Retry-After"] and "as many as may be" in await got.text()
        async with w.http.delete(w.url, headers=w.head(session)) as got:
            assert got.status == 204
        async with w.post(call(1), session) as got:
            assert got.status == 404
        await w.begin()  # once the other has ended
        assert w.servers[0].gone and len(w.servers) == 2

    run(tmp_path, story, most=1)


def test_what_nobody_uses_ends(tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        listens = await _opened(w.get(await w.begin()))
        while listens.status != 200:  # a slow machine: it had ended before
            listens = await _opened(w.get(await w.begin()))
        kept = w.servers[-1]
        await w.begin()
        async with w.alone(1, "tools/call", name="write", arguments={}) as got:
            assert got.status == 200
        await g.until(lambda: all(server.gone for server in w.servers if server is not kept))
        assert not kept.gone and len(w.servers) >= 3  # somebody listens to it
        listens.close()
        await g.until(lambda: kept.gone)

    run(tmp_path, story, idle=0.2)


def test_an_initialize_that_fails_begins_no_session(tmp_path: Path) -> None:
    class Unwilling(ServerSide):
        def __init__(self) -> None:
            super().__init__(lambda m: {"jsonrpc": "2.0", "id": m["id"], "error": {"code": -32602, "message": "no"}})

    async def story(g: Gate, w: Web) -> None:
        async with w.post(request(0, "initialize", protocolVersion="x", capabilities={}, clientInfo={})) as got:
            assert got.status == 200 and (await got.json())["error"]["message"] == "no"
            assert "Mcp-Session-Id" not in got.headers
        async with asyncio.timeout(PATIENCE):
            while not w.servers[0].gone:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(tmp_path, story, make=Unwilling)


def test_requests_by_themselves_are_never_taken_for_each_other(tmp_path: Path) -> None:
    """Two clients that number alike; and a server that answers late and twice."""

    async def story(g: Gate, w: Web) -> None:
        def held_call(hold: int) -> asyncio.Task[Any]:
            return asyncio.create_task(_whole(w.alone(1, "tools/call", name="write", arguments={"hold": hold})))

        asked = [held_call(hold) for hold in (1, 2)]
        await g.until(lambda: len(w.servers) == 2 and all(server.calls for server in w.servers))
        for server in w.servers:
            (held,) = server.calls
            assert held["id"] != 1
            for again in range(2):
                server.put(answer(held, {"content": [], "n": held["params"]["arguments"]["hold"], "again": again}))
        for number, each in enumerate(asked, 1):
            assert await each == answer({"id": 1}, {"content": [], "n": number, "again": 0})
        before = w.servers[-1].calls[0]
        third = held_call(3)
        await g.until(lambda: sum(len(server.calls) for server in w.servers) == 3)
        assert len(w.servers) == 2  # one of them, again
        (server,) = [server for server in w.servers if len(server.calls) == 2]
        server.put(answer(before, {"content": [], "n": "of another"}))
        server.put(answer(server.calls[1], {"content": [], "n": 3}))
        assert (await third)["result"]["n"] == 3
        async with w.alone("x", "tools/nothing") as got:
            assert (got.status, (await got.json())["id"]) == (404, "x")

    def after(g: Gate) -> None:
        refused = g.desk.entries("REJECTED")
        assert {r["cause"] for r in refused} == {"outcome: the decision has another one already"}

    run(tmp_path, story, after)


def test_to_hang_up_is_to_cancel(tmp_path: Path) -> None:
    async def story(g: Gate, w: Web) -> None:
        lost = asyncio.create_task(_opened(w.alone(1, "tools/call", name="write", arguments={"hold": True})))
        await g.until(lambda: bool(w.servers and w.servers[0].calls))
        lost.cancel()
        await asyncio.wait({lost})
        (server,) = w.servers
        assert isinstance(server, Patient)
        await asyncio.wait_for(server.cancelled.wait(), PATIENCE)
        (told,) = [m for m in server.read() if m["method"] == "notifications/cancelled"]
        assert told["params"]["requestId"] == server.calls[0]["id"]
        async with w.alone(1, "tools/call", name="write", arguments={}) as got:
            assert got.status == 200
        assert len(w.servers) == 2  # one that was hung up on gets no other request

    def after(g: Gate) -> None:
        assert sorted(end.split(";")[0] for end in ends(g)) == ["answered", "cancelled"]

    run(tmp_path, story, after)


def test_a_subscription_has_the_id_that_its_client_gave_it(tmp_path: Path) -> None:
    def does(message: dict[str, Any]) -> Any:
        if message.get("method") != "subscriptions/listen":
            return None
        meta = {"io.modelcontextprotocol/subscriptionId": message["id"], "other": 1}
        return {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"_meta": meta}}

    async def story(g: Gate, w: Web) -> None:
        opened = await _opened(w.alone(7, "subscriptions/listen", notifications={"toolsListChanged": True}))
        first = await event(opened)
        assert first["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 7, "other": 1}
        opened.close()
        await g.until(lambda: w.servers[0].gone)

    run(tmp_path, story, make=lambda: ServerSide(does))


def test_what_the_head_repeats_is_what_the_message_says(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"file": {"type": "string", "x-mcp-header": "File"}}}
    tool = {**TOOL, "inputSchema": schema}

    def make() -> ServerSide:
        return ServerSide(tools=[tool])

    async def story(g: Gate, w: Web) -> None:
        own = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
        body = request(1, "tools/call", name="write", arguments={"file": "grün"}, _meta=own)
        right = {
            "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "write",
            "Mcp-Param-File": f"=?base64?{base64.b64encode('grün'.encode()).decode()}?=",
        }  # fmt: skip
        wrong = [
            {"Mcp-Method": "tools/list"}, {"Mcp-Name": "read"}, {"Mcp-Name": ""}, {"Mcp-Param-File": "rot"},
            {"Mcp-Param-File": "=?base64?!?="}, {"Mcp-Param-Other": "x"}, {"MCP-Protocol-Version": "2025-11-25"},
        ]  # fmt: skip
        for fields in [*wrong, {"-": "Mcp-Param-File"}, {"-": "Mcp-Method"}]:
            given = {**right, **fields}
            given.pop(given.pop("-", ""), None)
            async with w.post(body, **given) as got:
                error = (await got.json())["error"]
                assert (got.status, error["code"]) == (400, -32020), fields
        for meta in ({}, None):
            plain = request(1, "tools/call", name="write", arguments={}, **({} if meta is None else {"_meta": meta}))
            async with w.post(plain, **{**right, "Mcp-Param-File": ""}) as got:
                assert (got.status, (await got.json())["error"]["code"]) == (400, -32602)
        async with w.post(body, "a-session", **right) as got:
            assert got.status == 400
        for message, status in (({"id": 1, "result": {}}, 400), ({"method": "notifications/initialized"}, 202)):
            async with w.post({"jsonrpc": "2.0", **message}, **{"MCP-Protocol-Version": MODERN}) as got:
                assert got.status == status
        assert w.servers == [] and g.rules.seen == []
        async with w.post(body, **right) as got:
            assert got.status == 200 and "result" in await got.json()

    run(tmp_path, story, make=make, pins=pins_of(tools=[tool]))


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("short", 0o600, "16 to 4096"),
        ("a token with spaces", 0o600, "16 to"),
        ("a-token-that-all-read", 0o604, "chmod"),
        (None, 0, "cannot read"),
    ],
)
def test_a_token_that_cannot_be_meant(text: str | None, mode: int, says: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(UsageError, match=says):
        read_token(path)


def test_values_of_fields() -> None:
    for value, text in (("a", "a"), ("=?base64?w6Q=?=", "ä"), ("=?base64?/w==?=", None), ("=?base64?a?=", None)):
        assert decoded(value) == text
