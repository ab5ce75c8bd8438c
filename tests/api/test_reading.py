"""Head, GetEntry and Prove: what they give can be checked with proto/LEDGER.md alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from sidecar.chain import merkle, note
from sidecar.chain.entry import Header, leaf, payload_commit
from sidecar.chain.head import Head
from sidecar.chain.seal import Seal
from sidecar.ledger import Options
from sidecar.ledger.store import LmdbStore
from sidecar.v1 import decision_pb2 as pb
from tests.api.running import request, running


def test_an_entry_fits_its_header_and_its_head(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            answer = await run.decisions.Decide(request())
            by_seq = await run.reading.GetEntry(pb.GetEntryRequest(seq=answer.seq))
            by_id = await run.reading.GetEntry(pb.GetEntryRequest(decision_id=answer.decision_id))
            assert by_seq == by_id
            header = Header.decode(by_seq.header)
            assert header.payload_commit == payload_commit(by_seq.salt, by_seq.payload)
            head = await run.reading.Head(pb.HeadRequest())
            position = Head.parse(note.parse(head.head).text)
            assert position.leaf == leaf(by_seq.header, by_seq.tag)
            assert head.next_seq == answer.seq + 1
            assert head.chain_id == header.chain_id

    asyncio.run(main())


def test_an_inclusion_proof_leads_to_the_seals_root(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, options=Options(segment_entries=7)) as run:
            answers = [await run.decisions.Decide(request(purpose=str(n))) for n in range(20)]
            sealed = [a for a in answers if (await run.reading.Head(pb.HeadRequest())).next_seq - a.seq > 7]
            assert sealed
            for answer in sealed:
                proof = await run.reading.Prove(pb.ProveRequest(seq=answer.seq))
                seal = Seal.parse(note.parse(proof.seal).text)
                hashed = merkle.leaf_hash(proof.leaf_input)
                merkle.verify_inclusion(proof.index, seal.count, hashed, list(proof.path), seal.root)
                assert Header.decode(proof.leaf_input[:184]).seq == answer.seq == seal.first + proof.index

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (pb.GetEntryRequest(seq=10**12), grpc.StatusCode.NOT_FOUND),
        (pb.GetEntryRequest(seq=2**64 - 1), grpc.StatusCode.NOT_FOUND),
        (pb.GetEntryRequest(decision_id="x"), grpc.StatusCode.NOT_FOUND),
        (pb.GetEntryRequest(), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_is_not_there_is_said_and_leaves_no_entry(
    tmp_path: Path, ask: pb.GetEntryRequest, status: grpc.StatusCode
) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            before = (await run.reading.Head(pb.HeadRequest())).next_seq
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run.reading.GetEntry(ask)
            assert caught.value.code() == status
            assert (await run.reading.Head(pb.HeadRequest())).next_seq == before

    asyncio.run(main())


def test_a_proof_of_an_open_segment_is_to_come(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            answer = await run.decisions.Decide(request())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run.reading.Prove(pb.ProveRequest(seq=answer.seq))
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION

    asyncio.run(main())


def test_proofs_that_read_for_long_leave_threads_to_others(tmp_path: Path) -> None:
    """Each reads a segment: an agent that asked for many kept all threads from whoever else needed one."""
    go = threading.Event()

    class Slow(LmdbStore):
        def entries(self, first: int, count: int) -> Iterator[bytes]:
            go.wait()
            return super().entries(first, count)

    async def main() -> None:
        opened = {"open_store": Slow.open, "options": Options(segment_entries=2)}
        async with running(tmp_path, **opened) as run:
            answer = await run.decisions.Decide(request())
            await run.decisions.Decide(request())
            asked = [asyncio.ensure_future(run.reading.Prove(pb.ProveRequest(seq=answer.seq))) for _ in range(64)]
            await run.reading.Head(pb.HeadRequest())
            try:
                async with asyncio.timeout(30):
                    await asyncio.to_thread(threading.active_count)
            finally:
                go.set()
            assert len({proof.seal for proof in await asyncio.gather(*asked)}) == 1

    asyncio.run(main())
