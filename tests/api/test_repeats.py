"""Idempotency keys: asked again, nothing is decided again; and receipts that callers bring back."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import lmdb
import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType, Header, StoredEntry, payload_commit, store
from sidecar.ledger import Options
from sidecar.v1 import decision_pb2 as pb
from tests.api.running import Running, judged, request, running
from tests.api.test_streams import GatedEngine
from tests.decide.engines import ALLOW, ScriptedEngine


async def count(run: Running) -> int:
    return int((await run.reading.Head(pb.HeadRequest())).next_seq)


def test_the_same_again_is_the_same_answer_also_after_a_restart(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda _: {**ALLOW, "obligations": [{"kind": "notify", "parameters": {"to": ["x"]}}]})
    asked = request(idempotency_key="k-1", alternatives=[pb.Alternative(action="b", resource=request().resource)])

    async def main() -> None:
        async with running(tmp_path, engine) as run:
            first = await run.decisions.Decide(asked)
            before = await count(run)
            assert await run.decisions.Decide(asked) == first
            assert await count(run) == before
        async with running(tmp_path, engine) as run:
            assert await run.decisions.Decide(asked) == first
        assert len(engine.seen) == 2  # one question and its alternative, once
        assert judged(tmp_path / "ledger", [first.receipt]).verdict.name == "UNANCHORED"

    asyncio.run(main())


def test_at_the_same_time_it_is_decided_once(tmp_path: Path) -> None:
    async def main() -> None:
        engine = GatedEngine()
        async with running(tmp_path, engine) as run:
            asked = [asyncio.ensure_future(run.decisions.Decide(request(idempotency_key="k"))) for _ in range(20)]
            await engine.full.wait()
            asked[0].cancel()
            engine.gate.set()
            answers = await asyncio.gather(*asked[1:])
            assert len({a.decision_id for a in answers}) == 1
            assert engine.waiting == 1

    asyncio.run(main())


@pytest.mark.parametrize("restart", [False, True])
def test_the_same_key_for_another_request_is_refused(tmp_path: Path, restart: bool) -> None:
    async def refused(run: Running) -> None:
        before = await count(run)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await run.decisions.Decide(request(idempotency_key="k", arguments=b'{"fields": ["iban"]}'))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert (caught.value.details() or "").startswith("idempotency_key:")
        assert await count(run) == before + 1  # the REJECTED entry

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.decisions.Decide(request(idempotency_key="k"))
            if not restart:
                await refused(run)
        if restart:
            async with running(tmp_path) as run:
                await refused(run)

    asyncio.run(main())


def test_keys_are_an_agents_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            one = await run.decisions.Decide(request(idempotency_key="k"))
            other = await run.decisions.Decide(request(idempotency_key="k", agent="support-agent"))
            assert one.decision_id != other.decision_id

    asyncio.run(main())


def test_keys_expire(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, options=Options(remember_ns=1)) as run:
            one = await run.decisions.Decide(request(idempotency_key="k"))
            again = await run.decisions.Decide(request(idempotency_key="k"))
            assert one.decision_id != again.decision_id

    asyncio.run(main())


def test_a_decision_that_failed_to_be_recorded_is_asked_anew(tmp_path: Path) -> None:
    calls = 0

    def script(_: dict[str, object]) -> object:
        nonlocal calls
        calls += 1
        return ALLOW

    async def main() -> None:
        async with running(tmp_path, ScriptedEngine(script)) as run:
            run.ledger.close()
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await run.decisions.Decide(request(idempotency_key="k"))
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_a_receipt_that_the_ledger_lost_is_refused_and_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            await run.decisions.Decide(request())
        shutil.copytree(tmp_path / "ledger", tmp_path / "old")
        async with running(tmp_path) as run:
            late = await run.decisions.Decide(request())
            assert (await run.decisions.Decide(request(last_receipt=late.receipt))).effect == pb.EFFECT_ALLOW
        shutil.rmtree(tmp_path / "ledger")
        (tmp_path / "old").rename(tmp_path / "ledger")
        async with running(tmp_path) as run:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run.decisions.Decide(request(last_receipt=late.receipt))
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert (caught.value.details() or "").startswith("last_receipt:")
            last = await run.reading.GetEntry(pb.GetEntryRequest(seq=await count(run) - 1))
            assert b'"type":"REJECTED"' in last.payload
            assert b"last_receipt" in last.payload

    asyncio.run(main())


def test_a_receipt_of_another_chain_is_noted_in_the_entry(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "other").mkdir()
        async with running(tmp_path / "other") as run:
            foreign = (await run.decisions.Decide(request())).receipt
        async with running(tmp_path) as run:
            answer = await run.decisions.Decide(request(last_receipt=foreign))
            entry = await run.reading.GetEntry(pb.GetEntryRequest(seq=answer.seq))
            assert b'"receipt_check":"foreign"' in entry.payload
            own = await run.decisions.Decide(request(last_receipt=answer.receipt))
            entry = await run.reading.GetEntry(pb.GetEntryRequest(seq=own.seq))
            assert b"receipt_check" not in entry.payload

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_what_is_no_receipt_is_refused_by_field(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run.decisions.Decide(request(last_receipt=b"not a receipt"))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert (caught.value.details() or "").startswith("last_receipt:")

    asyncio.run(main())


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the first DECISION of a ledger on disk, as somebody with the disk and no key can."""
    environment = lmdb.open(str(directory / "ledger.mdb"), subdir=False, max_dbs=4, map_size=1 << 30)
    entries = environment.open_db(b"entries")
    with environment.begin(write=True) as txn:
        for key, body in list(txn.cursor(entries)):
            stored = StoredEntry.parse(bytes(body))
            header = Header.decode(stored.header)
            if header.type is EntryType.DECISION:
                payload = json.loads(stored.payload(header.payload_len))
                change(payload)
                data = strictjson.dumps(payload)
                commit = payload_commit(stored.salt, data)
                changed = dataclasses.replace(header, payload_commit=commit, payload_len=len(data))
                txn.put(key, store(changed.encode(), stored.tag, stored.salt, data), db=entries)
                break
    environment.close()


def test_a_decision_edited_on_disk_is_not_given_out_again(tmp_path: Path) -> None:
    deny = {"effect": "DENY", "reasons": [{"code": "no", "message": "a test denies it"}]}

    def allow(payload: dict[str, Any]) -> None:
        payload["effect"] = "ALLOW"

    async def main() -> None:
        async with running(tmp_path, ScriptedEngine(lambda _: deny)) as run:
            assert (await run.decisions.Decide(request(idempotency_key="k"))).effect == pb.EFFECT_DENY
        edit(tmp_path / "ledger", allow)
        async with running(tmp_path, ScriptedEngine(lambda _: deny)) as run:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run.decisions.Decide(request(idempotency_key="k"))
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "sidecar verify" in (caught.value.details() or "")

    asyncio.run(main())
