"""The clocks an entry is stamped with, and the writer's waiting.

Wall clock: `CLOCK_REALTIME`. Boot-time clock: `CLOCK_BOOTTIME`, which nobody can set and which runs on while the
machine sleeps. Clock error: `maxerror` of adjtimex(2), the kernel's own upper bound.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.chain.limits import UNKNOWN_CLOCK_ERROR

_SECOND: Final = 1_000_000_000
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_STA_UNSYNC: Final = 0x40
_MAX_WAIT: Final = 3_600.0  # a condition cannot wait for longer than threading.TIMEOUT_MAX


@dataclass(frozen=True, slots=True)
class Moment:
    """Both clocks, in ns, and the wall clock's greatest error in ms (:data:`UNKNOWN_CLOCK_ERROR` where unknown)."""

    wall_ns: int
    mono_ns: int
    error_ms: int = UNKNOWN_CLOCK_ERROR


class Clock(Protocol):
    """Where time comes from. Both methods are called on the writer's thread."""

    def now(self) -> Moment:
        """The present moment. `mono_ns` never falls."""
        ...

    def wait(self, condition: threading.Condition, until_mono_ns: int) -> None:
        """Wait on a condition that the caller holds, until it is notified or the boot-time clock reaches this value.

        It may return early: callers look again.
        """
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self, read_error: Callable[[], int] | None = None) -> None:
        self._read_error = read_error or kernel_clock_error_ms
        self._error = UNKNOWN_CLOCK_ERROR
        self._stale_at = 0

    def now(self) -> Moment:
        """As :meth:`Clock.now`. The clock error is read at most once a second."""
        mono = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if mono >= self._stale_at:
            self._error = self._read_error()
            self._stale_at = mono + _SECOND
        return Moment(time.time_ns(), mono, self._error)

    def wait(self, condition: threading.Condition, until_mono_ns: int) -> None:
        """As :meth:`Clock.wait`."""
        left = until_mono_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if left > 0:
            condition.wait(min(left / _SECOND, _MAX_WAIT))


class _Timex(ctypes.Structure):
    """`struct timex` of <linux/timex.h> on machines with 64-bit longs, up to what is read here."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("_rest", ctypes.c_char * 512),  # more than any kernel writes
    )


def kernel_clock_error_ms() -> int:
    """The wall clock's greatest error in ms; unknown where the kernel does not synchronise it or will not say."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError):
        return UNKNOWN_CLOCK_ERROR
    timex = _Timex()  # modes 0: only read
    state = adjtimex(ctypes.byref(timex))
    if state in (-1, _TIME_ERROR) or timex.status & _STA_UNSYNC or timex.maxerror < 0:
        return UNKNOWN_CLOCK_ERROR
    return min(-(-int(timex.maxerror) // 1000), UNKNOWN_CLOCK_ERROR - 1)
