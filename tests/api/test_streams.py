"""DecideBatch and DecideStream: many questions, each decided, recorded and answered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sidecar.api.services import MAX_BATCH
from sidecar.api.streaming import UNDER_WAY
from sidecar.policy import Evaluation
from sidecar.v1 import decision_pb2 as pb
from tests.api.running import answered, judged, request, running, streamed
from tests.decide.engines import ALLOW, VERSION, ScriptedEngine


class GatedEngine(ScriptedEngine):
    """Holds every question until the gate opens, and tells when ``capacity`` wait; "quick" ones pass at once."""

    def __init__(self, capacity: int = 1) -> None:
        super().__init__(lambda _: ALLOW)
        self.capacity = capacity
        self.gate = asyncio.Event()
        self.full = asyncio.Event()
        self.waiting = 0

    async def evaluate(self, document: dict[str, object], timeout: float) -> Evaluation:
        if document["purpose"] != "quick":
            self.waiting += 1
            if self.waiting >= self.capacity:
                self.full.set()
            await self.gate.wait()
        return Evaluation(ALLOW, VERSION)


def question(number: int, **changes: object) -> pb.DecideStreamRequest:
    return streamed(request(**changes), first=number)


async def some(stream: Any, count: int) -> list[pb.StreamAnswer]:
    """So many answers, in however many messages they come."""
    given: list[pb.StreamAnswer] = []
    while len(given) < count:
        given += (await stream.read()).answers
    return given


def test_a_batch_is_answered_in_order_and_one_refusal_stops_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            asked = [request(purpose="one"), request(agent=""), request(purpose="three")]
            answers = (await run.decisions.DecideBatch(pb.DecideBatchRequest(requests=asked))).answers
            assert [a.WhichOneof("what") for a in answers] == ["decision", "refusal", "decision"]
            assert answers[1].refusal.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            assert answers[1].refusal.message.startswith("agent:")
            for answer in (answers[0], answers[2]):
                found = await run.reading.GetEntry(pb.GetEntryRequest(decision_id=answer.decision.decision_id))
                assert found.seq == answer.decision.seq

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
def test_a_batch_has_a_size(tmp_path: Path, count: int) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run.decisions.DecideBatch(pb.DecideBatchRequest(requests=[request()] * count))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert (caught.value.details() or "").startswith("requests:")

    asyncio.run(main())


def test_a_stream_answers_as_answers_are_ready(tmp_path: Path) -> None:
    async def main() -> None:
        engine = GatedEngine()
        async with running(tmp_path, engine) as run:
            stream = run.decisions.DecideStream()
            await stream.write(question(1))
            await stream.write(question(2, purpose="quick"))
            await stream.write(question(3, agent=""))
            early = {each.correlation_id: each for each in await some(stream, 2)}
            assert set(early) == {2, 3}
            assert early[2].answer.decision.effect == pb.EFFECT_ALLOW
            assert early[3].answer.refusal.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            engine.gate.set()
            assert [each.correlation_id for each in await some(stream, 1)] == [1]
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF

    asyncio.run(main())


def test_a_stream_reads_no_further_than_it_can_hold(tmp_path: Path) -> None:
    async def main() -> None:
        engine = GatedEngine(UNDER_WAY)
        sent = 0

        async def questions() -> AsyncIterator[pb.DecideStreamRequest]:
            nonlocal sent
            for number in range(400):
                sent += 1
                yield question(number, context=b'{"blob": "' + b"x" * 16_000 + b'"}')

        async with running(tmp_path, engine) as run:
            stream = run.decisions.DecideStream(questions())
            reader = asyncio.create_task(answered(stream))
            await engine.full.wait()
            held = engine.waiting
            # the sidecar reads nothing more while the gate is shut, so what was sent is bounded by flow control
            await run.reading.Head(pb.HeadRequest())
            assert engine.waiting == held == UNDER_WAY
            assert sent < 400
            engine.gate.set()
            assert sorted(a.correlation_id for a in await reader) == list(range(400))

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_an_overlong_question_is_refused_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, max_bytes=8192) as run:
            stream = run.decisions.DecideStream()
            await stream.write(question(1, context=b'{"blob": "' + b"x" * 9000 + b'"}'))
            await stream.write(question(2))
            both = {each.correlation_id: each for each in await some(stream, 2)}
            assert both[1].answer.refusal.message.startswith("request:")
            assert both[2].answer.decision.effect == pb.EFFECT_ALLOW
            await stream.done_writing()

    asyncio.run(main())


def test_questions_of_one_message_are_decided_each_by_itself_and_answered_together(tmp_path: Path) -> None:
    async def main() -> None:
        engine = GatedEngine(UNDER_WAY)
        async with running(tmp_path, engine) as run:
            stream = run.decisions.DecideStream()
            await stream.write(streamed(*(request() for _ in range(UNDER_WAY - 1))))
            await stream.write(streamed(request(), request(agent=""), request(purpose="quick"), first=UNDER_WAY))
            await engine.full.wait()  # of the second message only one has room
            await run.reading.Head(pb.HeadRequest())
            assert engine.waiting == UNDER_WAY
            engine.gate.set()
            messages = []
            while sum(map(len, messages)) < UNDER_WAY + 2:
                messages.append((await stream.read()).answers)
            assert len(messages) <= UNDER_WAY / 2  # one for what was ready at once
            given = {each.correlation_id: each.answer for message in messages for each in message}
            assert sorted(given) == list(range(1, UNDER_WAY + 3))
            assert given[UNDER_WAY + 1].refusal.message.startswith("agent:")
            assert len({each.decision.decision_id for each in given.values()}) == UNDER_WAY + 2  # "": the refusal
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_long_answers_do_not_make_a_message_that_no_client_takes(tmp_path: Path) -> None:
    long = {**ALLOW, "obligations": [{"type": "note", "value": "x" * 100_000}]}

    async def main() -> None:
        async with running(tmp_path, ScriptedEngine(lambda _: long)) as run:
            stream = run.decisions.DecideStream()
            await stream.write(streamed(*(request() for _ in range(UNDER_WAY))))  # 6.4 MB of answers; gRPC takes 4 MB
            assert len(await some(stream, UNDER_WAY)) == UNDER_WAY

    asyncio.run(main())


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
def test_a_message_without_questions_or_with_too_many_ends_the_stream(tmp_path: Path, count: int) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            stream = run.decisions.DecideStream()
            await stream.write(question(1))
            await stream.write(streamed(*(request() for _ in range(count)), first=2))
            assert [each.correlation_id for each in await some(stream, 1)] == [1]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert (caught.value.details() or "").startswith("questions:")

    asyncio.run(main())


def test_a_message_that_is_none_ends_the_stream_after_what_was_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            raw = run.channel.stream_stream("/sidecar.v1.DecisionService/DecideStream")
            stream = raw()
            await stream.write(question(1).SerializeToString())
            await stream.write(b"\xff\xff")
            assert pb.DecideStreamResponse.FromString(await stream.read()).answers[0].correlation_id == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(main())


def test_a_stream_that_is_dropped_leaves_a_ledger_that_verifies(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            stream = run.decisions.DecideStream()
            for number in range(50):
                await stream.write(question(number))
            await stream.read()
            stream.cancel()
            answer = await run.decisions.Decide(request())
            assert answer.effect == pb.EFFECT_ALLOW

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"
