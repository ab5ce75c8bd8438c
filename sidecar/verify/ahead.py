"""Payloads read ahead by other processes, so that a large ledger is verified by all processors.

What one entry's payload says, and whether it is what its header commits to, depends on that entry's bytes alone, and
takes four fifths of the time. So workers may find it out before the judgement gets there. The judgement itself is one,
takes each record in its order, and is the same whoever read the payload. Memory is flat: no worker has more than one
batch, and none is read from the stream before a worker is free for it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Final, Protocol

from msgspec import msgpack

from sidecar.chain.stream import Kind
from sidecar.errors import Malformed, UsageError
from sidecar.verify.contents import Fault, Told, tell
from sidecar.verify.report import Verdict

_BATCH_BYTES: Final = 1 << 18
_BATCH_RECORDS: Final = 1_000

_ENDED: Final = "a process that helped to verify has ended (killed? out of memory?): use --jobs 1"

Record = tuple[Kind, bytes]
Batch = list[Record]


class Worker(Protocol):
    """Somebody who does `contents.tell` for many entries; questions and answers take turns."""

    def ask(self, entries: list[bytes]) -> None:
        """Give it stored entries, and do not wait."""

    def answer(self) -> list[Told | None]:
        """What it told of each of the entries asked about last."""


def ahead(records: Iterable[Record], workers: Sequence[Worker]) -> Iterator[tuple[Kind, bytes, Told | None]]:
    """The records in their order, each entry with what a worker told of it; None: that is still to be found out.

    Raises:
        Malformed: what ``records`` raised, once all records before it were given.
    """
    if not workers:
        for kind, body in records:
            yield kind, body, None
        return
    trouble: list[Malformed] = []
    idle = list(workers)
    asked: deque[tuple[Batch, Worker]] = deque()
    try:
        for batch in _batches(records, trouble):
            before: Batch = []
            told: list[Told | None] = []
            if not idle:
                before, worker = asked.popleft()
                told = worker.answer()
                idle.append(worker)
            worker = idle.pop()
            worker.ask([body for kind, body in batch if kind is Kind.ENTRY])
            asked.append((batch, worker))
            yield from _together(before, told)  # while the workers are busy
        while asked:
            batch, worker = asked.popleft()
            yield from _together(batch, worker.answer())
    finally:
        while asked:  # nobody wants the rest: the workers are free for another stream
            asked.popleft()[1].answer()
    if trouble:
        raise trouble[0]


def _batches(records: Iterable[Record], trouble: list[Malformed]) -> Iterator[Batch]:
    """The records in batches. Why there are no more goes to ``trouble``, if that is not the stream's end."""
    batch: Batch = []
    size = 0
    try:
        for record in records:
            batch.append(record)
            size += len(record[1])
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_RECORDS:
                yield batch
                batch, size = [], 0
    except Malformed as error:
        trouble.append(error)
    yield batch


def _together(batch: Batch, told: list[Told | None]) -> Iterator[tuple[Kind, bytes, Told | None]]:
    answers = iter(told)
    for kind, body in batch:
        yield kind, body, next(answers) if kind is Kind.ENTRY else None


class Piped:
    """A worker in another process, which runs :func:`work` at the far ends of two pipes.

    A question is ``u32`` bytes of what follows, ``u32`` entries, ``u32`` bytes of each, and the entries; an answer
    ``u32`` bytes of what follows, and a MessagePack array of maps, nils, or ``[verdict, reason]``. The next question
    may only follow when the last was answered.
    """

    def __init__(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        self._questions, self._answers = questions, answers

    def ask(self, entries: list[bytes]) -> None:
        """As `Worker.ask`. Raises UsageError where the process has ended."""
        numbers = (len(entries), *map(len, entries))
        head = struct.pack(f">I{len(numbers)}I", 4 * len(numbers) + sum(numbers[1:]), *numbers)
        try:
            self._questions.write(b"".join((head, *entries)))
            self._questions.flush()
        except BrokenPipeError:
            raise UsageError(_ENDED) from None

    def answer(self) -> list[Told | None]:
        """As `Worker.answer`. Raises UsageError where the process has ended."""
        length = _number(self._answers)
        data = self._answers.read(length)
        if not data or len(data) < length:
            raise UsageError(_ENDED)
        return [Fault(Verdict(t[0]), t[1]) if isinstance(t, list) else t for t in msgpack.decode(data)]


def work(questions: IO[bytes], answers: IO[bytes]) -> None:
    """What a worker's process does, until nobody asks any more."""
    while frame := questions.read(4):
        question = questions.read(int.from_bytes(frame, "big"))
        told = [list(t) if isinstance(t, Fault) else t for t in map(tell, _entries(question))]
        data = msgpack.encode(told)
        answers.write(len(data).to_bytes(4, "big") + data)
        answers.flush()


def _entries(question: bytes) -> Iterator[bytes]:
    (count,) = struct.unpack_from(">I", question)
    at = 4 * (count + 1)
    for length in struct.unpack_from(f">{count}I", question, 4):
        yield question[at : at + length]
        at += length


def _number(source: IO[bytes]) -> int:
    return int.from_bytes(source.read(4), "big")
