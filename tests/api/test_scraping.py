"""The listener for /metrics: one thing to ask, and nothing sent to it stops a decision."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.api import Health, Metrics, scraped
from sidecar.api.scraping import MAX_AT_ONCE, MAX_HEAD
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb
from tests.api.pages import series
from tests.api.running import request, running

GOOD = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.asynccontextmanager
async def listening(page: bytes = b"sidecar_ready 1.0\n") -> AsyncIterator[int]:
    async with scraped(lambda: page, Health(), "127.0.0.1", 0) as url:
        assert url.startswith("http://127.0.0.1:") and url.endswith("/metrics")
        yield int(url.split(":")[2].split("/")[0])


async def exchange(port: int, sent: bytes) -> bytes:
    """All that comes back until the other side closes; nothing where it breaks off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        with contextlib.suppress(OSError):
            writer.write_eof()
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> bytes:
    return answer.partition(b"\r\n")[0]


def test_a_page_is_given_whole() -> None:
    async def main() -> None:
        page = b"# a page\n" * 100_000  # more than a socket takes at once
        async with listening(page) as port:
            head, _, body = (await exchange(port, GOOD)).partition(b"\r\n\r\n")
            assert status(head) == b"HTTP/1.1 200 OK"
            assert b"\r\nContent-Type: text/plain; version=0.0.4" in head
            assert body == page

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/../metrics HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"405 Method Not Allowed"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_nothing_else_is_to_be_had(sent: bytes, said: bytes) -> None:
    async def main() -> None:
        async with listening() as port:
            assert status(await exchange(port, sent)).endswith(b" " + said)

    asyncio.run(main())


def test_a_hundred_odd_requests_do_no_harm(tmp_path: Path) -> None:
    chance = random.Random(7)
    metrics = Metrics("test")

    async def main() -> None:
        async with (
            running(tmp_path, metrics=metrics) as run,
            scraped(metrics.page, Health(), "127.0.0.1", 0) as url,
        ):
            port = int(url.split(":")[2].split("/")[0])
            for number in range(100):
                noise = chance.randbytes(chance.randrange(4 * MAX_HEAD))
                await exchange(port, noise if number % 2 else GOOD[: number % len(GOOD)] + noise + b"\r\n\r\n")
            await run.decisions.Decide(request())
            page = (await exchange(port, GOOD)).partition(b"\r\n\r\n")[2]
            assert series(page)["sidecar_decisions_total", "policy", "ALLOW"] == 1.0

    asyncio.run(main())


def test_connections_that_say_nothing_are_few_and_stop_no_decision_and_no_probe(tmp_path: Path) -> None:
    metrics = Metrics("test")

    async def main() -> None:
        async with running(tmp_path, metrics=metrics) as run, listening() as port:
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_AT_ONCE)]
            assert (await exchange(port, GOOD)).startswith(b"HTTP/1.1 200 OK")
            assert (await run.decisions.Decide(request())).effect == pb.EFFECT_ALLOW
            with contextlib.suppress(ConnectionError):
                assert await idle[0][0].read() == b""  # the oldest made room, and it alone
            reader, writer = idle[1]
            writer.write(GOOD)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            for _, writer in idle:
                writer.close()

    asyncio.run(main())


def test_ending_breaks_off_what_hangs() -> None:
    async def main() -> None:
        async with listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await exchange(port, GOOD)  # so the one before is known
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

    asyncio.run(main())


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    async def main() -> None:
        async with listening() as port:
            with pytest.raises(UsageError, match="cannot serve metrics on 127"):
                async with scraped(lambda: b"", Health(), "127.0.0.1", port):
                    pass

    asyncio.run(main())
