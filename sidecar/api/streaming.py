"""DecideStream: questions and answers as they come, over one call (decision.proto).

At most 64 questions of a stream are under way; while they are, nothing more is read, and HTTP/2 flow control holds the
caller back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sidecar.v1 import decision_pb2 as pb

UNDER_WAY = 64

Question = tuple[int, pb.DecideStreamRequest]
"""A message and how long it was on the wire, bytes."""

Decide = Callable[[pb.DecideRequest, int], Awaitable[pb.Answer]]


async def answers(questions: AsyncIterator[Question], decide: Decide) -> AsyncIterator[pb.DecideStreamResponse]:
    """Each question's answer, as soon as there is one. An error of ``questions`` comes last."""
    room = asyncio.Semaphore(UNDER_WAY)
    ready: asyncio.Queue[pb.DecideStreamResponse | None] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()

    async def one(size: int, question: pb.DecideStreamRequest) -> None:
        answer = await decide(question.request, size)
        ready.put_nowait(pb.DecideStreamResponse(correlation_id=question.correlation_id, answer=answer))

    async def read() -> None:
        try:
            async for question in questions:
                await room.acquire()
                task = asyncio.create_task(one(*question))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)
            ready.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (response := await ready.get()) is not None:
            yield response
            room.release()
        await reader
    finally:
        for task in (reader, *tasks):
            task.cancel()
