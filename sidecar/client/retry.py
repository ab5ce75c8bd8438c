"""When to ask again: one deadline for all attempts, and only after failures that say nothing of the question.

Asking again never decides twice: every question carries an idempotency key, and each attempt says the same. Nor does
reporting again: a decision has one outcome, and the same one again gets the same answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import grpc

from sidecar.client.failure import code_of, no_decision
from sidecar.errors import UsageError

_LOST: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})

AGAIN: Final = _LOST | {grpc.StatusCode.DEADLINE_EXCEEDED}
"""A call is repeated when the sidecar or the connection was lost, or an attempt took its share of the time."""

ATTEMPTS: Final = 4
"""How often one question or report is sent, unless the caller says otherwise."""

_FIRST_PAUSE = 0.025  # seconds; doubled each time
_LONGEST_PAUSE = 0.4


@dataclass(frozen=True, slots=True)
class Pace:
    """What waiting takes from the machine: a clock, two ways to sleep (seconds) and chance (0 to 1)."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    sleep_async: Callable[[float], Awaitable[object]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def pause(self, failures: int) -> float:
        """Seconds before the next attempt after ``failures`` (1 or more): 25 ms to 400 ms, less up to a half."""
        longest = min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE)
        return longest * (0.5 + self.chance() / 2)


REAL: Final = Pace()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often one sidecar is asked. ``timeout``: seconds for all attempts together."""

    address: str
    timeout: float
    attempts: int = ATTEMPTS
    pace: Pace = REAL

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 100:
            raise UsageError(f"attempts {self.attempts!r} must be from 1 to 100")


class Tries:
    """The attempts at one call, from the first on.

    An attempt gets half of the time that is left, the last one all of it. After the first, an attempt
    waits for the sidecar to come back instead of failing at once: so a restarted one is found.
    """

    def __init__(self, patience: Patience, receipt: bytes = b"") -> None:
        self._patience = patience
        self._receipt = receipt
        self._deadline = patience.pace.clock() + patience.timeout
        self._failures = 0
        self._lost: Exception | None = None

    @property
    def seconds(self) -> float:
        """What the next attempt may take."""
        left = max(self._deadline - self._patience.pace.clock(), 0.0)
        return left / 2 if self._failures + 1 < self._patience.attempts else left

    @property
    def waits(self) -> bool:
        """Whether the next attempt waits for a connection."""
        return self._failures > 0

    def pause_after(self, error: Exception) -> float:
        """Seconds to wait before the next attempt. NoDecision when this was the last."""
        self._failures += 1
        code = code_of(error)
        if code in _LOST:
            self._lost = error
        pause = self._patience.pace.pause(self._failures)
        over = self._patience.pace.clock() + pause >= self._deadline
        if over or self._failures >= self._patience.attempts or code not in AGAIN:
            # Nobody came back in time: why it was lost says more than that time ran out.
            told = self._lost if self._lost and code is grpc.StatusCode.DEADLINE_EXCEEDED else error
            raise no_decision(told, self._patience.address, self._patience.timeout, self._receipt) from error
        return pause
