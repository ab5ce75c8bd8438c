"""SIGTERM and SIGKILL while many callers ask: whatever was answered is recorded."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import grpc.aio
import pytest

from sidecar.chain import note
from sidecar.chain.entry import EntryType
from sidecar.chain.seal import Seal
from sidecar.chain.stream import records
from sidecar.client import NoDecision, Status
from sidecar.ledger import ledger_stream
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as grpc_stubs
from tests.api.running import request
from tests.faults.kills import Kills
from tests.faults.load import OWN_CONNECTION, Load, Told, assert_kept, recorded
from tests.program import made, serving

KILLS = 30


def test_sigterm_under_load_ends_in_order(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    told = Told()

    async def main() -> int:
        with serving(ledger) as server:
            async with Load(server.address, told).running(unary=10, batches=2, streams=2):
                await told.more(300)
                return await asyncio.to_thread(server.stop)

    assert asyncio.run(main()) == 0
    assert_kept(ledger, key, told)
    *_, (last, _) = recorded(ledger)
    assert last.type is EntryType.CLOSE
    with ledger_stream(ledger) as read:
        *_, (_, sealed) = records(read)
    assert Seal.parse(note.parse(sealed).text).reason == "close"


def test_what_was_decided_before_a_kill_can_be_told_of_and_asked_again(tmp_path: Path) -> None:
    """Its row in the index had not been written."""
    ledger, key = made(tmp_path)
    told = Told()

    async def ask(address: str) -> pb.DecideResponse:
        async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
            stub = grpc_stubs.DecisionServiceStub(channel)
            answer: pb.DecideResponse = await stub.Decide(request(idempotency_key="k"), wait_for_ready=True)
            told.take(answer)
            return answer

    with serving(ledger) as server:
        first = asyncio.run(ask(server.address))
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(ledger) as server:
        assert asyncio.run(ask(server.address)) == first
        with server.guard() as guard:
            seq = guard.report(first.decision_id, Status.EXECUTED, {"done": True})
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(ledger) as server, server.guard() as guard:
        with pytest.raises(NoDecision):  # it was reported on already, and another word is refused
            guard.report(first.decision_id, Status.FAILED, {"done": False})
        assert server.stop() == 0
    assert_kept(ledger, key, told)
    assert [(h.seq, h.ref_seq) for h, _ in recorded(ledger) if h.type is EntryType.OUTCOME] == [(seq, first.seq)]


def test_thirty_kills_lose_no_answer(tmp_path: Path) -> None:
    """`make soak` does a thousand."""
    ledger, key = made(tmp_path)
    kills = Kills(random.Random(3))
    with asyncio.Runner() as runner:
        while kills.count < KILLS:
            kills.kill(ledger, runner)
            if kills.count == KILLS // 2:
                assert_kept(ledger, key, kills.told)  # as the kill left it
    assert kills.under_load > kills.starting > 0 and len(kills.told.receipts) > KILLS
    assert_kept(ledger, key, kills.told)
    with serving(ledger) as server:
        assert server.stop() == 0
    assert_kept(ledger, key, kills.told)
