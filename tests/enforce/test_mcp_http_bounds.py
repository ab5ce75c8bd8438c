"""The gateway over HTTP, of which clients send what is ambiguous or no end of it, or take nothing: it is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from sidecar.enforce.mcp.listen import Patience
from tests.enforce.doors_http import Web, call, event
from tests.enforce.gates import Gate
from tests.enforce.listeners import TOKEN
from tests.enforce.raw_http import CHUNKED, Asking, ambiguous, statuses
from tests.enforce.sides import PATIENCE
from tests.enforce.test_mcp_http import run

LARGE = json.dumps(
    {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * (6 << 20)}}
).encode()
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def by_hand(w: Web, session: str, message: dict[str, Any]) -> Asking:
    """A message of a session, as bytes of HTTP."""
    fields = {"Host": f"127.0.0.1:{w.port}", **w.head(session), "Content-Type": "application/json"}
    lines = tuple(f"{name}: {value}".encode() for name, value in fields.items())
    return Asking(b"/mcp", json.dumps(message).encode(), lines)


def held(w: Web, session: str) -> bytes:
    """A call that is not answered, on a connection that is kept."""
    asking = by_hand(w, session, call(10, hold=True))
    return asking.message(asking.length, keep=True)


def test_what_two_servers_could_read_as_two_things(tmp_path: Path) -> None:
    """As at the door for AuthZEN; nothing reaches a server, nor what follows on the connection."""

    async def story(g: Gate, w: Web) -> None:
        asking = by_hand(w, await w.begin(), call(1, a=1))
        (server,) = w.servers
        for name, sent in ambiguous(asking).items():
            reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
            writer.write(sent + asking.message(asking.length, keep=True))
            told = await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            assert statuses(told) == [400] and not server.calls, (name, told)
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        writer.write(asking.message(asking.length))
        assert statuses(await reader.read()) == [200] and len(server.calls) == 1
        writer.close()

    run(tmp_path, story)


@pytest.mark.parametrize("part", ["head", "a later head", "body", "chunk"])
def test_who_stalls_in_the_middle_of_a_request_is_cut_off(part: str, tmp_path: Path) -> None:
    """And others are served meanwhile."""

    async def story(g: Gate, w: Web) -> None:
        session = await w.begin()
        asking = by_hand(w, session, INITIALIZED)
        whole = asking.message(asking.length, keep=True)
        begun = {
            "head": asking.line + b"\r\nHost: a",
            "a later head": whole + asking.line[:-4],
            "body": whole[:-1],
            "chunk": asking.message(CHUNKED, body=asking.chunks[:-5]),
        }
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        writer.write(begun[part])
        told = asyncio.create_task(reader.read())
        async with w.post(call(1), session) as got:
            assert "result" in await got.json()
        assert statuses(await asyncio.wait_for(told, PATIENCE)) == {"a later head": [202], "head": []}.get(part, [400])
        writer.close()
        (server,) = w.servers
        assert [m["method"] for m in server.read()].count("notifications/initialized") == (part == "a later head")

    run(tmp_path, story, patience=Patience(sent=0.3))


def test_a_client_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    """What its request comes to is recorded all the same."""

    async def story(g: Gate, w: Web) -> None:
        session = await w.begin()
        (server,) = w.servers
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", w.port))
            deaf.sendall(held(w, session))
            await server.until(lambda got: bool(server.calls))
            for _ in range(5):
                server.put(LARGE)
            await g.until(server.sending.empty)  # none waits for it any more
            async with w.post(call(11), session) as got:  # the newest that nobody took comes before the answer
                told = [line for line in (await got.read()).splitlines() if line.startswith(b"data: ")]
            assert [line.removeprefix(b"data: ") for line in told[:-1]] == [LARGE] and b"result" in told[-1]
            got_in_all = 0
            with contextlib.suppress(ConnectionResetError):
                while some := deaf.recv(1 << 20):
                    got_in_all += len(some)
            assert got_in_all < len(LARGE)  # it was dropped, and not closed once the rest is taken

    run(tmp_path, story, patience=Patience(taken=0.3))


def test_a_stream_of_a_token_that_is_asked_for_no_more_ends(tmp_path: Path) -> None:
    """Before the next word is told on it, or as soon as there was none for a while."""
    tokens = [TOKEN]
    news = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}}).encode()

    async def story(g: Gate, w: Web) -> None:
        session = await w.begin()
        (server,) = w.servers
        async with w.get(session) as listens:
            server.put(news)
            assert (await event(listens))["params"] == {"data": "x"}
            tokens.append("a-newer-token-of-these-tests")
            assert b"data" not in await asyncio.wait_for(listens.content.read(), PATIENCE)
        async with w.get(session) as got:
            assert got.status == 401
        newest = {"Authorization": f"Bearer {tokens[-1]}"}
        async with w.get(session, **newest) as listens:
            server.put(news)
            assert (await event(listens))["params"] == {"data": "x"}

    run(tmp_path, story, patience=Patience(quiet=0.3), token=lambda: tokens[-1])


def test_a_stream_ends_where_the_certificate_has(tmp_path: Path) -> None:
    over: list[bool] = []

    async def story(g: Gate, w: Web) -> None:
        session = await w.begin()
        async with w.get(session) as listens:
            over.append(True)
            assert b"data" not in await asyncio.wait_for(listens.content.read(), PATIENCE)
        async with w.get(session) as got:
            assert got.status == 503
        over.clear()
        async with w.post(call(1), session) as got:
            assert got.status == 200

    run(tmp_path, story, patience=Patience(quiet=0.3), ended=lambda: bool(over))


def test_another_version_of_http_is_not_taken(tmp_path: Path) -> None:
    """Nor an expectation that nobody knows. Nothing reaches a server."""

    async def story(g: Gate, w: Web) -> None:
        asking = by_hand(w, await w.begin(), call(1, a=1))
        (server,) = w.servers
        for status, sent in (
            (505, asking.message(asking.length, line=b"POST /mcp HTTP/1.0")),
            (505, asking.message(asking.length, b"connection: keep-alive", line=b"POST /mcp HTTP/1.0", keep=True)),
            (505, asking.message(asking.length, line=b"POST /mcp HTTP/2.0")),
            (417, asking.message(asking.length, b"expect: 200-ok")),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
            writer.write(sent)
            told = await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            assert statuses(told) == [status] and not server.calls, (sent, told)

    run(tmp_path, story)


def test_a_head_or_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    """Bytes that are no HTTP, and a length that is a lie, end their own connection alone."""

    async def story(g: Gate, w: Web) -> None:
        head = "\r\n".join(f"{name}: {value}" for name, value in w.head("").items())
        start = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{w.port}\r\n{head}\r\n"
        many = "".join(f"X-{n}: 1\r\n" for n in range(100))
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"garbage\r\n\r\n",
            f"{start}{many}\r\n".encode(),
            f"{start}X: {'x' * 20_000}\r\n\r\n".encode(),
            f"{start}Content-Length: 5\r\nContent-Length: 6\r\n\r\n".encode(),
            f"{start}MCP-Protocol-Version: \xff\r\nContent-Type: application/json\r\n\r\n".encode("latin-1"),
            f"{start}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n".encode(),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
            writer.write(sent)
            got = await asyncio.wait_for(reader.read(), PATIENCE)
            assert got.startswith(b"HTTP/1.") and b" 400 " in got.split(b"\r\n")[0], got[:200]
            writer.close()
        await w.begin()

    run(tmp_path, story)


def test_a_client_that_takes_nothing_holds_up_its_own_session_alone(tmp_path: Path) -> None:
    """Large answers to a client that does not read them wait at the server: this process holds one at a time."""

    async def story(g: Gate, w: Web) -> None:
        one, other = await w.begin(), await w.begin()
        slow = w.servers[0]
        _, writer = await asyncio.open_connection("127.0.0.1", w.port)  # which is read up to its buffer's end
        writer.write(held(w, one))
        await slow.until(lambda got: bool(slow.calls))
        for _ in range(30):
            slow.put(LARGE)
        async with w.post(call(1), other) as got:
            assert "result" in await got.json()
        assert slow.sending.qsize() >= 10  # they are not read from it
        writer.close()

    run(tmp_path, story)
