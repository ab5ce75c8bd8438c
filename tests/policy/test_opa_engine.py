"""The engine for a running OPA: what it asks, and what it makes of every way an answer can fail to come."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import (
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    PolicyMisshaped,
    PolicyUndefined,
    UsageError,
)
from sidecar.policy import OpaEngine

from .conftest import Build, Serve

POLICY = """package p

decision := {"effect": "ALLOW", "reasons": [], "echo": input} if not input.arguments.mode

decision := {"effect": "DENY", "reasons": [1]} if input.arguments.mode == "conflict"

decision := {"effect": "DENY", "reasons": [2]} if input.arguments.mode == "conflict"

decision := to_number(input.arguments.secret) if input.arguments.mode == "builtin"

decision := 9007199254740993 if input.arguments.mode == "huge"
"""
ENTRYPOINT = "p/decision"


async def ask(engine: OpaEngine, document: dict[str, Any], timeout: float = 30) -> Any:
    try:
        return await engine.evaluate(document, timeout)
    finally:
        await engine.close()


@pytest.mark.parametrize("tcp", [False, True])
def test_a_running_opa(serve: Serve, build: Build, tmp_path: Path, request_document: dict[str, Any], tcp: bool) -> None:
    bundle = tmp_path / "b.tar.gz"
    bundle.write_bytes(build(POLICY, ENTRYPOINT, target="rego", revision="r42"))

    async def run(address: str) -> None:
        engine = OpaEngine(address, ENTRYPOINT)
        assert (engine.version.engine_version, engine.version.revision) == ("", "")
        await engine.ready()
        answers = await asyncio.gather(*(engine.evaluate(request_document, 30) for _ in range(50)))
        await engine.close()
        assert all(answer.result["echo"] == request_document for answer in answers)  # type: ignore[index]
        version = answers[0].version
        assert version == engine.version
        assert (version.engine, version.entrypoint, version.revision) == ("opa", ENTRYPOINT, "r42")
        assert version.engine_version[0].isdigit()
        with pytest.raises(EngineUnavailable, match="closed"):
            await engine.evaluate(request_document, 30)

    with serve("--bundle", str(bundle), tcp=tcp) as address:
        asyncio.run(run(address))


@pytest.mark.parametrize(
    ("mode", "error", "named"),
    [
        ("conflict", EngineError, r"OPA answered 500: internal_error, eval_conflict_error at .*policy.rego:\d+"),
        ("builtin", EngineError, "OPA answered 500: internal_error, eval_builtin_error"),
        ("none", PolicyUndefined, "no value for p/decision"),
        ("huge", PolicyMisshaped, "beyond 2\\^53-1"),
    ],
)
def test_faults_of_the_policy(
    serve: Serve, tmp_path: Path, request_document: dict[str, Any], mode: str, error: type[EngineError], named: str
) -> None:
    (tmp_path / "policy.rego").write_text(POLICY)
    request_document["arguments"] = {"mode": mode, "secret": "hunter22"}
    with serve(str(tmp_path / "policy.rego")) as address, pytest.raises(error, match=named) as caught:
        asyncio.run(ask(OpaEngine(address, ENTRYPOINT), request_document))
    assert type(caught.value) is error
    assert "hunter22" not in str(caught.value)


def test_no_policy_is_not_ready(serve: Serve) -> None:
    async def run(address: str) -> None:
        engine = OpaEngine(address, ENTRYPOINT)
        try:
            await engine.ready()
        finally:
            await engine.close()

    with serve() as address, pytest.raises(PolicyUndefined):
        asyncio.run(run(address))


def test_a_token(serve: Serve, tmp_path: Path, request_document: dict[str, Any]) -> None:
    (tmp_path / "authz.rego").write_text(
        'package system.authz\n\ndefault allow := false\n\nallow if input.identity == "t0ken"\n'
    )
    (tmp_path / "policy.rego").write_text(POLICY)
    files = [str(tmp_path / "authz.rego"), str(tmp_path / "policy.rego")]
    with serve("--authentication=token", "--authorization=basic", *files) as address:
        assert asyncio.run(ask(OpaEngine(address, ENTRYPOINT, token="t0ken"), request_document))
        with pytest.raises(EngineError, match="refused the question with 401; give the sidecar OPA's token"):
            asyncio.run(ask(OpaEngine(address, ENTRYPOINT), request_document))


def test_an_opa_that_stopped_is_unavailable_each_time(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "policy.rego").write_text(POLICY)
    with serve(str(tmp_path / "policy.rego")) as address:
        pass

    async def run() -> None:
        engine = OpaEngine(address, ENTRYPOINT)
        for _ in range(2):
            with pytest.raises(EngineUnavailable, match="cannot be reached"):
                await engine.evaluate({}, 30)
        with pytest.raises(EngineUnavailable, match="not healthy"):
            await engine.ready()
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("odd", [{"x": float("nan")}, {"x": "\ud800"}, {"x": {1}}, {"x": float("inf")}])
def test_input_that_is_not_json(serve: Serve, odd: dict[str, Any]) -> None:
    with serve() as address, pytest.raises(EngineError, match="the policy input is not JSON"):
        asyncio.run(ask(OpaEngine(address, ENTRYPOINT), odd))


@pytest.mark.parametrize(
    "address",
    ["", "unix:relative", "unix:/" + "x" * 120, "http://host", "https://h:1", "http://h:99999", "http://h:1/v1", "h:1"],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError, match="OPA's address"):
        OpaEngine(address, ENTRYPOINT)


def test_tokens_and_entry_points_that_are_none() -> None:
    with pytest.raises(UsageError, match="token"):
        OpaEngine("http://127.0.0.1:1", ENTRYPOINT, token="a\r\nHost: x")
    with pytest.raises(UsageError, match="entry point"):
        OpaEngine("http://127.0.0.1:1", "p/../decision")


# --- a fake that answers what OPA would not ---

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def fake(answer: Answer) -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """A server on a unix socket: reads a whole request, then does ``answer``. Events: a request came; the peer left."""
    asked, left = asyncio.Event(), asyncio.Event()

    done: list[asyncio.Task[None] | None] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.append(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            asked.set()
            await answer(writer)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the peer left early
        finally:
            left.set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    with tempfile.TemporaryDirectory(prefix="fake") as place:
        path = str(Path(place) / "s")
        async with await asyncio.start_unix_server(serve_one, path):
            yield f"unix:{path}", asked, left
            await asyncio.gather(*(task for task in done if task))


def http(body: bytes, status: str = "200 OK", headers: str = "Content-Type: application/json\r\n") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def says(raw: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return answer


async def cut(writer: asyncio.StreamWriter) -> None:
    writer.write(http(b'{"result": 1}')[:-3])
    writer.close()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


SECRET = "hunter22"


@pytest.mark.parametrize(
    ("answer", "error", "named"),
    [
        (says(b""), EngineTimeout, "did not answer in time"),
        (says(http(b"{}" * 99)[:80]), EngineTimeout, "did not answer in time"),
        (hang_up, EngineUnavailable, "cannot be reached"),
        (cut, EngineError, "did not answer as OPA does"),
        (says(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), EngineError, "did not answer as OPA does"),
        (says(http(b"<html>")), EngineError, "not JSON"),
        (says(http(b"")), EngineError, "not JSON"),
        (says(http(b"\xff")), EngineError, "not JSON"),
        (says(http(b'{"result":1,"result":2}')), EngineError, "not JSON"),
        (says(http(b'{"result":NaN}')), EngineError, "not JSON"),
        (says(http(b"[" * 100_000)), EngineError, "not JSON"),
        (says(http(b"[1]")), EngineError, "not an object"),
        (says(http(b'{"result":1e999}')), PolicyMisshaped, "no double"),
        (says(http(b'{"result":"\\ud800"}')), PolicyMisshaped, "surrogate"),
        (says(http(b'{"result":' + b"[" * 70 + b"]" * 70 + b"}")), PolicyMisshaped, "64 deep"),
        (says(http(b'{"result":"' + b"x" * (1 << 20) + b'"}')), EngineError, "more than 1048576 bytes"),
        (
            says(http(gzip.compress(b'{"result":1}'), headers="Content-Encoding: gzip\r\n")),
            EngineError,
            "not JSON",
        ),
        (says(http(SECRET.encode(), "500 Internal Server Error")), EngineError, "OPA answered 500; see"),
        (says(http(b"x" * 100_000, "500 Internal Server Error")), EngineError, "more than 65536 bytes"),
        (says(http(b'{"code":"x\\u0007"}', "502 Bad Gateway")), EngineError, "OPA answered 502"),
        (says(http(b"{}", "404 Not Found")), EngineError, "OPA answered 404"),
        (says(http(b"", "302 Found", "Location: /v1/data/p/decision\r\n")), EngineError, "302"),
        (says(http(b"", "204 No Content")), EngineError, "OPA answered 204"),
    ],
)
def test_answers_that_are_none(answer: Answer, error: type[EngineError], named: str) -> None:
    async def run() -> None:
        async with fake(answer) as (address, _, _left):
            with pytest.raises(error, match=named) as caught:
                await ask(OpaEngine(address, ENTRYPOINT), {"x": SECRET}, 0.5 if error is EngineTimeout else 30)
            assert type(caught.value) is error
            assert SECRET not in str(caught.value)

    asyncio.run(run())


def test_cancelling_is_passed_on_and_leaves_no_connection() -> None:
    async def run() -> None:
        async with fake(says(b"")) as (address, asked, left):
            engine = OpaEngine(address, ENTRYPOINT)
            task = asyncio.create_task(engine.evaluate({}, 60))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await left.wait()
            await engine.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_answer_is_never_used_for_another_question() -> None:
    """After a timeout the connection is gone, so a late answer cannot be taken for the next question's."""
    seen: list[int] = []

    async def late(writer: asyncio.StreamWriter) -> None:
        seen.append(len(seen))
        if len(seen) > 1:
            writer.write(http(json.dumps({"result": "second"}).encode()))

    async def run() -> None:
        async with fake(late) as (address, _, left):
            engine = OpaEngine(address, ENTRYPOINT)
            with pytest.raises(EngineTimeout):
                await engine.evaluate({"n": 1}, 0.2)
            await left.wait()
            assert (await engine.evaluate({"n": 2}, 30)).result == "second"
            await engine.close()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_no_time_left(timeout: float) -> None:
    async def run() -> None:
        async with fake(says(http(b'{"result":1}'))) as (address, _, _left):
            with pytest.raises(EngineTimeout):
                await ask(OpaEngine(address, ENTRYPOINT), {}, timeout)

    asyncio.run(run())
