"""The streams of a bundle, read while they are being written: whoever writes says how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sidecar.verify import Source

Read = Callable[[int], bytes]
"""Gives at most so many bytes, and none only at the end."""


@dataclass(frozen=True, slots=True)
class Grown:
    """How far a stream is: ``size`` bytes of it lie in the file from ``at`` on, and change no more; ``whole``: nothing
    follows them."""

    at: int
    size: int
    whole: bool = False


def streams(bundle: Source, told: Iterator[Grown], count: int) -> Iterator[Read]:
    """So many streams, each to be read before the next. Reading waits for what is not written yet."""
    for _ in range(count):
        stream = _Stream(bundle, next(told), told)
        yield stream.read
        stream.pass_over()


class _Stream:
    def __init__(self, bundle: Source, grown: Grown, told: Iterator[Grown]) -> None:
        self._bundle, self._grown, self._told = bundle, grown, told
        self._read = 0

    def read(self, size: int) -> bytes:
        while self._read == self._grown.size and not self._grown.whole:
            self._grown = next(self._told)
        data = self._bundle.read_at(self._grown.at + self._read, min(size, self._grown.size - self._read))
        self._read += len(data)
        return data

    def pass_over(self) -> None:
        """What is told of it is no longer wanted."""
        while not self._grown.whole:
            self._grown = next(self._told)
