"""How blind one is: the decisions that nobody outside vouches for yet, counted a little at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

MOST: Final = 200_000  # entries counted at one look, about 0.1 s


class Unanchored:
    """``decisions(first, after)`` counts the DECISION entries from one number up to another."""

    def __init__(self, decisions: Callable[[int, int], int]) -> None:
        self._decisions = decisions
        self._lock = threading.Lock()
        self._first = self._upto = self._found = 0  # so many between the two

    def look(self, anchored: int, end: int) -> int:
        """How many there are from ``anchored`` up to ``end``. What is not counted yet counts as decisions: never less.

        Raises LedgerError.
        """
        with self._lock:
            if not self._first <= anchored < self._upto:
                self._first, self._upto, self._found = anchored, anchored, 0
            elif anchored > self._first:
                self._found -= self._decisions(self._first, anchored)
                self._first = anchored
            step = min(end, self._upto + MOST)
            if step > self._upto:
                self._found += self._decisions(self._upto, step)
                self._upto = step
            return self._found + max(0, end - self._upto)
