"""Very many signed messages to a served sidecar, each with a nonce of its own, and replays among them."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as stubs
from tests.api.running import request
from tests.cli.test_observing import scrape
from tests.identity.agents import BILLING, registry_text
from tests.program import Serving, made, serving

AT_ONCE = 64
REPLAYED = 50


@dataclass(frozen=True, slots=True)
class Flood:
    """What came of it. ``anon``: RssAnon in bytes, after a tenth of the messages, and at the end."""

    replays: list[tuple[str, str]]
    counted: float
    anon: tuple[int, int]
    ledger: Path


def flood(place: Path, count: int) -> Flood:
    """So many reads of one entry, which leave nothing in the ledger, by one key; then some of them again."""
    ledger, _ = made(place)
    (place / "registry.json").write_bytes(registry_text(BILLING.entry()))
    settings = {"SIDECAR_REGISTRY": str(place / "registry.json"), "SIDECAR_SIGNATURE_WINDOW": "300"}
    with serving(ledger, "--metrics", "127.0.0.1:0", dev=False, **settings) as server:
        replays, anon = asyncio.run(_sent(server, count))
        page = scrape(server)
        counted = page["sidecar_unproved_total", "replayed"]
        assert counted == page["sidecar_rejected_total", "UNAUTHENTICATED"]
        assert server.stop() == 0
    return Flood(replays, counted, anon, ledger)


async def _sent(server: Serving, count: int) -> tuple[list[tuple[str, str]], tuple[int, int]]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        decisions: Any = stubs.DecisionServiceStub(channel)
        reading: Any = stubs.LedgerServiceStub(channel)
        head = await reading.Head(pb.HeadRequest())
        seq = (await decisions.Decide(BILLING.request(request(), head))).seq
        again = set(random.Random(7).sample(range(count), REPLAYED))
        kept: list[pb.GetEntryRequest] = []

        async def some(first: int, last: int) -> None:
            for number in range(first, last, AT_ONCE):
                sent = []
                for each in range(number, min(number + AT_ONCE, last)):
                    message = BILLING.read(pb.GetEntryRequest(seq=seq), str(seq), head)
                    sent.append(reading.GetEntry(message, timeout=60))
                    if each in again:
                        kept.append(message)
                await asyncio.gather(*sent)

        await some(0, count // 10)
        early = _anon(server)
        await some(count // 10, count)
        return [await _refused(reading.GetEntry(each)) for each in kept], (early, _anon(server))


async def _refused(call: Any) -> tuple[str, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def _anon(server: Serving) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10
