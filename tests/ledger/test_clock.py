"""The system's clock: what it reads, how often, and that waiting ends."""

from __future__ import annotations

import threading
import time

from sidecar.chain.limits import UNKNOWN_CLOCK_ERROR
from sidecar.ledger import SystemClock
from sidecar.ledger.clock import kernel_clock_error_ms


def test_now_gives_both_clocks() -> None:
    clock = SystemClock()
    wall, mono = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    first = clock.now()
    second = clock.now()
    assert wall <= first.wall_ns and mono <= first.mono_ns <= second.mono_ns


def test_the_clock_error_is_read_at_most_once_a_second() -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(7)
        return 7

    clock = SystemClock(read)
    start = clock.now()
    moments = [clock.now() for _ in range(1_000)]
    assert {m.error_ms for m in moments} == {7}
    assert 1 <= len(reads) <= 2 + (moments[-1].mono_ns - start.mono_ns) // 1_000_000_000


def test_the_kernels_error_is_a_bound_or_unknown() -> None:
    error = kernel_clock_error_ms()
    assert error == UNKNOWN_CLOCK_ERROR or 0 <= error < 3_600_000


def test_waiting_ends_when_the_time_has_come_or_has_passed() -> None:
    clock = SystemClock()
    condition = threading.Condition()
    with condition:
        clock.wait(condition, clock.now().mono_ns - 1)
        until = clock.now().mono_ns + 2_000_000
        while clock.now().mono_ns < until:
            clock.wait(condition, until)
    assert clock.now().mono_ns >= until


def test_waiting_ends_when_notified() -> None:
    clock = SystemClock()
    condition = threading.Condition()
    woken = threading.Event()

    def sleeper() -> None:
        with condition:
            started.set()
            clock.wait(condition, clock.now().mono_ns + 3_600 * 1_000_000_000)
        woken.set()

    started = threading.Event()
    thread = threading.Thread(target=sleeper, daemon=True)
    thread.start()
    assert started.wait(60)
    with condition:  # taken only once the sleeper waits
        condition.notify_all()
    assert woken.wait(60)
    thread.join(60)
