"""Callers that keep whatever they were answered, and the comparison of that with what the ledger holds."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType, Header, StoredEntry
from sidecar.chain.stream import Kind, records
from sidecar.custody import load_private, open_seed
from sidecar.ledger import ledger_stream
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as grpc_stubs
from sidecar.verify import Evidence, Report, verify_stream
from tests.api.running import request, streamed

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)  # and no back-off inherited from a sidecar that was killed
GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
LATE = ("DEADLINE_EXCEEDED", "CANCELLED")  # the second where the server's clock was the first to notice
IN_FLIGHT = 8  # questions of one stream
DEADLINE = 30.0

Ask = Callable[[int], pb.DecideRequest]


@dataclass(slots=True)
class Told:
    """What callers were told: each decision's effect and receipt by its id, and the refusals counted by status."""

    effects: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, bytes] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    _awaited: list[tuple[Callable[[], bool], asyncio.Event]] = field(default_factory=list)

    def take(self, decision: pb.DecideResponse) -> None:
        self.effects[decision.decision_id] = pb.Effect.Name(decision.effect).removeprefix("EFFECT_")
        self.receipts[decision.decision_id] = decision.receipt
        self._look()

    def refuse(self, status: str) -> None:
        self.refused[status] += 1
        self._look()

    def take_answer(self, answer: pb.Answer) -> None:
        if answer.WhichOneof("what") == "decision":
            self.take(answer.decision)
        else:
            self.refuse(_name_of(answer.refusal.code))

    async def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = len(self.receipts) + count
        await self._until(lambda: len(self.receipts) >= wanted)

    async def refusals(self, status: str, count: int = 1) -> None:
        """Wait until so many more were refused with this status."""
        wanted = self.refused[status] + count
        await self._until(lambda: self.refused[status] >= wanted)

    async def any_refusal(self) -> None:
        """Wait until one more was refused with whatever status."""
        before = self.refused.total()
        await self._until(lambda: self.refused.total() > before)

    async def _until(self, reached: Callable[[], bool]) -> None:
        event = asyncio.Event()
        self._awaited.append((reached, event))
        async with asyncio.timeout(DEADLINE):
            await event.wait()

    def _look(self) -> None:
        for waiting in [w for w in self._awaited if w[0]()]:
            self._awaited.remove(waiting)
            waiting[1].set()


def _name_of(code: int) -> str:
    return next((c.name for c in grpc.StatusCode if c.value[0] == code), "?")


def plain(number: int) -> pb.DecideRequest:
    """Every third is one that the starter policy denies."""
    return request() if number % 3 else request(action="deploy.rollout")


class Load:
    """Callers of one sidecar, each asking again as soon as it is answered, until the sidecar is gone."""

    def __init__(self, address: str, told: Told, ask: Ask = plain) -> None:
        self._address, self._told, self._ask = address, told, ask
        self._numbers = itertools.count()

    @asynccontextmanager
    async def running(self, unary: int, batches: int = 0, streams: int = 0) -> Any:
        """The callers run while the body does; afterwards they are waited for: they end when the sidecar is gone."""
        async with grpc.aio.insecure_channel(self._address, options=OWN_CONNECTION) as channel:
            stub = grpc_stubs.DecisionServiceStub(channel)
            kinds = [*(self._unary,) * unary, *(self._batch,) * batches, *(self._stream,) * streams]
            callers = [asyncio.create_task(self._until_gone(kind, stub)) for kind in kinds]
            try:
                yield
                async with asyncio.timeout(2 * DEADLINE):
                    await asyncio.gather(*callers)
            finally:
                for caller in callers:
                    caller.cancel()

    async def _until_gone(self, kind: Callable[[Any], Any], stub: Any) -> None:
        while True:
            try:
                await kind(stub)
            except grpc.aio.AioRpcError as error:
                self._told.refuse(error.code().name)
                if error.code() in GONE:
                    return

    def _next(self) -> pb.DecideRequest:
        return self._ask(next(self._numbers))

    async def _unary(self, stub: Any) -> None:
        self._told.take(await stub.Decide(self._next(), timeout=DEADLINE))

    async def _batch(self, stub: Any) -> None:
        batch = pb.DecideBatchRequest(requests=[self._next() for _ in range(5)])
        for answer in (await stub.DecideBatch(batch, timeout=DEADLINE)).answers:
            self._told.take_answer(answer)

    async def _stream(self, stub: Any) -> None:
        call = stub.DecideStream()
        for _ in range(IN_FLIGHT):
            await call.write(streamed(self._next()))
        while (response := await call.read()) is not grpc.aio.EOF:
            for each in response.answers:
                self._told.take_answer(each.answer)
            await call.write(streamed(*(self._next() for _ in response.answers)))
        await call.code()


def recorded(ledger: Path) -> Iterator[tuple[Header, dict[str, Any]]]:
    """Every entry of the ledger, in its order."""
    with ledger_stream(ledger) as read:
        for kind, body in records(read):
            if kind is Kind.ENTRY:
                stored = StoredEntry.parse(body)
                header = Header.decode(stored.header)
                yield header, strictjson.parse_object(stored.payload(header.payload_len))


def effects_recorded(ledger: Path) -> dict[str, str]:
    """Each recorded decision's effect by its id."""
    return {v["decision_id"]: v["effect"] for h, v in recorded(ledger) if h.type is EntryType.DECISION}


def verified(ledger: Path, key: Path, receipts: list[bytes]) -> Report:
    """The verifier's report, with the custodian's key and the receipts."""
    keys = [load_private(key.read_bytes())]
    with ledger_stream(ledger) as read:
        return verify_stream(read, Evidence(lambda *where: open_seed(keys, *where), receipts=receipts))


def assert_kept(ledger: Path, key: Path, told: Told) -> Report:
    """Whatever was answered is recorded as it was answered, and the whole ledger verifies, receipts included."""
    inside = effects_recorded(ledger)
    missing = [i for i, effect in told.effects.items() if inside.get(i) != effect]
    assert not missing, f"{len(missing)} of {len(told.effects)} answered decisions are not in the ledger"
    receipts = list(told.receipts.values())
    report = verified(ledger, key, receipts)
    worse = [f for f in report.findings if f.verdict.name != "UNANCHORED"]
    assert report.verdict.name == "UNANCHORED" and not worse, worse[:5]
    assert not receipts or f"receipts against their entries: {len(receipts)}" in report.checked
    return report
