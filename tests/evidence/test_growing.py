"""Streams that are read while they are written: nothing is read before it is told of, and nothing is missed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from sidecar.chain.stream import MAGIC, Kind, record, records
from sidecar.errors import Malformed
from sidecar.evidence import FileSource, Grown, Order, export
from sidecar.evidence.account import Ask, Here
from sidecar.evidence.growing import Read, streams
from tests.evidence.bundled import DAY, source
from tests.evidence.day import day
from tests.scribe import START, Scribe

FIRST = MAGIC + b"".join(record(Kind.HEAD, bytes([n]) * 100) for n in range(10))
SECOND = MAGIC + record(Kind.SEAL, b"another chain's")


def written(file: BinaryIO, *pieces: tuple[int, bytes, bool]) -> Iterator[Grown]:
    """Writes each piece no sooner than it is asked how far the stream is: at, content, whole."""
    size = 0
    for at, piece, whole in pieces:
        os.pwrite(file.fileno(), piece, at + size)
        size += len(piece)
        yield Grown(at, size, whole)
        size = 0 if whole else size


def everything(read: Read) -> bytes:
    return b"".join(iter(lambda: read(7), b""))


def test_a_stream_is_read_as_far_as_it_is_told_of_and_then_waited_for() -> None:
    with tempfile.TemporaryFile() as file:
        pieces = ((9, FIRST[:40], False), (9, FIRST[40:], False), (9, b"", True), (5_000, SECOND, True))
        first, second = (everything(read) for read in streams(FileSource(file), written(file, *pieces), 2))
    assert (first, second) == (FIRST, SECOND)


def test_after_a_stream_that_is_not_read_to_its_end_comes_the_next() -> None:
    broken = b"not " + FIRST
    pieces = ((0, broken[:30], False), (0, broken[30:], False), (0, b"", True), (5_000, SECOND, True))
    found: list[object] = []
    with tempfile.TemporaryFile() as file:
        for read in streams(FileSource(file), written(file, *pieces), 2):
            try:
                found += records(read)
            except Malformed as error:
                found.append(str(error))
    assert found == ["stream does not start with SDCSEG 0 1", (Kind.SEAL, b"another chain's")]


class Following(Here):
    """Reads at once what it is told of, as another process might."""

    seen: dict[int, list[bytes]]
    ends: set[int]
    _bundle: BinaryIO

    def begin(self, ask: Ask, bundle: BinaryIO) -> None:
        super().begin(ask, bundle)
        self._bundle, self.seen, self.ends = bundle, {}, set()

    def grown(self, stream: Grown) -> None:
        super().grown(stream)
        self.seen.setdefault(stream.at, []).append(os.pread(self._bundle.fileno(), stream.size, stream.at))
        assert len(self.seen[stream.at][-1]) == stream.size
        assert stream.at not in self.ends
        self.ends |= {stream.at} if stream.whole else set()


def test_who_makes_the_account_can_read_a_stream_long_before_it_is_whole() -> None:
    long = Scribe("much")
    long.open()
    for _ in range(600):
        long.decision()
    long.close()
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile() as events, tempfile.TemporaryFile() as entries:
        following = Following(events, entries)
        order = Order(START - DAY, START + DAY, START + 2 * DAY, "x", ("ledger", "x"))
        export(order, [source(long), source(day().s)], out, accountant=following)
        for at, seen in following.seen.items():
            final = os.pread(out.fileno(), len(seen[-1]), at)
            assert all(final.startswith(each) for each in seen)
    assert len(following.ends) == 2
    assert any(len(seen[0]) < len(seen[-1]) / 2 for seen in following.seen.values())
