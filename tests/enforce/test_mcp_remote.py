"""`sidecar mcp --upstream`: the same promises before a remote server, over streamable HTTP of both generations."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitResult

from sidecar.enforce.mcp.events import EventTooLong, events
from sidecar.enforce.mcp.fields import read_fields
from sidecar.enforce.mcp.frame import read
from sidecar.enforce.mcp.http import place
from sidecar.enforce.mcp.ports import Failed
from sidecar.enforce.mcp.remote import RemoteServer, encoded, repeated
from sidecar.errors import UsageError
from tests.api.running import judged
from tests.api.tls_files import Files, server_certificate
from tests.authorities import Authority
from tests.enforce.gates import OFFICIAL, gate, words
from tests.program import environment

TOKEN = "t0ken-of-the-gateway"


@contextlib.contextmanager
def remote(work: Path) -> Iterator[str]:
    """The official SDK's server over HTTP; its URL."""
    command = [sys.executable, str(OFFICIAL), str(work), TOKEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
def test_a_remote_server_gets_what_was_allowed(mode: str, tmp_path: Path) -> None:
    """And by the newest credentials, which are replaced in the midst of it."""

    async def sure(*_: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"sure": True})

    async def story() -> None:
        denied = lambda d: "DENY" if d["arguments"].get("name") == "no.txt" else "ALLOW"  # noqa: E731
        async with gate(tmp_path, call=denied) as g:
            fields = tmp_path / "fields"
            fields.write_text(f"Authorization: Bearer {TOKEN}\n")
            fields.chmod(0o640)
            with remote(g.place) as url:
                given = ("--header-file", str(fields))
                async with g.client(*given, upstream=url, mode=mode, elicitation_callback=sure) as client:
                    assert len((await client.list_tools()).tools) == 6
                    done = await client.call_tool("write_file", {"name": "ä.txt", "text": "hällo"})
                    assert words(done) == "wrote 5 characters" and (g.place / "ä.txt").read_text() == "hällo"
                    assert (await client.call_tool("write_file", {"name": "no.txt"})).is_error
                    told: list[float] = []

                    async def progress(done: float, *_: Any) -> None:
                        told.append(done)

                    await client.call_tool("steps", {"name": "s.txt"}, progress_callback=progress)
                    assert told == [1, 2, 3]
                    assert words(await client.call_tool("ask", {"name": "sure.txt"})) == "asked"
                    assert g.wrote("sure.txt") and not g.wrote("no.txt")
                    many = (client.call_tool("write_file", {"name": f"m{n}"}) for n in range(10))
                    assert not any(done.is_error for done in await asyncio.gather(*many))
                    held = asyncio.create_task(client.call_tool("hold", {"name": "h"}))
                    await g.until(lambda: g.wrote("h.began"))
                    held.cancel()
                    await g.until(lambda: g.wrote("h.cancelled"))
                    fields.write_text("no field\n")
                    assert not (await client.call_tool("write_file", {"name": "before.txt"})).is_error
                    (g.place / "token").write_text("the-next-of-the-gateway")
                    failed = await client.call_tool("write_file", {"name": "between.txt"})
                    assert failed.is_error and "status 401" in words(failed)
                    fields.write_text("Authorization: Bearer the-next-of-the-gateway\n")
                    assert not (await client.call_tool("write_file", {"name": "after.txt"})).is_error
                    assert [g.wrote(f"{when}.txt") for when in ("before", "between", "after")] == [True, False, True]
            assert g.said().count("the new --header-file cannot be used") == 1
            for token in (TOKEN, "the-next-of-the-gateway"):
                assert token not in "".join(map(str, g.rules.seen)) + g.said()
            ends = [each["end"] for each in g.outcomes() if each["action"] == "mcp.tool.call"]
            assert ends.count("answered") >= 13 and len(ends) >= 14

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


CALL = read(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"w"}}', strict=True)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: close\r\n\r\n"
JSON, EVENTS = HEAD % b"application/json", HEAD % b"text/event-stream"


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (b"", "connection failed"),
        (b"garbage\r\n\r\n", "connection failed"),
        (b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n", "status 503"),
        (b"HTTP/1.1 302 no\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 401 no\r\nContent-Length: 0\r\n\r\n", "status 401"),
        (b"HTTP/1.1 202 ok\r\nContent-Length: 0\r\n\r\n", "status 202"),
        (HEAD % b"text/html" + b"<html>", "status 200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 10\r\n\r\n{}", "connection failed"),
        (EVENTS + b": nothing\n\n", "connection closed"),
        (EVENTS + b'data: {"jsonrpc":"2.0","id":8,"result":{}}\n\n', "connection closed"),
        (EVENTS + b'data: {"jsonrpc":"2.0","id":7,"resu', "connection closed"),
        (JSON + b"x" * 5_000, "too large"),
        (EVENTS + b"data: " + b"x" * 5_000, "too large"),
        (EVENTS + b"data: x\n" * 5_000, "too large"),
    ],
)
def test_an_answer_that_is_none_fails_its_call_alone(answer: bytes, end: str) -> None:
    async def story() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
            server = RemoteServer(place(url, None), tuple, 2_000, lambda _: None, lambda _: None)
            await server.send(CALL)
            async for message in server.messages():
                if isinstance(message, Failed):
                    assert (message.answers, message.end) == (("number", 7), end)
                    break
            assert await server.end() == "the connection was closed"

    asyncio.run(story())


def test_many_answers_at_once_have_a_bound_together() -> None:
    async def story() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(JSON + b"x" * 1_900)
                await reader.read()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
            server = RemoteServer(place(url, None), tuple, 2_000, lambda _: None, lambda _: None)
            for number in range(5):
                await server.send(read(CALL.raw.replace(b'"id":7', b'"id":%d' % number), strict=True))
            message = await anext(server.messages())
            assert isinstance(message, Failed) and message.end == "too large"
            await server.end()

    asyncio.run(story())


@pytest.mark.parametrize("known", [True, False])
def test_the_server_is_known_by_its_certificate(known: bool, tmp_path: Path) -> None:
    authority, other = Authority("one"), Authority("other")
    Files(tmp_path).write(server_certificate(authority, "localhost"), authority if known else other)
    chain, key, ca = Files(tmp_path).paths

    async def story() -> None:
        got: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.readuntil(b"}}"))
            writer.write(JSON + b'{"jsonrpc":"2.0","id":7,"result":{}}')
            writer.close()

        shows = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        shows.load_cert_chain(chain, key)
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=shows)
        async with listening:
            url = f"https://localhost:{listening.sockets[0].getsockname()[1]}/mcp"
            fields = [("Authorization", "Bearer x")]
            server = RemoteServer(place(url, Path(ca)), lambda: fields, 2_000, lambda _: None, lambda _: None)
            await server.send(CALL)
            message = await anext(server.messages())
            await server.end()
        if known:
            assert message == b'{"jsonrpc":"2.0","id":7,"result":{}}'
            assert CALL.raw in got[0] and b"POST /mcp HTTP/1.1\r\n" in got[0] and b"Bearer x" in got[0]
        else:
            assert isinstance(message, Failed) and "certificate" in message.what and not got

    asyncio.run(story())


def test_nobody_listens() -> None:
    async def story() -> None:
        server = RemoteServer(place("http://127.0.0.1:1/", None), tuple, 2_000, lambda _: None, lambda _: None)
        await server.send(CALL)
        message = await anext(server.messages())
        assert isinstance(message, Failed) and "no connection" in message.what
        await server.end()

    asyncio.run(story())


@pytest.mark.parametrize(
    "url",
    ["", "example.org", "ftp://example.org/", "https:///x", "https://a:b@example.org/", "http://example.org/",
     "http://10.0.0.1/", "https://example.org:0/", "https://example.org:x/", "https://example.org/a b", "https://e.org/#x"],
)  # fmt: skip
def test_a_url_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(UsageError):
        place(url, None)


@pytest.mark.parametrize("line", ["x", "Host: a", "Mcp-Name: a", "content-length: 1", "a b: c", "a: \x01", "Accept: x"])
def test_fields_that_are_not_ones_own(line: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(f"Authorization: Bearer x\n{line}\n")
    (tmp_path / "f").chmod(0o600)
    with pytest.raises(UsageError, match="line 2"):
        read_fields(tmp_path / "f")


def test_fields_that_others_could_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("Authorization: Bearer x\n")
    (tmp_path / "f").chmod(0o604)
    with pytest.raises(UsageError, match="every user of this host can read"):
        read_fields(tmp_path / "f")


def test_what_http_repeats_of_a_call() -> None:
    schema = {
        "properties": {
            "a": {"type": "string", "x-mcp-header": "A"},
            "b": {"properties": {"c": {"type": "boolean", "x-mcp-header": "C"}}},
            "n": {"type": "integer", "x-mcp-header": "N"},
            "x": {"x-mcp-header": "bad name"},
            "z": {"x-mcp-header": "Z"},
        }
    }
    arguments = {"a": "grün ", "b": {"c": True}, "n": -7, "x": "x", "z": None}
    assert repeated(schema, arguments) == [
        ("Mcp-Param-A", "=?base64?Z3LDvG4g?="),
        ("Mcp-Param-C", "true"),
        ("Mcp-Param-N", "-7"),
    ]
    assert repeated(None, arguments) == []
    for value, text in (
        ("a b", "a b"),
        (" a", "=?base64?IGE=?="),
        ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
    ):
        assert encoded(value) == text


async def _events(stream: bytes, piece: int, most: int) -> list[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(stream), piece):
            yield stream[at : at + piece]

    return [each async for each in events(pieces(), most)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_events_in_whatever_pieces_they_come(end: bytes, piece: int) -> None:
    lines = [b": hi", b"data: a", b"data:b", b"", b"event: other", b"data: c", b"", b"id: 7", b"event: message"]
    lines += [b"data: d", b"retry: 5", b"", b"", b"data: unfinished"]
    assert asyncio.run(_events(end.join(lines), piece, 100)) == [b"a b", b"d"]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 200, b"data: x\n" * 200, b"x" * 300])
def test_an_event_beyond_the_bound(stream: bytes) -> None:
    with pytest.raises(EventTooLong):
        asyncio.run(_events(stream, 7, 100))


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("h11", ["--review-pins", "--upstream", "https://example.org/mcp"]),
        ("aiohttp", ["--trust-first", "--server", "unix:/x", "--agent", "a", "--listen", "unix:/x", "--", "x"]),
    ],
)
def test_without_the_extra_it_is_said(module: str, more: list[str], tmp_path: Path) -> None:
    asked = f"import sys; sys.modules['{module}'] = None; from sidecar.cli import main; main()"
    command = [sys.executable, "-c", asked, "mcp", "--pins", str(tmp_path / "p"), *more]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 2 and "pip install 'decision-sidecar[mcp]'" in done.stderr, done.stderr


def test_a_session_of_the_older_generation() -> None:
    """Its id and version go with every request, what the server sends by itself is heard, and it is ended."""
    heads: list[tuple[str, set[str]]] = []
    agreed = b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}'
    changed = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
    event = b"data: %b\n\n" % changed
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (event[:9], event[9:]))
    answers = {
        "initialize": b"HTTP/1.1 200 OK\r\nMcp-Session-Id: s-7\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(agreed), agreed),
        "notifications/initialized": b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        "GET": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces,
        "DELETE": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    }

    async def story() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
                while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                    method = head.split()[0]
                    fields = {line.lower() for line in head.split("\r\n")[1:]}
                    length = next((int(f.split(":")[1]) for f in fields if f.startswith("content-length:")), 0)
                    body = await reader.readexactly(length)
                    named = read(body, strict=True).method if body else method
                    heads.append((named, fields))
                    writer.write(answers[named])

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
            server = RemoteServer(place(url, None), lambda: [("X-Key", "k")], 2_000, lambda _: None, lambda _: None)
            messages = server.messages()
            hello = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}'
            await server.send(read(hello, strict=True))
            assert await anext(messages) == agreed
            await server.send(read(b'{"jsonrpc":"2.0","method":"notifications/initialized"}', strict=True))
            assert await anext(messages) == changed
            await server.end()

    asyncio.run(story())
    assert [named for named, _ in heads] == ["initialize", "notifications/initialized", "GET", "DELETE"]
    for named, fields in heads:
        assert "x-key: k" in fields
        assert ({"mcp-session-id: s-7", "mcp-protocol-version: 2025-06-18"} <= fields) is (named != "initialize")
