"""Rounds: all witnesses are asked about one checkpoint at a time, so that they meet on it.

A log grows faster than the slowest witness answers. If each were asked about the newest checkpoint whenever it is free,
no checkpoint might ever have all of their cosignatures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sidecar.anchor.chaser import Chaser

SECONDS = 5.0
"""How long a round waits for those who do not answer, before the others go on without them."""


class Rounds:
    """``parties`` are asked together; any thread may call. ``now`` in seconds."""

    def __init__(self, parties: Sequence[Chaser[Any]], *, now: Callable[[], float] = time.monotonic) -> None:
        self._parties, self._now = parties, now
        self._lock = threading.Lock()
        self._newest = self._asked = b""
        self._began = 0.0
        self._vouched: set[str] = set()

    def offer(self, signed: bytes) -> None:
        """This is the newest checkpoint; returns at once."""
        with self._lock:
            self._newest = signed
            self._go_on()

    def vouched(self, name: str, signed: bytes) -> None:
        """This party did for a checkpoint."""
        with self._lock:
            if signed == self._asked:
                self._vouched.add(name)
            self._go_on()

    def _go_on(self) -> None:
        over = not self._asked or len(self._vouched) == len(self._parties) or self._now() - self._began >= SECONDS
        if self._newest == self._asked or not over:
            return
        self._asked, self._began, self._vouched = self._newest, self._now(), set()
        for each in self._parties:
            each.offer(self._asked)
