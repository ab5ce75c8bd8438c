"""How much is recorded and not yet with the collector, and whether that is too much."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.errors import Unshipped

Size = Callable[[int, int], int]
"""Bytes of the entries from one number up to another."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be unshipped: entries, seconds, bytes (0: any). ``deny``: beyond it every decision is a DENY."""

    entries: int = 0
    seconds: float = 0.0
    size: int = 0
    deny: bool = False


class Backlog:
    """``recorded`` gives the number of the entry to come, and how many bytes of entries this run stored; ``first`` is
    the number that it began with, ``before`` the bytes of all entries before that, at most: until the collector says
    how far it is, all of them count. Read by the decision path: no lock, no I/O.
    """

    def __init__(
        self,
        recorded: Callable[[], tuple[int, int]],
        bounds: Bounds,
        now: Callable[[], float] = time.monotonic,
        *,
        first: int = 0,
        before: int = 0,
    ) -> None:
        self._recorded, self._bounds, self._now = recorded, bounds, now
        self.acknowledged = 0
        """The number of the entry after the last one acknowledged."""
        self._since = now()
        self._first, self._told = first, False
        self._shipped = -before  # bytes of this run's entries that are there, less those of before that are not

    def shipped(self, acknowledged: int, all_before: float | None, size: Size) -> None:
        """All before entry ``acknowledged`` is there; so is all that was recorded before ``all_before``."""
        if not self._told:
            self._told = True
            self._shipped = size(self._first, acknowledged) - size(acknowledged, self._first)
        else:
            self._shipped += size(self.acknowledged, acknowledged)
        self.acknowledged = max(acknowledged, self.acknowledged)
        if all_before is not None:
            self._since = all_before

    @property
    def entries(self) -> int:
        """How many entries are not acknowledged."""
        return max(0, self._recorded()[0] - self.acknowledged)

    @property
    def size(self) -> int:
        """Bytes of them, as they are stored."""
        return max(0, self._recorded()[1] - self._shipped) if self.entries else 0

    @property
    def age(self) -> float:
        """For how many seconds at most the oldest of them waits; 0: none does."""
        return max(0.0, self._now() - self._since) if self.entries else 0.0

    @property
    def exceeded(self) -> bool:
        """Whether that is more than may be."""
        bounds = self._bounds
        return bool(
            (bounds.entries and self.entries > bounds.entries)
            or (bounds.seconds and self.age > bounds.seconds)
            or (bounds.size and self.size > bounds.size)
        )

    def check(self) -> None:
        """Raises Unshipped where no decision may be made."""
        if self._bounds.deny and self.exceeded:
            raise Unshipped("too much is recorded that the collector does not hold; mend its reachability")
