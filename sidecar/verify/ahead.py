"""Runs of entries seen ahead by several processes, so that a large ledger is verified by all processors.

What a run's own bytes say (`run.see`) takes four fifths of the time, and anybody may find it out before the judgement
gets there. The judgement itself is one, takes each record in its order, and is the same whoever saw the run. This
process sees runs too while it has nothing to judge: those need not be handed over. Memory is flat: each worker has one
or two parcels of runs, and no more is read from the stream while much is waiting.
"""

from __future__ import annotations

import select
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Final, Protocol

from msgspec import msgpack

from sidecar.chain.stream import Kind
from sidecar.errors import Malformed, UsageError
from sidecar.verify.contents import Fault, Told
from sidecar.verify.plain import Plain
from sidecar.verify.report import Verdict
from sidecar.verify.run import Headers, Run, Seen, see

_PARCEL_BYTES: Final = 1 << 18
_PARCEL_RUNS: Final = 8
_WAITING_BYTES: Final = 8 << 20  # from which on nothing more is read from the stream
_WAITING: Final = 32  # parcels
_FRAMES: Final = 1 << 16  # bytes that a pipe needs for two questions besides their entries, and more

_ENDED: Final = "a process that helped to verify has ended (killed? out of memory?): use --jobs 1"

Given = tuple[Kind, list[bytes], Seen | None]
"""A run, and what was seen of it if it is of entries."""


class Worker(Protocol):
    """Somebody who sees many runs of entries, and answers questions in their order."""

    def takes(self, size: int) -> bool:
        """Whether one may :meth:`ask` once more before the last answer, the entries of both questions being of ``size``
        bytes. No more than two questions wait."""

    def ask(self, runs: Sequence[Sequence[bytes]]) -> None:
        """Give it runs of stored entries, and do not wait for the answer."""

    def ready(self) -> bool:
        """Whether it has begun to answer, so that :meth:`answer` hardly waits."""

    def answer(self) -> list[Seen]:
        """What it saw of each of the runs of the first question not answered yet."""


class _Parcel:
    """Runs that one process sees. ``seen``: what it saw of those of entries; None: a worker is still at it."""

    __slots__ = ("runs", "seen", "size", "worker")

    def __init__(self, runs: Iterable[Run], size: int) -> None:
        self.runs, self.size = deque(runs), size
        self.seen: deque[Seen] | None = None
        self.worker: _Employed | None = None

    def entries(self) -> list[list[bytes]]:
        return [bodies for kind, bodies in self.runs if kind is Kind.ENTRY]

    def see(self) -> None:
        """All of it, here."""
        self.seen = deque(map(see, self.entries()))

    def first(self) -> Given:
        """Its first run, which it then has no more."""
        kind, bodies = self.runs.popleft()
        return kind, bodies, self.seen.popleft() if self.seen and kind is Kind.ENTRY else None


class _Employed:
    """A worker and what it is at, two parcels at most, in the order of its answers."""

    __slots__ = ("_at", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._at: deque[_Parcel] = deque()

    def takes(self, size: int) -> bool:
        return not self._at or (len(self._at) == 1 and self._worker.takes(self._at[0].size + size))

    def give(self, parcel: _Parcel) -> None:
        self._worker.ask(parcel.entries())
        parcel.worker = self
        self._at.append(parcel)

    def collect(self, *, wait: bool) -> None:
        """Its next answer if it has begun to give one, or ``wait`` for it."""
        if self._at and (wait or self._worker.ready()):
            self._at.popleft().seen = deque(self._worker.answer())

    def finish(self) -> None:
        while self._at:
            self.collect(wait=True)


def ahead(runs: Iterable[Run], workers: Sequence[Worker]) -> Iterator[Given]:
    """The runs in their order, each of entries with what was seen of it, by a worker or here.

    Raises:
        Malformed: what ``runs`` raised, once all runs before it were given.
    """
    if not workers:
        for kind, bodies in runs:
            yield kind, bodies, see(bodies) if kind is Kind.ENTRY else None
        return
    shared = _Shared(runs, workers)
    try:
        yield from shared.all()
    finally:
        shared.finish()
    if shared.trouble is not None:
        raise shared.trouble


class _Shared:
    """Who sees what. ``trouble``: why there are no more runs, if that is not the stream's end."""

    def __init__(self, runs: Iterable[Run], workers: Sequence[Worker]) -> None:
        self.trouble: Malformed | None = None
        self._unread = self._until_trouble(runs)
        self._workers = [_Employed(worker) for worker in workers]
        self._waiting: deque[_Parcel] = deque()
        self._size = 0  # of what is waiting, bytes

    def all(self) -> Iterator[Given]:
        """All runs in their order. Workers first get something to do; this process judges what was seen, else sees the
        next run itself, else waits."""
        while True:
            self._employ()
            first = self._waiting[0] if self._waiting else None
            if first is not None and first.seen is not None:
                yield first.first()
                if not first.runs:
                    self._size -= self._waiting.popleft().size
            elif (own := self._next(1)) is not None:
                own.see()
            elif first is None:
                return
            elif first.worker is not None:
                first.worker.collect(wait=True)

    def finish(self) -> None:
        """Nobody wants the rest: the workers are free for another stream."""
        for worker in self._workers:
            worker.finish()

    def _employ(self) -> None:
        for worker in self._workers:
            worker.collect(wait=False)
        for worker in (*self._workers, *self._workers):
            if worker.takes(_PARCEL_BYTES) and (parcel := self._next(_PARCEL_RUNS)) is not None:
                if parcel.entries() and worker.takes(parcel.size):
                    worker.give(parcel)
                else:
                    parcel.see()

    def _next(self, most: int) -> _Parcel | None:
        """Up to so many runs, from now on among what waits; None: there are none, or enough is waiting."""
        runs: list[Run] = []
        size = 0
        while (
            len(runs) < most and size < _PARCEL_BYTES and self._size < _WAITING_BYTES and len(self._waiting) < _WAITING
        ):
            run = next(self._unread, None)
            if run is None:
                break
            runs.append(run)
            size += sum(map(len, run[1]))
        if not runs:
            return None
        parcel = _Parcel(runs, size)
        self._waiting.append(parcel)
        self._size += size
        return parcel

    def _until_trouble(self, runs: Iterable[Run]) -> Iterator[Run]:
        try:
            yield from runs
        except Malformed as error:
            self.trouble = error


class Piped:
    """A worker in another process, which runs :func:`work` at the far ends of two pipes.

    A question is ``u32`` bytes of what follows, ``u32`` runs, of each run ``u32`` entries and ``u32`` bytes of each,
    and the entries. An answer is ``u32`` bytes of what follows, and a MessagePack array with ``[headers, plain,
    others]`` for each run: `Headers` or nil; of each entry a `Plain` or nil; and ``[index, map]`` or ``[index,
    [verdict, reason]]`` for those of which something else is told. A second question may wait in the pipe, which has
    ``room`` for so many bytes: one that did not fit would wait for the worker, and the worker perhaps for somebody who
    reads its answer.
    """

    def __init__(self, questions: IO[bytes], answers: IO[bytes], room: int = 0) -> None:
        self._questions, self._answers, self._room = questions, answers, room

    def takes(self, size: int) -> bool:
        """As `Worker.takes`."""
        return size + _FRAMES <= self._room

    def ask(self, runs: Sequence[Sequence[bytes]]) -> None:
        """As `Worker.ask`. Raises UsageError where the process has ended."""
        numbers = [len(runs)]
        for run in runs:
            numbers += len(run), *map(len, run)
        entries = [body for run in runs for body in run]
        head = struct.pack(f">I{len(numbers)}I", 4 * len(numbers) + sum(map(len, entries)), *numbers)
        try:
            self._questions.write(b"".join((head, *entries)))
            self._questions.flush()
        except BrokenPipeError:
            raise UsageError(_ENDED) from None

    def ready(self) -> bool:
        """As `Worker.ready`; also where the process has ended."""
        return bool(select.select([self._answers], [], [], 0)[0])

    def answer(self) -> list[Seen]:
        """As `Worker.answer`. Raises UsageError where the process has ended."""
        length = int.from_bytes(self._answers.read(4), "big")
        data = self._answers.read(length)
        if not data or len(data) < length:
            raise UsageError(_ENDED)
        return [Seen(headers, _together(plain, others)) for headers, plain, others in _decode(data)]


def work(questions: IO[bytes], answers: IO[bytes]) -> None:
    """What a worker's process does, until nobody asks any more."""
    while frame := questions.read(4):
        question = questions.read(int.from_bytes(frame, "big"))
        data = _encode([_parted(see(run)) for run in _runs(question)])
        answers.write(len(data).to_bytes(4, "big") + data)
        answers.flush()


_Parted = tuple[Headers | None, list[Plain | None], list[tuple[int, Any]]]
_encode: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder(list[_Parted]).decode


def _parted(seen: Seen) -> _Parted:
    told = seen.told
    plain = [each if type(each) is Plain else None for each in told]
    others = [(i, each) for i, each in enumerate(told) if each is not None and type(each) is not Plain]
    return seen.headers, plain, others


def _together(plain: Sequence[Plain | None], others: Sequence[tuple[int, Any]]) -> Sequence[Told | None]:
    if not others:
        return plain
    told: list[Told | None] = [*plain]
    for index, each in others:
        told[index] = Fault(Verdict(each[0]), each[1]) if isinstance(each, list) else each
    return told


def _runs(question: bytes) -> Iterator[list[bytes]]:
    (runs,) = struct.unpack_from(">I", question)
    lengths: list[tuple[int, ...]] = []
    at = 4
    for _ in range(runs):
        (entries,) = struct.unpack_from(">I", question, at)
        lengths.append(struct.unpack_from(f">{entries}I", question, at + 4))
        at += 4 * (entries + 1)
    for run in lengths:
        bodies = []
        for length in run:
            bodies.append(question[at : at + length])
            at += length
        yield bodies
