"""Bytes from somebody who means harm, where Envoy is expected: each gets an answer, and none an ALLOW that is not on
record."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import grpc.aio

from sidecar.enforce import ACCESS_LOG
from sidecar.enforce.envoy.v3 import access_log_pb2 as logs
from tests.enforce.test_door import asking, entry, request
from tests.scribe import SOAK

CASES = 5_000 if SOAK else 250
GOOD = [
    request().SerializeToString(),
    request(
        ("content-length", b"2"), ("content-type", b"application/json"), method="POST", raw_body=b"{}"
    ).SerializeToString(),
    request(("traceparent", b"00-" + b"a" * 32), route={"route": "r"}, path="/a/b?c=d").SerializeToString(),
]
PIECES = [
    b"\x00",
    b"\xff",
    b"%2f",
    b"..",
    b"//",
    b"\r\n",
    b"GET",
    b"CONNECT",
    b"HTTP/2",
    b"a" * 2_000,
    b"\x80" * 12,
    b"{}",
]


def mutated(rng: random.Random, good: bytes) -> bytes:
    data = bytearray(good)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + rng.randint(0, 6)] = rng.choice(PIECES)
        elif kind == 2:
            del data[at : at + rng.randint(1, 20)]
        else:
            data[at:at] = data[: rng.randint(0, 60)]
    return bytes(data)


def test_whatever_is_asked_is_answered(tmp_path: Path) -> None:
    async def main() -> None:
        rng, allowed = random.Random(20261126), 0
        async with asking(tmp_path) as door:
            for _ in range(CASES):
                answer = await door.check(mutated(rng, rng.choice(GOOD)))
                if answer.HasField("ok_response"):
                    allowed += 1
                else:
                    assert (
                        answer.status.code and answer.denied_response.status.code >= 400 and answer.denied_response.body
                    )
            decided = door.of("DECISION")
            assert allowed == len(decided) and 0 < allowed < CASES
            assert (await door.check(GOOD[0])).HasField("ok_response")

    asyncio.run(main())


def test_whatever_is_logged(tmp_path: Path) -> None:
    async def main() -> None:
        rng = random.Random(20261127)
        async with asking(tmp_path) as door:
            answer = await door.check(GOOD[0])
            said = entry(answer.dynamic_metadata.fields["decision_id"].string_value)
            of = logs.StreamAccessLogsMessage.HTTPAccessLogEntries
            good = logs.StreamAccessLogsMessage(http_logs=of(log_entry=[said])).SerializeToString()
            call = door.channel.stream_unary(f"/{ACCESS_LOG}/StreamAccessLogs")
            for _ in range(CASES // 2):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call(iter([mutated(rng, good)]))
            await door.log(said)
            assert len(door.of("OUTCOME")) == 1

    asyncio.run(main())
