"""What is said to the operator, with a bound: a server or a client that misbehaves must not fill a disk with words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_MOST: Final = 200  # lines
_SECONDS: Final = 60.0  # in which there may be so many


class Saying:
    """At most so many lines a minute; how many were left out is said in the next."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._since, self._said, self._left_out = clock(), 0, 0

    def __call__(self, line: str) -> None:
        if self._clock() - self._since >= _SECONDS:
            if self._left_out:
                self._say(f"{self._left_out} lines were left out")
            self._since, self._said, self._left_out = self._clock(), 0, 0
        self._said += 1
        if self._said < _MOST:
            self._say(line)
        else:
            if self._said == _MOST:
                self._say("too much to say; the rest of this minute is left out")
            self._left_out += 1
