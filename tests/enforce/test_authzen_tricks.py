"""What is sent to the AuthZEN door to be read as two things, or to hold it up: an answer that is clear, or none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidecar.api import Transports, peer_of
from sidecar.client import FileSource
from sidecar.enforce.authzen import AuthZenDoor, AuthZenSettings
from sidecar.enforce.authzen.asked import MOST
from sidecar.enforce.authzen.http import served
from sidecar.enforce.authzen.tls import http_half, listening
from sidecar.policy import Evaluation
from tests.api.running import running
from tests.api.tls_files import NAME, Files, server_certificate
from tests.authorities import Authority
from tests.decide.engines import ALLOW, ScriptedEngine
from tests.enforce.pep import EVALUATION, EVALUATIONS
from tests.enforce.raw_http import CHUNKED, Asking, ambiguous, statuses
from tests.enforce.test_authzen_door import EDGE, GOOD, PEOPLE, answered, asking_at, go
from tests.identity.agents import BILLING, GATEWAY, registered

ASKING = Asking(EVALUATION.encode(), json.dumps(GOOD).encode())
E, POST, BODY, LENGTH = ASKING.path, ASKING.line, ASKING.body, ASKING.length
CHUNKS, SIZE = ASKING.chunks, ASKING.size
message = ASKING.message

SMUGGLED = message(LENGTH, body=BODY.replace(b'"read"', b'"evil"'), keep=True)
"""What would be asked if the message before it were read another way; as long as `BODY` says."""


def test_what_two_servers_could_read_as_two_things(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking_at(tmp_path) as door:
            for name, sent in ambiguous(ASKING).items():
                told = await door.raw(sent + SMUGGLED)
                assert statuses(told) == [400], (name, told)
                assert b"decision" not in told and not door.engine.seen, name

    go(main)


UNUSUAL: dict[str, tuple[bytes, int]] = {
    "zeros before the length": (message(b"content-length: 000%d" % len(BODY)), 200),
    "an extension of a chunk": (message(CHUNKED, body=SIZE + b";a=b\r\n" + BODY + b"\r\n0\r\n\r\n"), 200),
    "a trailer is none of the headers": (
        message(CHUNKED, body=CHUNKS[:-2] + b"x-sidecar-approval-of: 1\r\ncontent-type: text/plain\r\n\r\n"), 200
    ),
    "empty lines before": (b"\r\n" * 3 + message(LENGTH), 200),
    "another protocol is not taken": (
        message(LENGTH, b"connection: upgrade, close", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__"), 200
    ),
    "an id with a comma": (message(LENGTH, b"x-request-id: 1,2"), 200),
    "an id twice": (message(LENGTH, b"x-request-id: 1", b"x-request-id: 1"), 400),
    "an id in UTF-8": (message(LENGTH, "x-request-id: é".encode()), 400),
    "HTTP/1.0": (message(LENGTH, line=b"POST " + E + b" HTTP/1.0"), 505),
    "HTTP/2.0": (message(LENGTH, line=b"POST " + E + b" HTTP/2.0"), 505),
    "another expectation": (message(LENGTH, b"expect: 200-ok"), 417),
    "another expectation besides": (message(LENGTH, b"expect: 100-continue", b"expect: x"), 417),
    "HEAD": (message(LENGTH, line=b"HEAD " + E + b" HTTP/1.1"), 405),
    "OPTIONS": (message(LENGTH, line=b"OPTIONS " + E + b" HTTP/1.1"), 405),
    "GET that says it is POST": (
        message(LENGTH, b"x-http-method-override: POST", line=b"GET " + E + b" HTTP/1.1"), 405
    ),
    **{
        f"at {path.decode()}": (message(LENGTH, line=b"%s %s HTTP/1.1" % (method, path)), 404)
        for method, path in (
            (b"POST", b"http://evil.example" + E),
            (b"POST", b"https://a" + E),
            (b"CONNECT", b"a:443"),
            (b"OPTIONS", b"*"),
            (b"POST", b"/" + E),
            (b"POST", b"/x/.." + E),
            (b"POST", E + b"/."),
            (b"POST", E + b"%00"),
            (b"POST", E + b"#a"),
            (b"POST", E + b"?"),
            (b"POST", E + b";a"),
            (b"POST", E.upper()),
        )
    },
    "a mark before it": (message(b"content-length: %d" % (len(BODY) + 3), body=b"\xef\xbb\xbf" + BODY), 400),
    "UTF-16": (message(b"content-length: %d" % (2 * len(BODY)), body=BODY.decode().encode("utf-16-le")), 400),
    "two values": (message(b"content-length: %d" % (2 * len(BODY)), body=BODY + BODY), 400),
    "two charsets": (
        message(LENGTH).replace(b"application/json", b"application/json; charset=utf-8; charset=utf-16"), 400
    ),
    **{
        f"with {name}": (message(b"content-length: %d" % (len(BODY) + len(more) - 1), body=BODY[:-1] + more), 400)
        for name, more in {
            "9,000 arrays": b',"context":{"n":' + b"[" * 9_000 + b"]" * 9_000 + b"}}",
            "1e400": b',"context":{"n":1e400}}',
            "5,000 digits": b',"context":{"n":' + b"9" * 5_000 + b"}}",
            "NaN": b',"context":{"n":NaN}}',
            "a subject by another spelling": b',"subj\\u0065ct":{"type":"user","id":"mallory"}}',
        }.items()
    },
}  # fmt: skip
"""With the status of the one answer."""


def test_what_is_unusual_has_one_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking_at(tmp_path) as door:
            for name, (sent, status) in UNUSUAL.items():
                door.engine.seen.clear()
                told = await door.raw(sent)
                assert statuses(told) == [status], (name, told)
                assert (b'"decision":true' in told) is (status == 200) is bool(door.engine.seen), name

    go(main)


def test_who_waits_to_be_told_to_go_on(tmp_path: Path) -> None:
    """`Expect: 100-continue`: before the body, where it will be read; else the refusal comes at once."""

    async def main() -> None:
        async with asking_at(tmp_path) as door:
            for path, first in ((E, b"HTTP/1.1 100 Continue"), (b"/other", b"HTTP/1.1 404 Not Found")):
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "door.sock"))
                writer.write(message(LENGTH, b"expect: 100-continue", line=b"POST " + path + b" HTTP/1.1", body=b""))
                assert (await reader.readline()).rstrip() == first
                if path == E:
                    await reader.readline()
                    writer.write(BODY)
                    assert answered(await reader.read()).body["decision"] is True
                writer.close()
            assert len(door.engine.seen) == 1

    go(main)


@pytest.mark.parametrize("part", ["lines before", "header", "body", "chunk"])
def test_who_sends_a_little_at_a_time_is_not_waited_for(tmp_path: Path, part: str) -> None:
    """Each byte comes soon enough after the one before, and the whole does not."""
    begun = {
        "lines before": b"",
        "header": POST + b"\r\nhost: a\r\nx: ",
        "body": message(b"content-length: 9999", body=b""),
        "chunk": message(CHUNKED, body=b"1;"),
    }
    more = {"lines before": b"\r\n"}.get(part, b"1")

    async def main() -> None:
        async with asking_at(tmp_path, patience=0.3) as door:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "door.sock"))
            writer.write(begun[part])
            told = asyncio.create_task(reader.read())
            with contextlib.suppress(ConnectionError):  # it may be the writer who hears of it first
                for _ in range(2_000):
                    writer.write(more)
                    await writer.drain()
                    await asyncio.wait([told], timeout=0.02)
                    if told.done():
                        break
                else:
                    pytest.fail("it was waited for")
            with contextlib.suppress(ConnectionError):
                assert b"decision" not in await told
            writer.close()
            assert not door.engine.seen

    go(main)


def test_a_thousand_connections_that_say_nothing(tmp_path: Path) -> None:
    """Those beyond what is kept are dropped at once, the others when they were silent for too long."""

    async def main() -> None:
        async with asking_at(tmp_path, patience=1.0) as door:
            at = str(tmp_path / "door.sock")
            silent = [await asyncio.open_unix_connection(at) for _ in range(1_000)]
            for reader, writer in silent:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            assert answered(await door.raw(message(LENGTH))).body["decision"] is True

    go(main)


class Held(ScriptedEngine):
    """Answers once the gate is open."""

    def __init__(self, script: Callable[[dict[str, Any]], object]) -> None:
        super().__init__(script)
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        self.asked.set()
        await self.gate.wait()
        return await super().evaluate(document, timeout)


def test_questions_one_behind_the_other(tmp_path: Path) -> None:
    """Pipelined they are answered each, in order; and while one is being decided, few that follow are read."""
    one, last = message(LENGTH, keep=True), message(LENGTH)

    async def answers_all() -> None:
        async with asking_at(tmp_path) as door:
            told = await door.raw(one * 199 + last)
            assert told.count(b'"decision":true') == 200 == len(door.of("DECISION"))
        (tmp_path / "door.sock").unlink()

    async def reads_few() -> None:
        engine = Held(lambda _: ALLOW)
        async with asking_at(tmp_path, engine=engine):
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(str(tmp_path / "door.sock"))
                asking.setblocking(False)
                asking.send(one)
                await engine.asked.wait()
                sent, stuck = 0, 0
                while stuck < 20 and sent < 64 << 20:
                    try:
                        sent += asking.send(one * 64)
                        stuck = 0
                    except BlockingIOError:
                        stuck += 1
                        await asyncio.sleep(0.01)
                assert sent < 8 << 20
                engine.gate.set()

    asyncio.run(answers_all())
    asyncio.run(reads_few())


def test_as_many_evaluations_as_there_may_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking_at(tmp_path) as door:
            told = await door.post({**GOOD, "evaluations": [{}] * MOST}, EVALUATIONS)
            assert [each["decision"] for each in told.body["evaluations"]] == [True] * MOST
            assert (await door.post({**GOOD, "evaluations": [{}] * (MOST + 1)}, EVALUATIONS)).status == 400
            assert len(door.of("DECISION")) == MOST

    go(main)


def test_one_connection_too_many_is_dropped_over_tls_too(tmp_path: Path) -> None:
    """And there is room again once one is gone; by the loop of `sidecar serve`, whose connections have other types."""
    authority = Authority("a")
    mine = authority.issue(EDGE)
    (tmp_path / "mine.pem").write_bytes(mine.chain + mine.key_pem)
    files = Files(tmp_path).write(server_certificate(authority), authority)
    source = FileSource(files.paths, http_half, files.said.append)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.load_cert_chain(tmp_path / "mine.pem")

    async def main() -> None:
        settings = AuthZenSettings(GATEWAY.id, "mtls", BILLING.id)
        async with running(
            tmp_path, ScriptedEngine(lambda _: ALLOW), development=False, registry=registered(*PEOPLE)
        ) as run:
            door = AuthZenDoor(run.path, settings, Transports(lambda: source.current().bundles).of, peer_of)
            with socket.create_server(("127.0.0.1", 0)) as bound:
                at = bound.getsockname()[:2]

                async def asked(stack: contextlib.ExitStack) -> int:
                    """0 where it was dropped."""
                    reader, writer = await asyncio.open_connection(*at, ssl=context, server_hostname=NAME)
                    stack.callback(writer.close)
                    writer.write(message(LENGTH, keep=True))
                    with contextlib.suppress(ConnectionError):
                        return sum(statuses(await reader.readline()))
                    return 0

                async with served(door, bound, listening(source), 2):
                    with contextlib.ExitStack() as kept:
                        assert [await asked(kept), await asked(kept), await asked(kept)] == [200, 200, 0]
                    with contextlib.ExitStack() as kept:
                        while not await asked(kept):  # noqa: ASYNC110  the door hears of it by and by
                            await asyncio.sleep(0.01)

    uvloop.run(main())


def test_who_never_ends_a_handshake_keeps_nobody_out(tmp_path: Path) -> None:
    """The one that took longest is dropped for one more; the last ones when their time is over."""
    authority = Authority("a")
    files = Files(tmp_path).write(server_certificate(authority), authority)
    source = FileSource(files.paths, http_half, files.said.append)
    told: list[Any] = []

    async def good(port: int) -> int:
        mine = authority.issue(EDGE)
        (tmp_path / "mine.pem").write_bytes(mine.chain + mine.key_pem)
        context = ssl.create_default_context(cadata=authority.pem.decode())
        context.load_cert_chain(tmp_path / "mine.pem")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
        writer.write(message(LENGTH))
        status = answered(await reader.read()).status
        writer.close()
        return status

    async def main() -> None:
        settings = AuthZenSettings(GATEWAY.id, "mtls", BILLING.id)
        engine = ScriptedEngine(lambda _: ALLOW)
        async with running(tmp_path, engine, development=False, registry=registered(*PEOPLE)) as run:
            door = AuthZenDoor(run.path, settings, Transports(lambda: source.current().bundles).of, peer_of)
            with socket.create_server(("127.0.0.1", 0)) as bound:
                port = bound.getsockname()[1]
                begun: list[None] = []
                async with served(door, bound, listening(source), 4, 1.0, lambda: begun.append(None), told.append):
                    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(9)]
                    assert await good(port) == 200
                    for reader, writer in silent:
                        with contextlib.suppress(ConnectionError):
                            assert await reader.read() == b""
                        writer.close()
                    assert await good(port) == 200
                assert len(begun) == 11 and not told  # none of them was TLS's to end

    go(main)
