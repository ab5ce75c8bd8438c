"""Stopping and killing a process for good: a signal that was sent has not yet arrived."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path


def kill(pid: int) -> None:
    """Kill a process, and return when it is dead."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert select.select([descriptor], [], [], 60)[0]
    finally:
        os.close(descriptor)


def stop(pid: int) -> None:
    """Stop a process, and return when none of its threads runs: until then it can still answer."""
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + 60
    while {_state(thread) for thread in Path("/proc", str(pid), "task").iterdir()} != {"T"}:
        assert time.monotonic() < until


def _state(thread: Path) -> str:
    """The state's letter in proc(5)'s stat, after the name in brackets."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
