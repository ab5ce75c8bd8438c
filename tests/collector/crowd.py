"""A crowd of sidecars in one process, each with a chain of its own that it seals once in a while.

    python -m tests.collector.crowd ADDRESS VKEY FIRST CHAINS SEALS SECONDS < go

Enrols its chains, ships each one's start, says "ready", waits for a line, and then has each chain seal a segment SEALS
times, SECONDS apart, evenly spread. As a sidecar, it ships, asks for the receipt, and asks again every half second.
It prints the seconds from each shipment to the checked receipt, as one JSON list.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc.aio

from sidecar.chain import checkpoint, merkle, note
from sidecar.chain.logged import Logged
from sidecar.chain.note import VerifierKey
from sidecar.chain.parcel import enrol_message, pack, parcel_message
from sidecar.chain.tlog_proof import TlogProof
from sidecar.v1 import collector_pb2 as pb
from sidecar.v1 import collector_pb2_grpc
from tests.scribe import Record, Scribe, signing_key

_CONNECTIONS = 16  # each carries as many calls at once as the collector allows, 16
_AT_ONCE = 64  # chains that enrol at the same time
_PERIOD = 0.5  # seconds between two questions for a receipt


@dataclass(slots=True)
class Chain:
    """What one sidecar sends: bytes that were made before any time is taken."""

    chain_id: bytes
    enrolment: pb.EnrolRequest
    parcels: list[pb.ShipRequest]
    sealed: list[bytes]


def made(number: int, seals: int) -> Chain:
    """A chain whose first parcel is its start, and each one after that an empty segment's seal."""
    scribe = Scribe(f"crowd {number}")
    identity = signing_key(scribe.name, "identity")

    def parcel(records: Sequence[Record]) -> pb.ShipRequest:
        packed = pack((each.kind, each.body) for each in records)
        signature = identity.sign(parcel_message(scribe.chain_id, packed))
        return pb.ShipRequest(chain_id=scribe.chain_id, parcel=packed, signature=signature)

    scribe.open()
    parcels, sealed, at = [parcel(scribe.records)], [], len(scribe.records)
    for _ in range(seals):
        scribe.seal("time")
        parcels.append(parcel(scribe.records[at:]))
        sealed.append(note.parse(scribe.records[-1].body).text.encode())
        at = len(scribe.records)
    signature = identity.sign(enrol_message(scribe.genesis, b""))
    return Chain(scribe.chain_id, pb.EnrolRequest(genesis=scribe.genesis, signature=signature), parcels, sealed)


class Crowd:
    def __init__(self, address: str, key: VerifierKey, chains: list[Chain]) -> None:
        self._address, self._key, self._chains = address, key, chains
        self.took: list[float] = []

    async def run(self, seconds: float) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(self._address, options) for _ in range(_CONNECTIONS)]
        self._stubs = [collector_pb2_grpc.CollectorStub(each) for each in channels]
        room = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._start(number, room) for number in range(len(self._chains))))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.monotonic()
        await asyncio.gather(*(self._seals(number, began, seconds) for number in range(len(self._chains))))
        for each in channels:
            await each.close()

    async def _start(self, number: int, room: asyncio.Semaphore) -> None:
        chain, stub = self._chains[number], self._stubs[number % _CONNECTIONS]
        async with room:
            refused = (await stub.Enrol(chain.enrolment)).refusal.code
            assert not refused and not (await stub.Ship(chain.parcels[0])).refusal.code

    async def _seals(self, number: int, began: float, seconds: float) -> None:
        chain, stub = self._chains[number], self._stubs[number % _CONNECTIONS]
        for turn, text in enumerate(chain.sealed):
            due = began + seconds * (turn + number / len(self._chains))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sent = time.monotonic()
            assert not (await stub.Ship(chain.parcels[turn + 1])).refusal.code
            while not await self._receipt(stub, chain, text):  # noqa: ASYNC110  asks again, as a sidecar does
                await asyncio.sleep(_PERIOD)
            self.took.append(time.monotonic() - sent)

    async def _receipt(self, stub: collector_pb2_grpc.CollectorAsyncStub, chain: Chain, text: bytes) -> bool:
        found = await stub.Receipts(pb.ReceiptsRequest(chain_id=chain.chain_id, entries=[text]))
        (data,) = found.proofs
        if not data:
            return False
        proof = TlogProof.parse(data)
        at = checkpoint.verify(proof.checkpoint, self._key)[0]
        merkle.verify_inclusion(proof.index, at.size, merkle.leaf_hash(text), proof.path, at.root)
        return Logged.parse(proof.extra or b"").text.encode() == text


def main(address: str, vkey: str, first: str, chains: str, seals: str, seconds: str) -> None:
    numbers = range(int(first), int(first) + int(chains))
    crowd = Crowd(address, note.parse_vkey(vkey), [made(number, int(seals)) for number in numbers])
    asyncio.run(crowd.run(float(seconds)))
    print(json.dumps(crowd.took), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
