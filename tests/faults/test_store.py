"""A store that fails or falls silent behind a busy server: no answer without an entry, no deadline passed over."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sidecar.errors import LedgerError
from sidecar.ledger import Options
from sidecar.ledger.store import LmdbStore
from sidecar.v1 import decision_pb2 as pb
from tests.api.running import Running, judged, request, running, streamed
from tests.faults.load import LATE, effects_recorded
from tests.ledger.test_faults import FAULTS, FaultyStore
from tests.ledger.worlds import CountedStore

PATIENCE = 60.0
SHORT = 0.3


class Gated:
    """Opens stores whose commits can be held back; ``store`` is the one opened last."""

    store: CountedStore

    def __call__(self, directory: Path, max_bytes: int) -> CountedStore:
        self.store = CountedStore(LmdbStore.open(directory, max_bytes))
        return self.store

    def hold(self) -> None:
        self.store.start_over()
        self.store.gate.clear()

    async def held(self) -> None:
        """Wait until a commit is being held back."""
        assert await asyncio.to_thread(self.store.arrived.acquire, timeout=PATIENCE)


async def outcomes(calls: list[Any]) -> tuple[list[pb.DecideResponse], Counter[str]]:
    """The answers of calls, and the statuses of those that had none."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    answers = [each for each in done if isinstance(each, pb.DecideResponse)]
    errors = Counter(each.code().name for each in done if isinstance(each, grpc.aio.AioRpcError))
    errors["CANCELLED"] += sum(isinstance(each, asyncio.CancelledError) for each in done)  # by the caller itself
    assert len(answers) + errors.total() == len(done), done
    return answers, +errors


def assert_recorded(directory: Path, answers: list[pb.DecideResponse]) -> None:
    recorded = effects_recorded(directory)
    assert all(recorded.get(a.decision_id) == "ALLOW" for a in answers)
    report = judged(directory, [a.receipt for a in answers])
    worse = [f for f in report.findings if f.verdict.name != "UNANCHORED"]
    assert report.verdict.name == "UNANCHORED" and not worse, worse


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", [1, 2, 5])
def test_a_failed_write_under_load(tmp_path: Path, nth: int, fault: str) -> None:
    def open_store(directory: Path, max_bytes: int) -> FaultyStore:
        return FaultyStore(LmdbStore.open(directory, max_bytes), nth, fault, LedgerError("input/output error"))

    async def main() -> list[pb.DecideResponse]:
        async with running(tmp_path, open_store=open_store, options=Options(batch=8)) as run:
            answers, refused = await outcomes([run.decisions.Decide(request()) for _ in range(100)])
            assert refused == {"UNAVAILABLE": 100 - len(answers)} and refused["UNAVAILABLE"]
            _, refused = await outcomes([run.decisions.Decide(request()) for _ in range(3)])
            assert refused == {"UNAVAILABLE": 3}
            with pytest.raises(LedgerError):
                run.ledger.check_writable()
            return answers

    answers = asyncio.run(main())
    assert len(answers) <= 8 * (nth - 1)
    assert_recorded(tmp_path / "ledger", answers)


def test_a_disk_that_hangs_holds_nobody_beyond_the_deadline(tmp_path: Path) -> None:
    gated = Gated()

    async def main() -> list[pb.DecideResponse]:
        async with running(tmp_path, open_store=gated) as run:
            before = await run.decisions.Decide(request())
            gated.hold()
            calls: list[Any] = [run.decisions.Decide(request(), timeout=SHORT) for _ in range(50)]
            batch = pb.DecideBatchRequest(requests=[request()] * 5)
            calls.append(run.decisions.DecideBatch(batch, timeout=SHORT))
            answers, refused = await outcomes(calls)
            assert not answers and refused.total() == 51 and refused.keys() <= set(LATE), refused
            await silent_stream(run)
            assert not gated.store.batches  # the disk still hangs
            found = await run.reading.GetEntry(pb.GetEntryRequest(seq=before.seq), timeout=PATIENCE)
            assert found.seq == before.seq  # what is recorded can be read meanwhile
            gated.store.gate.set()
            return [before, await run.decisions.Decide(request())]

    assert_recorded(tmp_path / "ledger", asyncio.run(main()))


async def silent_stream(run: Running) -> None:
    call = run.decisions.DecideStream(timeout=2.0)  # all five are written within it
    for number in range(5):
        await call.write(streamed(request(), first=number))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code().name in LATE


def test_a_flood_beyond_the_queue_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    gated, options = Gated(), Options(queue_limit=32, batch=8)

    async def main() -> list[pb.DecideResponse]:
        async with running(tmp_path, open_store=gated, options=options) as run:
            gated.hold()
            calls = [asyncio.ensure_future(run.decisions.Decide(request())) for _ in range(300)]
            pending = set(calls)
            while len(pending) > 40:  # 32 in the queue and the 8 of the group that is being written
                _, pending = await asyncio.wait(pending, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            gated.store.gate.set()
            answers, refused = await outcomes(calls)
            assert 32 <= len(answers) <= 40 and refused == {"UNAVAILABLE": 300 - len(answers)}
            return answers

    answers = asyncio.run(main())
    assert effects_recorded(tmp_path / "ledger").keys() == {a.decision_id for a in answers}
    assert_recorded(tmp_path / "ledger", answers)


def test_a_flood_of_callers_that_hang_up(tmp_path: Path) -> None:
    """Cancelled calls leave whole entries or none; the others are answered, and the queue empties."""
    gated = Gated()

    async def main() -> list[pb.DecideResponse]:
        async with running(tmp_path, open_store=gated) as run:
            gated.hold()
            calls = [run.decisions.Decide(request(idempotency_key=f"k-{n % 50}")) for n in range(400)]
            tasks = [asyncio.ensure_future(outcomes([call])) for call in calls]
            await gated.held()
            for call in calls[::2]:
                call.cancel()
            async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s.sock") as other:
                stream: Any = other.stream_stream("/sidecar.v1.DecisionService/DecideStream")()
                await stream.write(streamed(request()).SerializeToString())
            # the channel is closed with its stream under way
            gated.store.gate.set()
            answers: list[pb.DecideResponse] = []
            for number, task in enumerate(tasks):
                given, refused = await task
                answers += given
                assert given or (number % 2 == 0 and refused == {"CANCELLED": 1}), refused
            answers.append(await run.decisions.Decide(request()))
            assert run.ledger.usage().queue_depth == 0
            return answers

    answers = asyncio.run(main())
    assert len(answers) >= 201 and len({a.decision_id for a in answers}) <= 51  # 50 keys, each decided once
    unique = {a.decision_id: a for a in answers}
    assert_recorded(tmp_path / "ledger", list(unique.values()))
