"""DecideStream: questions and answers as they come, over one call (decision.proto).

At most 64 questions of a stream are under way; while they are, nothing more is read, and HTTP/2 flow control holds the
caller back. Answers that are ready at the same moment, as those of one commit are, go in one message: a message costs
as much as half a decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from sidecar.v1 import decision_pb2 as pb

UNDER_WAY = 64
_LONG = 256 * 1024  # bytes: a message of answers that has so many is sent without those that follow

Question = tuple[pb.StreamQuestion, int]
"""A question, and how long it was on the wire, bytes."""

Decide = Callable[[pb.DecideRequest, int, pb.Answer], Awaitable[None]]
"""Writes the answer to a question that was so many bytes long."""


async def answers(messages: AsyncIterator[Sequence[Question]], decide: Decide) -> AsyncIterator[bytes]:
    """Each question's answer, as soon as there is one, in DecideStreamResponses. An error of ``messages`` comes last.

    An answer is written as a whole message, once: protobuf messages with repeated fields are put together by putting
    their bytes together (protobuf, "Encoding", "Last One Wins").
    """
    room = asyncio.Semaphore(UNDER_WAY)
    ready: list[bytes] = []
    some = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def one(question: pb.StreamQuestion, size: int) -> None:
        response = pb.DecideStreamResponse()
        await decide(question.request, size, response.answers.add(correlation_id=question.correlation_id).answer)
        ready.append(response.SerializeToString())
        some.set()

    async def read() -> None:
        try:
            async for questions in messages:
                for question in questions:
                    await room.acquire()
                    task = asyncio.create_task(one(*question))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)
            some.set()

    reader = asyncio.create_task(read())
    try:
        while ready or not reader.done():
            await some.wait()
            some.clear()
            while ready:
                taken = _taken(ready)
                yield b"".join(taken)
                for _ in taken:
                    room.release()
        await reader
    finally:
        for task in (reader, *tasks):
            task.cancel()


def _taken(ready: list[bytes]) -> list[bytes]:
    """What is ready, as far as a message of it may be long; it is taken out of ``ready``."""
    count = length = 0
    while count < len(ready) and length < _LONG:
        length += len(ready[count])
        count += 1
    taken = ready[:count]
    del ready[:count]
    return taken
